"""What waits for a client, and the offsets that the next message tells of as missing. (P5)"""

from __future__ import annotations

from broker.message import Grant, Outgoing
from broker.session.outbox import GAPS_MAX, Outbox, with_missing
from tests.support.messages import message


def outgoing(*offsets: int) -> list[Outgoing]:
    return [(message("x", offset=offset), Grant(1)) for offset in offsets]


def told(outbox: Outbox) -> list[tuple[int, tuple[range, ...]]]:
    return [(message.offset, grant.missing) for message, grant in outbox]


def test_the_next_message_tells_what_is_missing_before_it() -> None:
    outbox = Outbox()
    outbox.offer(outgoing(1), 1)
    outbox.miss([range(2, 4)])
    outbox.offer([], 0)
    outbox.miss([range(6, 7)])
    outbox.offer(outgoing(4, 9), 2)
    assert told(outbox) == [(1, ()), (4, (range(2, 4),)), (9, (range(6, 7),))]
    assert outbox.size == 3


def test_what_was_not_told_yet_was_not_taken() -> None:
    outbox = Outbox()
    assert outbox.first() is None
    outbox.miss([range(2, 4)])
    assert outbox.first() == 2
    outbox.offer(outgoing(8), 1)
    assert outbox.first() == 2
    outbox.popleft()
    assert outbox.first() is None
    outbox.offer(outgoing(9), 1)
    assert outbox.first() == 9


def test_clear_forgets_all() -> None:
    outbox = Outbox()
    outbox.offer(outgoing(8), 1)
    outbox.miss([range(9, 10)])
    outbox.clear()
    assert (len(outbox), outbox.size, outbox.first()) == (0, 0, None)


def test_a_message_tells_of_more_beside_what_it_tells_of_already() -> None:
    first, _ = with_missing(outgoing(20), [range(10, 12)])
    [(_, grant)], left = with_missing(first, [range(1, 3), range(30, 31)])
    assert grant.missing == (range(1, 3), range(10, 12))
    assert left == [range(30, 31)]


def test_one_message_tells_of_a_bounded_number_of_gaps() -> None:
    missing = [range(3 * i, 3 * i + 1) for i in range(GAPS_MAX + 10)]
    [(_, grant)], left = with_missing(outgoing(1000), missing)
    assert left == []
    assert len(grant.missing) == GAPS_MAX
    assert (grant.missing[0], grant.missing[-1].stop) == (missing[0], missing[-1].stop)
