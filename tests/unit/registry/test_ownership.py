"""A session is one broker's: of the one that its client connected to last."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broker.config import Config
from broker.documents import (
    Delete,
    Operation,
    OwnerDocument,
    SessionDocument,
    SubscriptionDocument,
    WillDeadlineDocument,
    WillDocument,
)
from broker.errors import CommandRefused, QuotaExceeded, StoreConflict
from broker.registry import ownership as module
from broker.registry.ownership import Shared
from broker.store.shared.follower import nobody_listens
from broker.store.shared.memory_log import MemoryLog
from tests.support.messages import message
from tests.support.two_brokers import (
    both_settled,
    id_of,
    logged,
    one_more,
    opened,
    pass_away,
    store_of,
    subscribed,
    two_brokers,
    will_of,
)
from tests.support.world import Subscriber, World, payloads, placed


async def owner(world: World, client_id: str = "sub1") -> str:
    found = await world.disk.get(OwnerDocument, (client_id,))
    return "" if found is None else found.broker


async def test_a_session_made_at_one_goes_on_at_the_other() -> None:
    async with two_brokers() as (a, b):
        first = await subscribed(a)
        await a.publish(message("1"), message("2"))
        await first.acknowledge()
        first.close()
        await both_settled(a, b)
        await a.publish(message("3"))
        await both_settled(a, b)
        second = Subscriber(b)
        assert await second.open(), "Session Present"
        await both_settled(a, b)
        assert payloads(second.got) == [b"3"]
        assert await owner(a) == await owner(b) == id_of(b)
        assert ("sub1" in a.sessions.kept, "sub1" in b.sessions.kept) == (False, True)


async def test_what_was_in_flight_at_one_is_sent_again_by_the_other() -> None:
    async with two_brokers() as (a, b):
        first = await subscribed(a)
        await a.publish(message("1"), message("2"))
        await both_settled(a, b)
        assert payloads(first.got) == [b"1", b"2"]
        second = await opened(b)
        await both_settled(a, b)
        assert payloads(second.got) == [b"1", b"2"]


async def test_a_client_that_connects_elsewhere_is_let_go_where_it_was() -> None:
    """[MQTT-3.1.4-3]"""
    async with two_brokers() as (a, b):
        first = await subscribed(a)
        second = await opened(b)
        await both_settled(a, b)
        assert first.lost
        assert a.sessions.connected_count == 0
        await b.publish(message("1"))
        await both_settled(a, b)
        assert payloads(second.got) == [b"1"]
        assert await owner(a) == id_of(b)
        back = await opened(a)
        await both_settled(a, b)
        assert second.lost
        assert payloads(back.got) == [b"1"], "it was not acknowledged"


@pytest.mark.parametrize("expiry_s", [0, 100])
async def test_of_two_that_connect_at_once_one_stays(expiry_s: int) -> None:
    """Also where the session ends with its connection, and is new."""
    async with two_brokers() as (a, b):
        for _ in range(20):
            both = [Subscriber(a), Subscriber(b)]
            done = []
            for subscriber in both:
                try:
                    await subscriber.open(expiry_s=expiry_s)
                    done.append(True)
                except StoreConflict:
                    done.append(False)
            await both_settled(a, b)
            assert any(done)
            there = [world for world in (a, b) if "sub1" in world.sessions.owners]
            assert [id_of(world) for world in there] == [await owner(a)]
            for subscriber in both:
                subscriber.close()
            await both_settled(a, b)


async def test_a_former_owner_changes_nothing_any_more() -> None:
    """Though it has not heard of it yet: others that are in the same commit go on."""
    async with two_brokers() as (a, b):
        mine, other = await subscribed(a), await subscribed(a, "sub2")
        await a.publish(message("1"))
        await both_settled(a, b)
        store_of(a).changed_elsewhere = nobody_listens
        await b.sessions.ownership.take("sub1", "")
        for subscriber in (mine, other):
            placed(subscriber).in_flight.puback(subscriber.packet_ids)
            a.log.changed(placed(subscriber))
        a.log.append([message("of sub1", publisher="sub1")])
        a.log.append([message("of another", publisher="y")])
        await both_settled(a, b)
        assert a.log.failure is None
        assert mine.lost
        assert not other.lost
        assert b"of another" in logged(b)
        assert len((await opened(a, "sub2")).got) == 0
        await both_settled(a, b)
        assert len((await opened(b, "sub2")).got) == 0


async def test_a_broker_that_starts_takes_nothing_from_the_living() -> None:
    """Neither their sessions, nor their clients' wills."""
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        there = await subscribed(a, will=will_of())
        (await subscribed(a, "away")).close()
        await both_settled(a, b)
        async with one_more(log, "c", a.clock) as c:
            await pass_away(a, b, c)
            assert logged(c) == []
            assert not there.lost
            document = await c.disk.get(SessionDocument, ("sub1",))
            assert document is not None
            assert document.expires_at_us is None
            assert await owner(c, "away") == id_of(a)


async def test_who_takes_up_what_is_left_takes_nothing_from_the_living() -> None:
    """A client may have come to another broker since it was seen that its own is dead."""
    async with two_brokers() as (a, b):
        there, group = await subscribed(a), Subscriber(a)
        await group.open("$share/g/t")
        await both_settled(a, b)
        ownership = b.sessions.ownership
        assert isinstance(ownership, Shared)
        assert await ownership.take_left(["sub1", "$share/g/t"]) == []
        await both_settled(a, b)
        assert not there.lost
        assert await owner(b) == await owner(b, "$share/g/t") == id_of(a)


async def test_what_others_take_meanwhile_keeps_no_other_from_its_expiry() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            for name in ("sub1", "sub2"):
                await subscribed(c, name)
            await both_settled(a, b, c)
            await store_of(a).declare_dead(id_of(c))
        ownership = b.sessions.ownership
        assert isinstance(ownership, Shared)
        taken = await ownership.take_left(["sub1", "sub2"])
        await opened(a, "sub1")
        b.sessions.arrived(taken, b.clock.now())
        await both_settled(a, b)
        documents = {each.client_id: each for each in await a.disk.scan(SessionDocument)}
        assert documents["sub1"].expires_at_us is None
        assert documents["sub2"].expires_at_us is not None
        assert "sub1" not in b.sessions.kept


async def cut_off_while_taken(a: World, b: World) -> Shared:
    """The session is of `b`, which was not told: its client left, or the answer was lost."""
    (await subscribed(a)).close()
    await both_settled(a, b)
    ownership = b.sessions.ownership
    assert isinstance(ownership, Shared)
    assert await ownership.take("sub1", "")
    await both_settled(a, b)
    assert (await owner(b), "sub1" in b.sessions.kept) == (id_of(b), False)
    return ownership


@pytest.mark.parametrize("clean", [False, True])
async def test_what_was_taken_and_not_kept_is_there_for_its_client(clean: bool) -> None:
    async with two_brokers() as (a, b):
        await cut_off_while_taken(a, b)
        assert await Subscriber(b).open(clean_start=clean) is not clean, "Session Present"
        await both_settled(a, b)
        assert len(await b.disk.scan(SubscriptionDocument)) == (not clean)


async def test_what_was_taken_and_not_kept_expires_though_its_client_stays_away() -> None:
    async with two_brokers() as (a, b):
        await cut_off_while_taken(a, b)
        assert b.brokers is not None
        await b.passing_time(b.brokers.take_up())
        assert "sub1" in b.sessions.kept
        a.clock.advance(101)
        await both_settled(a, b)
        assert await a.disk.scan(SessionDocument) == []


async def test_what_is_just_being_ended_is_not_taken_again() -> None:
    async with two_brokers() as (a, b):
        (await subscribed(a, expiry_s=0)).close()
        assert not await Subscriber(a).open()
        await both_settled(a, b)
        assert await a.disk.scan(SubscriptionDocument) == []


async def test_what_others_end_while_it_is_taken_up_is_not_taken() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            for name in ("sub1", "sub2"):
                (await subscribed(c, name)).close()
            await both_settled(a, b, c)
            await store_of(a).declare_dead(id_of(c))
        ownership, transact = b.sessions.ownership, store_of(b).transact
        assert isinstance(ownership, Shared)

        async def and_another(operations: Sequence[Operation]) -> None:
            await transact(operations)
            await transact([Delete(SessionDocument, ("sub1",))])

        store_of(b).transact = and_another  # type: ignore[method-assign]
        taken = await ownership.take_left(["sub1", "sub2"])
        assert [each.document.client_id for each in taken] == ["sub2"]


async def test_a_session_that_ends_with_its_connection_is_new_elsewhere() -> None:
    async with two_brokers() as (a, b):
        first = await subscribed(a, expiry_s=0)
        second = Subscriber(b)
        assert not await second.open(expiry_s=0)
        await both_settled(a, b)
        assert first.lost
        second.close()
        await both_settled(a, b)
        for world in (a, b):
            assert await world.disk.scan(SessionDocument) == []
            assert len(world.sessions.kept) == 0


async def test_a_will_goes_out_when_its_client_connects_elsewhere() -> None:
    """Once. With a delay it does not. [MQTT-3.1.3-9]"""
    async with two_brokers() as (a, b):
        await opened(a, "at once", will=will_of("at once"))
        await opened(a, "later", will=will_of("later", delay_s=10))
        await both_settled(a, b)
        for name in ("at once", "later"):
            await opened(b, name)
        await both_settled(a, b)
        a.clock.advance(11)
        await both_settled(a, b)
        assert logged(a) == logged(b) == [b"at once"]
        assert await b.disk.scan(WillDocument) == []


async def test_a_will_whose_session_has_ended_is_published_by_who_finds_it() -> None:
    """Its broker has ended the session, and died before it published the will."""
    log = MemoryLog()
    async with two_brokers(Config(will_restart_grace_s=0), log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c, will=will_of())
            await c.log.store.transact([Delete(SessionDocument, ("sub1",))])
        await pass_away(a, b)
        assert logged(a) == logged(b) == [b"sub1"]
        assert await a.disk.scan(WillDeadlineDocument) == []


async def test_who_comes_back_before_a_left_will_is_published_has_none_of_it_later() -> None:
    log = MemoryLog()
    async with two_brokers(Config(will_restart_grace_s=30), log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c, will=will_of())
            await c.log.store.transact([Delete(SessionDocument, ("sub1",))])
        await pass_away(a, b)
        await opened(b)
        a.clock.advance(60)
        await both_settled(a, b)
        assert logged(a) == []


async def test_a_session_that_is_lost_while_it_is_opened_is_not_counted_any_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "OPEN_TRIES", 1)
    async with two_brokers() as (a, b):
        (await subscribed(a)).close()
        await both_settled(a, b)
        store_of(a).changed_elsewhere = nobody_listens
        await opened(b)
        await both_settled(a, b)
        with pytest.raises(StoreConflict):
            await opened(a)
        assert (len(a.sessions.kept), a.sessions.kept.absent_count) == (0, 0)
        await a.sessions.ownership.hear()
        assert await Subscriber(a).open(), "Session Present"


@pytest.mark.parametrize("name", ["sub1", "$share/g/t"])
async def test_who_has_not_heard_yet_that_another_had_it_gets_it_all_the_same(name: str) -> None:
    async with two_brokers() as (a, b):
        (await opened(a, name)).close()
        await both_settled(a, b)
        store_of(a).changed_elsewhere = nobody_listens
        (await opened(b, name)).close()
        await both_settled(a, b)
        assert await Subscriber(a).open(name), "Session Present"
        await both_settled(a, b)
        assert await owner(b, name) == id_of(a)


async def test_only_the_broker_that_has_a_session_ends_it() -> None:
    async with two_brokers() as (a, b):
        (await subscribed(a, expiry_s=100)).close()
        await both_settled(a, b)
        a.clock.advance(50)
        (await opened(b, expiry_s=100)).close()
        await both_settled(a, b)
        a.clock.advance(60)
        await both_settled(a, b)
        assert len(await a.disk.scan(SessionDocument)) == 1
        a.clock.advance(50)
        await both_settled(a, b)
        assert await a.disk.scan(SessionDocument) == []
        assert (a.sessions.expiry.count, b.sessions.expiry.count) == (0, 1)


async def test_nobody_is_certain_that_nobody_is_subscribed() -> None:
    async with two_brokers() as (a, b):
        await subscribed(b)
        await both_settled(a, b)
        assert a.sessions.nobody_gets([message("1")]) == ()


async def test_a_group_with_members_stays_where_they_are() -> None:
    async with two_brokers() as (a, b):
        group = Subscriber(a)
        await group.open("$share/g/t")
        await both_settled(a, b)
        with pytest.raises(QuotaExceeded, match="has members at another broker"):
            await Subscriber(b).open("$share/g/t")
        await both_settled(a, b)
        assert not group.lost
        group.close()
        await both_settled(a, b)
        assert await Subscriber(b).open("$share/g/t")


async def test_a_command_for_an_absent_session_elsewhere_is_carried_out_here() -> None:
    """It comes along, as it does with its client."""
    async with two_brokers() as (a, b):
        (await subscribed(a)).close()
        await a.publish(message("1"), message("2"))
        await both_settled(a, b)
        moved = await b.passing_time(b.administration.seek("sub1", "latest"))
        assert (moved.connected, moved.skipped) == (False, 2)
        forked = await a.passing_time(a.administration.fork("sub1", "sub2"))
        assert (forked.filters, forked.cursor) == (("t",), 2)
        removed = await b.passing_time(b.administration.remove("sub1"))
        assert not removed.connected
        await both_settled(a, b)
        assert not await opened_again(a)


async def opened_again(world: World) -> bool:
    return await Subscriber(world).open()


async def test_a_command_for_a_client_that_is_connected_elsewhere_says_where() -> None:
    async with two_brokers(Config(advertise="a:1")) as (a, b):
        subscriber = await subscribed(a)
        assert a.brokers is not None
        await a.passing_time(a.brokers.look())
        await both_settled(a, b)
        for command in (
            b.administration.remove("sub1"),
            b.administration.seek("sub1", "earliest"),
            b.administration.fork("sub1", "sub2"),
        ):
            with pytest.raises(CommandRefused, match=r"at broker a\.0 \(a:1\); give the command"):
                await b.passing_time(command)
        assert not subscriber.lost


async def test_a_former_owner_publishes_no_will() -> None:
    """Though it has not heard of it yet."""
    async with two_brokers() as (a, b):
        await opened(a, will=will_of())
        await both_settled(a, b)
        store_of(a).changed_elsewhere = nobody_listens
        await opened(b, will=will_of())
        await both_settled(a, b)
        assert logged(b) == [b"sub1"]
        a.wills.client_lost("sub1", session_expiry_s=100, now=a.clock.now())
        await both_settled(a, b)
        assert logged(a) == logged(b) == [b"sub1"]


async def test_a_will_that_waits_goes_with_its_session() -> None:
    async with two_brokers() as (a, b):
        there = await opened(a, will=will_of(delay_s=50))
        a.wills.client_lost("sub1", session_expiry_s=100, now=a.clock.now())
        there.close()
        await both_settled(a, b)
        assert a.wills.deadline() is not None
        await b.sessions.ownership.take("sub1", "")
        await both_settled(a, b)
        assert a.wills.deadline() is None


async def test_a_session_that_another_has_keeps_no_other_from_ending() -> None:
    async with two_brokers() as (a, b):
        for name in ("sub1", "sub2"):
            (await subscribed(a, name, expiry_s=100)).close()
        await both_settled(a, b)
        store_of(a).changed_elsewhere = nobody_listens
        await opened(b, expiry_s=1000)
        await both_settled(a, b)
        a.clock.advance(101)
        await both_settled(a, b)
        assert [d.client_id for d in await b.disk.scan(SessionDocument)] == ["sub1"]


async def test_qos_0_is_in_the_log_before_anybody_gets_it() -> None:
    """Or what another broker has appended before would come after it."""
    async with two_brokers() as (a, b):
        there = await subscribed(a)
        await both_settled(a, b)
        a.log.append([message("1", qos=0)], durable=False)
        assert there.got == []
        b.log.append([message("2", qos=0)], durable=False)
        await both_settled(a, b)
        assert payloads(there.got) == logged(b)
        assert [m.offset for m, _ in there.got] == [1, 2]
