from __future__ import annotations

from broker.handed_on import HandedOn
from broker.message import Offset
from broker.session.position import LivePosition
from broker.session.served import NOTHING, Served
from broker.session.standing import Standing
from tests.support.messages import message


def run(number: int, offset: int) -> HandedOn:
    part = HandedOn()
    part.add(number, [message(offset=offset)], 1)
    part.committed()
    return part


def live(*runs: tuple[int, int]) -> tuple[LivePosition, Standing]:
    """Routed up to 4; the numbers and offsets of runs that are ahead. A session is with them."""
    position = LivePosition(Offset(4))
    for number, offset in runs:
        hand_on(position, number, offset)
    standing = Standing(Offset(0))
    standing.go_live(position, waits=False)
    return position, standing


def hand_on(position: LivePosition, number: int, offset: int) -> None:
    position.ahead.number = number
    position.ahead.state += 1
    position.ahead.parts.append(run(number, offset))


def test_whoever_is_ahead_has_had_every_run() -> None:
    _, standing = live((1, 5), (2, 7))
    assert standing.served().ranges() == []
    standing.go_ahead()
    assert standing.served().ranges() == [range(5, 6), range(7, 8)]


def test_whoever_stays_back_has_had_the_runs_up_to_then_also_when_it_is_behind() -> None:
    _, standing = live((1, 5), (2, 7))
    standing.go_ahead()
    standing.stay_back(1)
    standing.stay_back(2)
    assert (standing.ahead, standing.handed_through) == (False, 1)
    standing.fall_behind(Offset(4))
    assert not standing.position.is_live
    assert standing.served().ranges() == [range(5, 6)]


def test_whoever_falls_behind_from_ahead_has_had_all_of_them() -> None:
    position, standing = live((1, 5), (2, 7))
    standing.go_ahead()
    standing.fall_behind(Offset(3))
    position.ahead.parts.clear()
    assert (standing.ahead, standing.handed_through) == (False, 2)
    assert (standing.position.through, standing.offered_through()) == (3, 7)
    left = standing.not_served([message(offset=offset) for offset in (4, 5, 6, 7)])
    assert [m.offset for m in left] == [4, 6]


def test_nothing_is_kept_while_nothing_waits() -> None:
    """P7"""
    position, standing = live((1, 5))
    standing.go_ahead()
    standing.went_past()
    position.advance(Offset(5))
    assert standing.kept is None
    assert standing.served() is NOTHING


def test_what_was_handed_before_something_waited_is_kept_when_it_is_routed() -> None:
    """An older message of QoS 1 came between: its place is before that."""
    position, standing = live((1, 6))
    standing.go_ahead()
    standing.begins_to_wait()
    position.advance(Offset(6))
    assert standing.served().ranges() == [range(6, 7)]
    standing.stay_back(1)
    hand_on(position, 2, 8)
    standing.fall_behind(Offset(4))
    assert standing.served().ranges() == [range(6, 7)]


def test_what_goes_past_that_which_waits_is_kept_too() -> None:
    position, standing = live()
    standing.go_ahead()
    standing.begins_to_wait()
    for number, offset in ((1, 7), (2, 9)):
        hand_on(position, number, offset)
        standing.went_past()
        standing.went_past()
        position.advance(Offset(offset))
    assert standing.kept is not None
    assert len(standing.kept) == 2
    assert standing.served().ranges() == [range(7, 8), range(9, 10)]


def test_whoever_goes_live_with_something_that_waits_keeps_what_it_was_handed() -> None:
    position, _ = live()
    standing = Standing(Offset(0))
    standing.kept = Served(ranges=[range(3, 4)])
    standing.go_live(position, waits=True)
    hand_on(position, 1, 6)
    assert standing.served().ranges() == [range(3, 4)]
    standing.go_live(position, waits=False)
    assert standing.served().ranges() == []
