from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from broker.config import Config
from broker.documents import (
    CursorDocument,
    Document,
    Put,
    SessionDocument,
    SubscriptionDocument,
    WillDocument,
)
from broker.errors import QuotaExceeded, StoreFull
from tests.support.clock import FakeClock
from tests.support.groups import member
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, World, payloads, running, subscription

BOOTED_S = [0, 1_000_000_000 - 31 * 86_400, 1_000_000_000 - 3600, 1_000_003_600, 1_031_536_000]
"""What the wall clock may have, where a broker ran at second 1,000,000,000."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(clock: FakeClock) -> AsyncIterator[World]:
    async with running(Disk(), Config(sessions_max=2), clock) as world:
        yield world


async def subscribed(world: World, client_id: str = "sub1", *, expiry_s: int = 100) -> Subscriber:
    subscriber = Subscriber(world)
    await subscriber.open(client_id, expiry_s=expiry_s)
    subscriber.subscribe(subscription(client_id=client_id))
    await world.settled()
    return subscriber


async def test_a_session_is_there_again_with_its_subscriptions_and_its_place(world: World) -> None:
    """[MQTT-3.1.2-5]"""
    first = await subscribed(world)
    await world.publish(message("1"))
    await first.acknowledge()
    first.close()
    await world.publish(message("2"))
    second = Subscriber(world)
    assert await second.open()
    await world.settled()
    assert payloads(second.got) == [b"2"]


async def test_a_session_is_read_from_the_log_in_one_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await subscribed(world)
    await first.acknowledge()
    first.close()
    await world.settled()
    read, calls = world.disk.scan_together, 0

    async def counted(*args: Any) -> list[Document]:
        nonlocal calls
        calls += 1
        return await read(*args)

    async def unexpected(*args: Any) -> None:
        raise AssertionError("one more call, and maybe of another moment")

    monkeypatch.setattr(world.disk, "scan_together", counted)
    monkeypatch.setattr(world.disk, "scan", unexpected)
    assert await Subscriber(world).open()
    assert calls == 1


async def test_only_connected_sessions_are_in_memory(world: World) -> None:
    """P7"""
    subscriber = await subscribed(world)
    session = subscriber.session
    subscriber.close()
    await world.settled()
    again = Subscriber(world)
    await again.open()
    assert again.session is not session
    assert world.sessions.connected_count == 1
    assert world.sessions.kept.client_count == 1


async def test_who_takes_over_has_the_session_and_the_other_nothing(world: World) -> None:
    """[MQTT-3.1.4-3]"""
    first, second = await subscribed(world), Subscriber(world)
    assert await second.open()
    assert first.lost
    first.close()
    await world.publish(message("1"))
    assert (payloads(first.got), payloads(second.got)) == ([], [b"1"])


async def test_of_many_that_open_one_session_at_once_the_last_has_it(world: World) -> None:
    subscribers = [Subscriber(world) for _ in range(5)]
    present = await asyncio.gather(*[subscriber.open() for subscriber in subscribers])
    assert present == [False, True, True, True, True]
    assert [subscriber.lost for subscriber in subscribers] == [True] * 4 + [False]


async def test_a_clean_start_forgets_the_session(world: World) -> None:
    """[MQTT-3.1.2-4]"""
    (await subscribed(world)).close()
    await world.settled()
    again = Subscriber(world)
    assert not await again.open(clean_start=True)
    assert await world.disk.scan(SubscriptionDocument) == []
    await world.publish(message("1"))
    assert again.got == []


async def test_a_clean_start_leaves_nothing_of_a_session_that_is_just_being_saved(
    world: World,
) -> None:
    """Whose place in the log would else become that of the new one."""
    old = await subscribed(world)
    await world.publish(message("1"))
    new = Subscriber(world)
    assert not await new.open(clean_start=True)
    await world.settled()
    assert old.lost
    assert await world.disk.get(CursorDocument, ("sub1",)) is None
    assert await world.disk.get(SessionDocument, ("sub1",)) is not None


async def test_a_session_without_expiry_ends_with_the_connection(world: World) -> None:
    """[MQTT-3.1.2-23]"""
    subscriber = Subscriber(world)
    await subscriber.open(expiry_s=0)
    assert await world.disk.scan(SessionDocument) == []
    subscriber.close()
    assert not await Subscriber(world).open()


async def test_a_session_opened_without_expiry_does_not_come_back_after_a_crash(
    world: World,
) -> None:
    (await subscribed(world)).close()
    last = Subscriber(world)
    assert await last.open(expiry_s=0)
    await world.publish(message("1"))
    assert payloads(last.got) == [b"1"]
    await world.settled()
    assert await world.disk.scan(SessionDocument) == []
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_an_unused_session_expires(world: World, clock: FakeClock) -> None:
    (await subscribed(world, expiry_s=100)).close()
    clock.advance(99)
    await world.settled()
    assert world.sessions.kept.client_count == 1
    clock.advance(1)
    await world.settled()
    assert world.sessions.kept.client_count == 0
    assert world.sessions.expiry.count == 1
    assert await world.disk.scan(SessionDocument) == []
    assert not await Subscriber(world).open()


async def test_a_session_in_use_does_not_expire_nor_one_that_was_used_since(
    world: World, clock: FakeClock
) -> None:
    subscriber = await subscribed(world, expiry_s=100)
    clock.advance(1000)
    subscriber.close()
    clock.advance(60)
    assert await subscriber.open(expiry_s=100)
    subscriber.close()
    clock.advance(60)
    await world.settled()
    assert world.sessions.kept.client_count == 1


async def test_the_longest_expiry_is_for_ever(world: World, clock: FakeClock) -> None:
    (await subscribed(world, expiry_s=0xFFFF_FFFF)).close()
    clock.advance(1 << 40)
    await world.settled()
    assert world.sessions.kept.client_count == 1


async def test_a_session_does_not_expire_while_it_is_being_opened(
    world: World, clock: FakeClock
) -> None:
    (await subscribed(world, expiry_s=100)).close()
    await world.settled()
    world.disk.may_commit.clear()
    again = Subscriber(world)
    opening = asyncio.create_task(again.open())
    await asyncio.sleep(0)
    clock.advance(100)
    for _ in range(5):
        await asyncio.sleep(0)
    world.disk.may_commit.set()
    assert await opening
    await world.publish(message("1"))
    assert payloads(again.got) == [b"1"]
    assert len(await world.disk.scan(SubscriptionDocument)) == 1


async def test_coming_and_going_leaves_nothing_behind(world: World) -> None:
    subscriber = Subscriber(world)
    for _ in range(50):
        await subscriber.open()
        subscriber.close()
    assert not world.sessions._locks


async def test_there_is_a_limit_to_stored_sessions_and_none_for_those_that_are_there(
    world: World,
) -> None:
    for client_id in ("sub1", "sub2"):
        (await subscribed(world, client_id)).close()
    with pytest.raises(QuotaExceeded):
        await Subscriber(world).open("sub3")
    await Subscriber(world).open("sub3", expiry_s=0)
    assert await Subscriber(world).open("sub1")
    assert not await Subscriber(world).open("sub2", clean_start=True)


async def test_a_session_goes_on_also_while_the_disk_is_full(world: World) -> None:
    """Its subscriber can drain what there is. What that changes is stored later."""
    subscriber = await subscribed(world)
    subscriber.close()
    await world.publish(message("1"))
    world.disk.full = True
    late = Subscriber(world)
    assert await late.open()
    for _ in range(20):
        await asyncio.sleep(0)
    assert payloads(late.got) == [b"1"]
    world.disk.full = False
    await late.acknowledge()
    [document] = await world.disk.scan(SessionDocument)
    assert document.expires_at_us is None


@pytest.mark.parametrize(("clean_start", "expiry_s"), [(False, 0), (True, 0), (True, 100)])
async def test_a_full_disk_refuses_the_connection_and_keeps_the_session(
    world: World, clean_start: bool, expiry_s: int
) -> None:
    """P3: or everything that it is owed would be lost."""
    subscriber = await subscribed(world)
    world.disk.full = True
    late = Subscriber(world)
    with pytest.raises(StoreFull):
        await late.open(clean_start=clean_start, expiry_s=expiry_s)
    assert subscriber.lost
    assert world.sessions.connected_count == 0
    world.disk.full = False
    await world.publish(message("1"))
    assert await late.open()
    await world.settled()
    assert payloads(late.got) == [b"1"]


async def test_an_end_that_a_full_disk_could_not_take_is_stored_later(world: World) -> None:
    subscriber = await subscribed(world)
    session = subscriber.session
    assert session is not None
    world.disk.full = True
    session.set_expiry(0)
    subscriber.close()
    for _ in range(5):
        await asyncio.sleep(0)
    world.disk.full = False
    await world.settled()
    assert await world.disk.scan(SessionDocument) == []


async def test_after_a_crash_sessions_begin_to_expire() -> None:
    disk, clock = Disk(), FakeClock()
    async with running(disk, clock=clock) as world:
        await subscribed(world)
        [document] = await disk.scan(SessionDocument)
        assert document.expires_at_us is None
    clock.advance(5000)
    async with running(disk, clock=clock) as world:
        await world.settled()
        [document] = await disk.scan(SessionDocument)
        ends_at = clock.now().after(100)
        assert document.expires_at_us == world.log.time.served_at(ends_at)
        assert await Subscriber(world).open()


@pytest.mark.parametrize(("served_s", "present"), [(39, True), (41, False)])
@pytest.mark.parametrize("booted_s", BOOTED_S)
async def test_an_absent_session_has_after_a_restart_what_it_had_left(
    booted_s: int, served_s: int, present: bool
) -> None:
    """However long the broker was down, or the wall clock says it was. The new process counts its
    seconds from another zero."""
    disk, clock = Disk(), FakeClock()
    async with running(disk, clock=clock) as world:
        (await subscribed(world, expiry_s=100)).close()
        clock.advance(60)
        await world.publish(message("1"))
    clock = FakeClock(wall_s=booted_s, monotonic_s=777)
    async with running(disk, clock=clock) as world:
        await world.settled()
        clock.set_wall(1_000_000_999)
        clock.advance(served_s)
        await world.settled()
        back = Subscriber(world)
        assert await back.open() == present
        await world.settled()
        assert payloads(back.got) == ([b"1"] if present else [])


@pytest.mark.parametrize("booted_s", BOOTED_S)
@pytest.mark.parametrize("expiry_s", [1000, 0xFFFF_FFFF])
async def test_what_was_connected_at_a_power_cut_is_kept_whatever_the_clock_boots_with(
    booted_s: int, expiry_s: int
) -> None:
    """And is set to; over two such starts."""
    disk = Disk()
    async with running(disk) as world:
        await subscribed(world, expiry_s=expiry_s)
        await member(world, "worker", expiry_s=expiry_s)
        await world.publish(message("1"), message("job", "jobs/a"))
    for _ in range(2):
        clock = FakeClock(wall_s=booted_s)
        async with running(disk, clock=clock) as world:
            clock.advance(60)
            await world.settled()
            clock.set_wall(1_000_100_000)
            clock.advance(60)
            await world.settled()
            assert (world.sessions.kept.client_count, world.sessions.kept.group_count) == (2, 1)
    async with running(disk) as world:
        back = Subscriber(world)
        assert await back.open(expiry_s=expiry_s)
        worker = await member(world, "worker", expiry_s=expiry_s)
        await world.settled()
        assert payloads(back.got + worker.got) == [b"1", b"job"]


@pytest.mark.parametrize("wall_s", BOOTED_S)
async def test_a_session_does_not_expire_when_somebody_sets_the_wall_clock(
    world: World, clock: FakeClock, wall_s: int
) -> None:
    (await subscribed(world, expiry_s=100)).close()
    clock.set_wall(wall_s)
    clock.advance(90)
    await world.settled()
    assert world.sessions.kept.client_count == 1
    clock.advance(10)
    await world.settled()
    assert world.sessions.kept.client_count == 0


async def test_a_session_that_could_not_be_opened_expires_when_it_would_have(
    world: World, clock: FakeClock
) -> None:
    (await subscribed(world, expiry_s=100)).close()
    await world.settled()
    clock.advance(50)
    world.disk.full = True
    with pytest.raises(StoreFull):
        await Subscriber(world).open(expiry_s=100, will=will_of())
    world.disk.full = False
    clock.advance(51)
    await world.settled()
    assert world.sessions.expiry.count == 1


def will_of(client_id: str = "sub1", *, delay_s: int = 50) -> WillDocument:
    return WillDocument(client_id, "will", b"gone", 1, False, b"", None, delay_s)


async def lost_with_a_will(world: World) -> None:
    """A client whose will is due in 50 s."""
    subscriber = Subscriber(world)
    await subscriber.open(expiry_s=100, will=will_of())
    world.wills.client_lost("sub1", session_expiry_s=100, now=world.clock.now())
    subscriber.close()
    await world.settled()
    world.disk.commits.clear()


@pytest.mark.parametrize("clean_start", [False, True])
async def test_a_client_that_a_full_disk_refuses_leaves_its_older_will_as_it_was(
    world: World, clean_start: bool
) -> None:
    """Neither published before it is due nor lost, and the new one is forgotten."""
    await lost_with_a_will(world)
    world.disk.full = True
    with pytest.raises(StoreFull):
        await Subscriber(world).open(expiry_s=100, clean_start=clean_start, will=will_of())
    world.disk.full = False
    world.clock.advance(49)
    await world.settled()
    assert [batch for batch, _, _ in world.disk.commits if batch] == []
    assert await world.disk.scan(WillDocument) != []
    world.clock.advance(1)
    await world.settled()
    assert [batch for batch, _, _ in world.disk.commits if batch] == [[b"gone"]]
    assert await world.disk.scan(WillDocument) == []


async def test_a_will_that_is_due_while_its_client_comes_back_waits_for_the_answer(
    world: World,
) -> None:
    """Or it would take the new one with it."""
    await lost_with_a_will(world)
    world.disk.may_commit.clear()
    subscriber = Subscriber(world)
    opening = asyncio.create_task(subscriber.open(expiry_s=100, will=will_of()))
    await asyncio.sleep(0)
    world.clock.advance(51)
    for _ in range(20):
        await asyncio.sleep(0)
    world.disk.may_commit.set()
    await opening
    await world.settled()
    assert [batch for batch, _, _ in world.disk.commits if batch] == []
    assert await world.disk.scan(WillDocument) == [will_of()]


async def test_a_will_that_was_due_while_its_client_was_refused_is_published(world: World) -> None:
    await lost_with_a_will(world)
    world.disk.full = True
    world.disk.may_commit.clear()
    opening = asyncio.create_task(Subscriber(world).open(expiry_s=100, will=will_of()))
    await asyncio.sleep(0)
    world.clock.advance(51)
    world.disk.may_commit.set()
    with pytest.raises(StoreFull):
        await opening
    world.disk.full = False
    world.clock.advance(1)
    await world.settled()
    assert [batch for batch, _, _ in world.disk.commits if batch] == [[b"gone"]]


async def test_a_refused_client_with_a_will_leaves_nothing(world: World) -> None:
    world.disk.full = True
    connects = [
        Subscriber(world).open(name, expiry_s=0, will=will_of(name)) for name in ("a", "b", "c")
    ]
    refusals = await asyncio.gather(*connects, return_exceptions=True)
    assert [type(refusal) for refusal in refusals] == [StoreFull] * 3
    assert world.wills._wills == {}
    assert world.wills.deadline() is None


async def test_a_clean_start_publishes_the_will_that_waited_in_the_commit_that_ends_the_session(
    world: World,
) -> None:
    """A crash leaves both, or neither. [MQTT-3.1.2-8]"""
    await lost_with_a_will(world)
    await Subscriber(world).open(expiry_s=100, clean_start=True, will=will_of())
    [(batch, state, durable)] = [commit for commit in world.disk.commits if commit[0]]
    assert (batch, durable) == ([b"gone"], True)
    assert Put(will_of()) in state


async def test_the_end_of_a_session_publishes_the_will_that_waited(
    world: World, clock: FakeClock
) -> None:
    """[MQTT-3.1.2-8]"""
    will = WillDocument("sub1", "will", b"gone", 1, False, b"", None, 500)
    subscriber = Subscriber(world)
    await subscriber.open(expiry_s=100, will=will)
    world.wills.client_lost("sub1", session_expiry_s=1000, now=clock.now())
    subscriber.close()
    clock.advance(101)
    await world.settled()
    assert [batch for batch, _, _ in world.disk.commits if batch] == [[b"gone"]]


async def test_a_clean_start_publishes_the_will_that_waited(world: World) -> None:
    """The session that it belonged to ends. [MQTT-3.1.2-8]"""
    will = WillDocument("sub1", "will", b"gone", 1, False, b"", None, 50)
    subscriber = Subscriber(world)
    await subscriber.open(will=will)
    world.wills.client_lost("sub1", session_expiry_s=100, now=world.clock.now())
    subscriber.close()
    await subscriber.open(clean_start=True)
    await world.settled()
    assert [batch for batch, _, _ in world.disk.commits if batch] == [[b"gone"]]


# Who gets a message


async def test_of_no_topic_it_is_known_that_nobody_gets_it_while_a_subscriber_is_away(
    world: World, clock: FakeClock
) -> None:
    """P7: what it is subscribed to is not in memory."""
    batch = [message(topic="t"), message(topic="x")]
    assert set(world.sessions.nobody_gets(batch)) == {"t", "x"}
    subscriber = await subscribed(world)
    assert set(world.sessions.nobody_gets(batch)) == {"x"}
    subscriber.close()
    assert not world.sessions.nobody_gets(batch)
    again = Subscriber(world)
    opening = asyncio.create_task(again.open())
    while not opening.done():
        assert not world.sessions.nobody_gets(batch), "not before it is routed to"
        await asyncio.sleep(0)
    assert set(world.sessions.nobody_gets(batch)) == {"x"}
    again.close()
    await world.settled()
    clock.advance(101)
    await world.settled()
    assert world.sessions.kept.client_count == world.sessions.kept.absent_count == 0
    assert set(world.sessions.nobody_gets(batch)) == {"t", "x"}


async def test_who_left_without_a_subscription_gets_nothing(world: World) -> None:
    idle = Subscriber(world)
    await idle.open()
    idle.close()
    assert world.sessions.kept.absent_count == 1
    assert set(world.sessions.nobody_gets([message(topic="t")])) == {"t"}


async def test_after_a_start_nothing_is_known_of_who_is_away() -> None:
    disk = Disk()
    async with running(disk) as world:
        await Subscriber(world).open()
    async with running(disk) as world:
        assert world.sessions.kept.absent_count == 1
        assert not world.sessions.nobody_gets([message(topic="t")])


async def test_a_session_that_cannot_be_opened_is_still_away(world: World) -> None:
    subscriber = await subscribed(world)
    subscriber.close()
    await world.settled()
    world.disk.full = True
    with pytest.raises(StoreFull):
        await Subscriber(world).open(clean_start=True)
    world.disk.full = False
    assert world.sessions.kept.absent_count == 1
    assert not world.sessions.nobody_gets([message(topic="x")])


async def test_a_subscription_that_replays_wants_what_is_published_meanwhile(world: World) -> None:
    await world.publish(message("1"))
    subscriber = Subscriber(world, limit=0)
    await subscriber.open()
    subscriber.subscribe(subscription(replaying=True))
    await world.settled()
    assert subscriber.session is not None
    assert subscriber.session.subscriptions["t"].replaying
    assert not world.sessions.nobody_gets([message(topic="t")])
    await world.publish(message("2"))
    subscriber.limit = 1 << 20
    subscriber.wake()
    await world.settled()
    assert payloads(subscriber.got) == [b"1", b"2"]


# What we do wrong


def mistake(*_: object, **__: object) -> None:
    raise ZeroDivisionError


async def test_who_is_taken_over_badly_is_told_and_the_newcomer_has_the_session(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await subscribed(world)
    monkeypatch.setattr(first, "taken_over", mistake)
    second = Subscriber(world)
    assert await second.open()
    assert [type(error) for error in first.errors] == [ZeroDivisionError]
    await world.publish(message("1"))
    assert payloads(second.got) == [b"1"]


@pytest.mark.parametrize("where", ["sessions._take_up", "delivery.attach", "wills.connecting"])
async def test_a_session_that_could_not_be_opened_can_be_opened_again(
    where: str, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    (await subscribed(world)).close()
    await world.settled()
    module, method = where.split(".")
    with monkeypatch.context() as patch:
        patch.setattr(getattr(world, module), method, mistake)
        with pytest.raises(ZeroDivisionError):
            await Subscriber(world).open()
    assert (world.sessions.connected_count, world.sessions.kept.absent_count) == (0, 1)
    await world.publish(message("1"))
    again = Subscriber(world)
    assert await again.open()
    await world.settled()
    assert payloads(again.got) == [b"1"]


async def test_a_mistake_while_one_leaves_does_not_keep_its_session_open(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = await subscribed(world)
    with monkeypatch.context() as patch:
        patch.setattr(world.delivery, "detach", mistake)
        with pytest.raises(ZeroDivisionError):
            first.close()
    assert (world.sessions.connected_count, world.sessions.kept.absent_count) == (0, 1)


async def test_a_mistake_at_the_end_of_one_session_leaves_the_others_to_end(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for client_id in ("one", "two"):
        (await subscribed(world, client_id)).close()
    await world.settled()
    monkeypatch.setattr(world.wills, "session_ended", mistake)
    world.clock.advance(200)
    await world.settled()
    assert world.sessions.kept.client_count == 0
    assert await world.disk.scan(SessionDocument) == []
    assert [record.levelname for record in caplog.records] == ["CRITICAL"] * 2
