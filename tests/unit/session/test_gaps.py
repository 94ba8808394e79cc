"""What a session was told of missing offsets, and what was counted for it."""

from __future__ import annotations

from broker.message import Grant, Offset
from broker.session.gaps import TOLD_MAX, Gaps
from broker.session.session import Session
from tests.support.messages import message

NOW_US = 0


def test_nothing_is_counted_twice() -> None:
    gaps = Gaps()
    assert not gaps
    gaps.counted([range(3, 5), range(7, 9)])
    gaps.counted([])
    gaps.counted([range(3, 5)])
    assert gaps.counted_through == 8
    assert gaps


def test_what_was_acknowledged_is_forgotten() -> None:
    """A client that stays for years, and a log with a gap before each message."""
    session = Session("a", created_at_us=0, start=Offset(0), inflight_max=10)
    session.attach(10)
    for offset in range(2, 4 * TOLD_MAX, 2):
        session.supply.miss([range(offset - 1, offset)])
        session.supply.offer([(message(offset=offset), Grant(1))], 1)
        [packet_id] = session.supply.take(NOW_US, 1).packet_ids
        told = session.gaps.told
        assert told[Offset(offset)] == (range(offset - 1, offset),)
        assert len(told) <= TOLD_MAX
        session.in_flight.puback([packet_id])
    session.detach()
    assert session.gaps.told == {}
