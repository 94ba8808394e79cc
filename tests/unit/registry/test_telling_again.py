"""What an earlier run told as missing, and the client did not acknowledge, is told again. (P5)"""

from __future__ import annotations

import pytest

from broker.message import Offset, PacketIdentifier
from broker.registry.telling_again import tell_again
from broker.session.exchange import InFlight, Stage
from broker.session.position import Position
from broker.session.session import Session
from broker.store.memory import MemoryStore
from broker.store.removing import Cut, Order
from tests.support.messages import numbered
from tests.support.world import subscription

REMOVED = {*range(5, 9), 15, *range(30, 34)}


@pytest.fixture
async def store() -> MemoryStore:
    """Of 40 messages some are removed, though somebody wanted them."""
    store = MemoryStore()
    await store.open()
    await store.append(numbered(40))
    [number] = (await store.removing.segments(Offset(0)))[0].topics
    for offset in sorted(REMOVED):
        cuts = {number: Cut(Offset(offset + 1), Offset(0))}
        order = Order(Offset(offset), Offset(offset), cuts, unread_below=True)
        await store.removing.remove(order, 100)
    return store


def restored(
    *in_flight: int, cursor: int = 0, through: int = 40, stage: Stage = Stage.SENT_QOS1
) -> Session:
    """As it was loaded, subscribed to `t`, with these offsets in flight; a negative one came from
    aside."""
    session = Session("a", created_at_us=0, start=Offset(0), inflight_max=100)
    session.subscribe(subscription("t"))
    entries = [
        InFlight(Offset(abs(offset)), PacketIdentifier(n), stage, aside=offset < 0)
        for n, offset in enumerate(in_flight, 1)
    ]
    session.in_flight.restore(len(entries) + 1, entries)
    session.standing.position = Position(Offset(through))
    session.gaps.restored_at = Offset(cursor)
    return session


def told(session: Session) -> dict[int, set[int]]:
    return {
        offset: {missing for part in parts for missing in part}
        for offset, parts in session.gaps.told.items()
    }


async def test_the_next_message_in_flight_tells_what_is_missing_before_it(
    store: MemoryStore,
) -> None:
    session = restored(3, 10, 20)
    await tell_again(store, session)
    assert told(session) == {10: {5, 6, 7, 8}, 20: {15}}
    assert session.cursor() == 2
    session.in_flight.puback([1])
    assert session.cursor() == 4
    session.in_flight.puback([2, 3])
    assert session.cursor() == 40


async def test_nothing_is_told_that_is_acknowledged_or_still_to_be_read(store: MemoryStore) -> None:
    session = restored(10, 20, 40, cursor=8, through=29)
    await tell_again(store, session)
    assert told(session) == {20: {15}}


async def test_what_came_from_aside_or_was_received_tells_nothing(store: MemoryStore) -> None:
    for session in (restored(-10, -20), restored(10, 20, stage=Stage.RELEASED), restored()):
        await tell_again(store, session)
        assert told(session) == {}


async def test_it_was_counted_by_the_run_that_told_it(store: MemoryStore) -> None:
    session = restored(35)
    await tell_again(store, session)
    assert told(session) == {35: REMOVED}
    assert session.gaps.counted_through == 33


async def test_what_lies_below_the_log_start_is_told(store: MemoryStore) -> None:
    await store.trim(Offset(18))
    session = restored(20, cursor=12)
    await tell_again(store, session)
    assert told(session) == {20: {*range(13, 18)}}
