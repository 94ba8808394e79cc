from __future__ import annotations

from broker.documents import fill_in
from broker.handed_on import HandedOn
from broker.message import Offset
from broker.session.served import NOTHING, Served, joined
from tests.support.messages import message


def part(*runs: int, first: int = 0) -> HandedOn:
    """Runs of so many messages, numbered 1, 2, 3...; committed from `first` on, if given."""
    made = HandedOn()
    for number, count in enumerate(runs, 1):
        made.add(number, [message() for _ in range(count)], count)
    if first:
        for offset, sent in enumerate(made.messages, first):
            sent.offset = Offset(offset)
        made.committed()
    return made


def test_it_is_the_runs_up_to_a_number_as_far_as_they_are_committed() -> None:
    parts = [part(2, 3, 1, first=11), part(1, 1)]
    assert Served(2, parts).ranges() == [range(11, 16)]
    assert Served(3, parts).ranges() == [range(11, 17)]
    assert Served(0, parts).ranges() == []
    assert Served(2, parts).through() == 15
    assert Served().through() == 0


def test_more_parts_count_as_far_as_their_runs_come_by_the_number() -> None:
    first, second = part(2, 3, first=11), part(1, first=21)
    served = Served(1, [first], [range(5, 6)])
    assert served.with_more(2, [first, second]).ranges() == [
        range(5, 6), range(11, 16), range(21, 22)
    ]  # fmt: skip
    assert len(served.with_more(2, [first, second])) == 3
    assert served.with_more(0, [second]).ranges() == [range(5, 6)]
    assert NOTHING.with_more(0, [second]) is NOTHING


def test_it_is_settled_once_all_offsets_are_known() -> None:
    """P7: the parts are let go of."""
    known, waiting = part(2, 3, first=11), part(1)
    assert Served(1, [known, waiting]).settled().parts == [known, waiting]
    settled = Served(1, [known], [range(5, 6)]).settled()
    assert (settled.parts, settled.ranges()) == ([], [range(5, 6), range(11, 13)])


def test_what_is_routed_keeps_its_offsets_and_no_messages() -> None:
    """P7"""
    served = part(2, 3, first=11)
    served.routed()
    assert served.messages == []
    assert Served(1, [served]).ranges() == [range(11, 13)]


def test_who_reads_the_log_leaves_it_out() -> None:
    read = [message(offset=offset) for offset in range(10, 20)]
    served = Served(2, [part(2, 3, 1, first=11)], [range(17, 18)])
    assert [m.offset for m in served.left_out(read)] == [10, 16, 18, 19]
    assert served.left_out(read[8:]) == read[8:]
    assert served.left_out([]) == []


def test_the_commit_that_runs_decides_the_offsets_of_the_rest() -> None:
    waiting = part(2, 3, 1)
    served = Served(2, [part(1, first=3), waiting])
    assert not served.commit_begins()
    assert served.filled_in() == [range(3, 4)]
    waiting.commit_begins(7)
    assert served.commit_begins()
    assert [place.after for place in waiting.places] == [8, 12]
    for first in (20, 30):  # The second time it is tried, another has taken the first offsets.
        fill_in([], waiting.places, Offset(first - 1), first)
        assert served.filled_in() == [range(3, 4), range(first + 7, first + 12)]
    waiting.not_committed()
    assert not served.commit_begins()
    assert not Served(0, [waiting]).commit_begins()


def test_ranges_that_touch_are_one() -> None:
    assert joined([range(5, 8), range(1, 3), range(3, 4), range(7, 9)]) == [
        range(1, 4), range(5, 9)
    ]  # fmt: skip
