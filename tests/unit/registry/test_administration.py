"""What an operator does to subscribers, connected or away."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Iterable

import pytest

from broker.config import Config
from broker.documents import CursorDocument, SessionDocument, SubscriptionDocument, WillDocument
from broker.documents.queues import GroupDocument
from broker.errors import (
    CommandRefused,
    NotAuthorized,
    NotFound,
    QuotaExceeded,
    ReplaySpecInvalid,
    StoreFull,
)
from broker.message import Offset
from broker.registry.administration import REMOVED, SKIPPED, Moved, near_names
from broker.registry.groups.queues import Queues
from tests.support.clock import FakeClock
from tests.support.groups import GROUP, member, numbers, publish
from tests.support.messages import message
from tests.support.world import (
    Disk,
    Subscriber,
    World,
    cursor,
    payloads,
    placed,
    running,
    subscription,
)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), Config(sessions_max=3), FakeClock()) as world:
        yield world


async def subscribed(world: World, client_id: str = "sub1", *, qos: int = 1) -> Subscriber:
    subscriber = Subscriber(world)
    await subscriber.open(client_id)
    subscriber.subscribe(subscription(client_id=client_id, qos=qos))
    await world.settled()
    return subscriber


async def published(world: World, first: int, last: int, *, qos: int = 1) -> None:
    await world.publish(*[message(str(n), qos=qos) for n in range(first, last + 1)])


async def seek(world: World, name: str, to: str, *, dry_run: bool = False) -> Moved:
    moved = await world.passing_time(world.administration.seek(name, to, dry_run=dry_run))
    await world.settled()
    return moved


async def back(world: World, client_id: str = "sub1") -> Subscriber:
    subscriber = Subscriber(world)
    assert await subscriber.open(client_id)
    await world.settled()
    return subscriber


async def test_a_seek_back_sends_again_as_new_and_leaves_in_flight_what_is_there(
    world: World,
) -> None:
    subscriber = await subscribed(world)
    await published(world, 1, 4)
    session = placed(subscriber)
    session.in_flight.puback(subscriber.packet_ids[:2])
    world.log.changed(session)
    moved = await seek(world, "sub1", "2")
    assert (moved.before, moved.through, moved.in_flight) == (4, 1, 2)
    assert (moved.again, moved.skipped, moved.connected) == (3, 0, True)
    assert payloads(subscriber.got) == [b"1", b"2", b"3", b"4", b"2", b"3", b"4"]
    assert len({*subscriber.packet_ids}) == 7, "each has a Packet Identifier of its own"
    await subscriber.acknowledge()
    assert await cursor(world) == 4
    await published(world, 5, 5)
    assert payloads(subscriber.got)[-1] == b"5"


async def test_after_a_seek_back_a_crash_goes_on_from_there_and_continues_what_was_in_flight() -> (
    None
):
    disk = Disk()
    async with running(disk) as world:
        subscriber = await subscribed(world, qos=2)
        subscriber.limit = 1
        await published(world, 1, 3, qos=2)
        in_flight = placed(subscriber).in_flight.unfinished()
        subscriber.limit = 0
        await seek(world, "sub1", "earliest")
        assert await cursor(world) == 0
    async with running(disk) as world:
        again = await back(world)
        left = placed(again).in_flight.unfinished()
        assert {(e.offset, e.packet_id) for e in in_flight} <= {
            (e.offset, e.packet_id) for e in left
        }
        assert payloads(again.got) == [b"1", b"2", b"3"]


async def test_a_seek_forward_says_what_is_skipped_and_counts_it(world: World) -> None:
    subscriber = await subscribed(world)
    subscriber.limit = 1
    await world.publish(message("1"))
    subscriber.limit = 0
    await published(world, 2, 5)
    await world.publish(message("x", "other"))
    moved = await seek(world, "sub1", "5")
    assert (moved.again, moved.skipped, moved.in_flight) == (0, 3, 1)
    assert world.counters.dropped[SKIPPED] == 3
    subscriber.limit = 1 << 20
    subscriber.wake()
    await subscriber.acknowledge()
    assert payloads(subscriber.got) == [b"1", b"5"]
    assert await cursor(world) == 6


async def test_a_dry_run_says_the_same_and_does_nothing(world: World) -> None:
    subscriber = await subscribed(world)
    await published(world, 1, 3)
    await subscriber.acknowledge()
    dry = await seek(world, "sub1", "-2", dry_run=True)
    assert payloads(subscriber.got) == [b"1", b"2", b"3"]
    assert await cursor(world) == 3
    assert await seek(world, "sub1", "-2") == dry
    assert (dry.again, dry.through) == (2, 1)
    await seek(world, "sub1", "latest", dry_run=True)
    assert not world.counters.dropped


async def test_the_session_of_a_client_that_is_away_moves_as_well(world: World) -> None:
    subscriber = await subscribed(world)
    await published(world, 1, 3)
    await subscriber.acknowledge()
    subscriber.close()
    await world.settled()
    moved = await seek(world, "sub1", "3")
    assert (moved.connected, moved.again) == (False, 1)
    assert await cursor(world) == 2
    assert payloads((await back(world)).got) == [b"3"]
    assert world.sessions.kept.absent_count == 0


async def test_a_seek_to_before_the_subscription_sends_what_was_there_before_it(
    world: World,
) -> None:
    await published(world, 1, 2)
    subscriber = Subscriber(world)
    await subscriber.open()
    subscriber.subscribe(subscription(start=2))
    await world.settled()
    await seek(world, "sub1", "earliest")
    assert payloads(subscriber.got) == [b"1", b"2"]
    stored = await world.disk.get(SubscriptionDocument, ("sub1", "t"))
    assert stored is not None
    assert stored.start_offset == 0


async def test_a_replay_under_way_goes_on_with_the_session(world: World) -> None:
    subscriber = await subscribed(world)
    await published(world, 1, 3)
    await subscriber.acknowledge()
    subscriber.limit = 0
    subscriber.subscribe(subscription("#", start=0, replaying=True))
    await world.settled()
    await seek(world, "sub1", "latest")
    subscriber.limit = 1 << 20
    subscriber.wake()
    await published(world, 4, 4)
    assert payloads(subscriber.got) == [b"1", b"2", b"3", b"4"]


async def test_a_group_moves_and_what_is_leased_stays_leased(world: World) -> None:
    worker = await member(world, "w1")
    await publish(world, 1, 3)
    moved = await seek(world, GROUP, "2")
    assert (moved.in_flight, moved.again) == (3, 2)
    assert sorted(payloads(worker.got)) == [b"1", b"2", b"2", b"3", b"3"]
    await worker.acknowledge()
    assert await cursor(world, GROUP) == 3
    worker.close()
    await world.settled()
    moved = await seek(world, GROUP, "earliest")
    assert (moved.connected, moved.again) == (False, 3)
    assert numbers(await member(world, "w2")) == []
    await world.settled()


async def test_after_a_seek_a_group_that_was_away_begins_there(world: World) -> None:
    worker = await member(world, "w1")
    await publish(world, 1, 3)
    await worker.acknowledge()
    worker.close()
    await world.settled()
    await seek(world, GROUP, "2")
    other = await member(world, "w2")
    await world.settled()
    assert numbers(other) == [2, 3]


async def test_a_seek_needs_a_subscriber_a_subscription_and_one_place(world: World) -> None:
    await Subscriber(world).open("empty")
    await subscribed(world)
    with pytest.raises(NotFound, match=r"no subscriber sub9; did you mean sub1\?"):
        await seek(world, "sub9", "earliest")
    with pytest.raises(CommandRefused, match="no subscription of its own"):
        await seek(world, "empty", "earliest")
    for spec in ("1:2", "@2025:@2026", "yesterday-ish"):
        with pytest.raises(ReplaySpecInvalid):
            await seek(world, "sub1", spec)


async def test_on_a_full_disk_one_that_is_away_stays_where_it_is(world: World) -> None:
    subscriber = await subscribed(world)
    await published(world, 1, 3)
    await subscriber.acknowledge()
    subscriber.close()
    await world.settled()
    world.disk.full = True
    with pytest.raises(StoreFull):
        await seek(world, "sub1", "earliest")
    world.disk.full = False
    await world.settled()
    assert await cursor(world) == 3


async def test_whoever_connects_waits_while_it_is_worked_on(world: World) -> None:
    subscriber = await subscribed(world)
    await published(world, 1, 2)
    await subscriber.acknowledge()
    subscriber.close()
    await world.settled()
    world.disk.may_commit.clear()
    seeking = asyncio.create_task(world.administration.seek("sub1", "1"))
    opening = asyncio.create_task(back(world))
    for _ in range(20):
        await asyncio.sleep(0)
    assert not seeking.done()
    assert not opening.done()
    world.disk.may_commit.set()
    await world.passing_time(seeking)
    assert payloads((await opening).got) == [b"1", b"2"]


async def test_a_session_does_not_expire_while_it_is_worked_on(world: World) -> None:
    subscriber = await subscribed(world)
    subscriber.close()
    await world.settled()
    async with world.sessions.held("sub1", world.clock.now()) as held:
        assert held is not None
        world.clock.advance(1000)
        await world.settled()
        assert world.sessions.has_durable("sub1")
    await world.settled()
    assert not world.sessions.has_durable("sub1")


async def test_a_fork_has_the_subscriptions_and_goes_on_at_the_cursor(world: World) -> None:
    subscriber = await subscribed(world)
    subscriber.subscribe(subscription("u/#", qos=2))
    subscriber.subscribe(subscription(GROUP))
    await published(world, 1, 3)
    session = placed(subscriber)
    session.in_flight.puback(subscriber.packet_ids[:1])
    world.log.changed(session)
    await world.settled()
    forked = await world.passing_time(world.administration.fork("sub1", "copy"))
    assert (forked.cursor, forked.filters, forked.left_out) == (1, ("t", "u/#"), (GROUP,))
    await published(world, 4, 4)
    copy = await back(world, "copy")
    assert payloads(copy.got) == [b"2", b"3", b"4"]
    assert payloads(subscriber.got) == [b"1", b"2", b"3", b"4"]
    assert placed(copy).subscriptions["u/#"].qos == 2


async def test_a_fork_expires_as_the_session_it_is_of_does(world: World) -> None:
    await subscribed(world)
    await world.passing_time(world.administration.fork("sub1", "copy"))
    assert world.sessions.is_absent("copy")
    world.clock.advance(101)
    await world.settled()
    assert [*world.sessions.kept] == ["sub1"]


async def test_a_group_can_be_forked_into_a_group_of_its_filter_or_a_subscriber(
    world: World,
) -> None:
    worker = await member(world, "w1", expiry_s=100)
    await publish(world, 1, 2)
    fork = world.administration.fork
    with pytest.raises(CommandRefused, match=r"use \$share/<name>/jobs/#"):
        await fork(GROUP, "$share/others/tasks/#")
    await world.passing_time(fork(GROUP, "$share/others/jobs/#"))
    await world.passing_time(fork(GROUP, "single"))
    assert numbers(worker) == [1, 2]
    assert numbers(await back(world, "single")) == [1, 2]
    assert world.sessions.has_durable("$share/others/jobs/#")


async def test_a_fork_needs_a_name_that_nobody_has_and_room(world: World) -> None:
    await subscribed(world)
    await subscribed(world, "sub2")
    fork = world.administration.fork
    with pytest.raises(CommandRefused, match="there is a subscriber sub2 already"):
        await fork("sub1", "sub2")
    with pytest.raises(CommandRefused, match="no name"):
        await fork("sub1", "a\nb")
    with pytest.raises(NotFound):
        await fork("sub3", "sub4")
    await world.passing_time(fork("sub1", "sub3"))
    with pytest.raises(QuotaExceeded):
        await fork("sub1", "sub4")
    assert not world.sessions.has_durable("sub4")


@pytest.mark.parametrize("command", ["seek", "fork", "remove"])
async def test_who_subscribes_while_it_is_asked_whether_that_may_be_is_left_alone(
    world: World, command: str
) -> None:
    subscriber = await subscribed(world)

    async def asked(_: Iterable[str]) -> None:
        subscriber.subscribe(subscription("secret"))

    does = getattr(world.administration, command)
    with pytest.raises(CommandRefused, match="subscribed to something else"):
        await does("sub1", *{"seek": ["latest"], "fork": ["new"], "remove": []}[command], asked)
    await world.settled()
    assert world.sessions.has_durable("sub1")
    assert not world.sessions.has_durable("new")


async def test_who_subscribes_while_the_place_is_found_is_asked_about_again(world: World) -> None:
    subscriber, asked, routed = await subscribed(world), [], world.delivery.routed

    async def meanwhile(through: Offset) -> None:
        subscriber.subscribe(subscription("secret"))
        await routed(through)

    async def ask(filters: Iterable[str]) -> None:
        asked.append([*filters])
        if "secret" in asked[-1]:
            raise NotAuthorized("secret")

    world.delivery.routed = meanwhile  # type: ignore[method-assign]
    with pytest.raises(NotAuthorized):
        await world.administration.seek("sub1", "latest", ask)
    assert asked == [["t"], ["t", "secret"]]


async def test_two_forks_at_once_do_not_wait_for_each_other_for_ever(world: World) -> None:
    await subscribed(world)
    both = asyncio.gather(
        world.administration.fork("sub1", "a"),
        world.administration.fork("a", "sub1"),
        return_exceptions=True,
    )
    done = await world.passing_time(both)
    assert [type(error) for error in done[1:]] in ([NotFound], [CommandRefused])


@pytest.mark.parametrize("connected", [True, False])
async def test_a_removed_subscriber_is_gone_with_its_will_published(
    world: World, *, connected: bool
) -> None:
    watching = await subscribed(world, "watch")
    subscriber = Subscriber(world)
    will = WillDocument("sub1", "t", b"gone", 1, False, b"", None, 50)
    await subscriber.open(will=will)
    subscriber.subscribe(subscription("u"))
    await world.publish(message("1", "u"), message("2", "u"))
    if not connected:
        now = world.clock.now()
        world.wills.client_lost("sub1", session_expiry_s=100, now=now)
        subscriber.close()
        await world.settled()
    removed = await world.passing_time(world.administration.remove("sub1"))
    if connected:  # As its client does when it is told.
        world.wills.client_lost("sub1", session_expiry_s=0, now=world.clock.now())
    await world.settled()
    assert (removed.unread, removed.connected) == (2, connected)
    assert world.counters.dropped[REMOVED] == 2
    assert subscriber.lost == connected
    assert await world.disk.get(SessionDocument, ("sub1",)) is None
    assert await world.disk.get(CursorDocument, ("sub1",)) is None
    assert world.sessions.kept.absent_count == 0
    assert payloads(watching.got) == [b"gone"]
    assert not await Subscriber(world).open("sub1")


async def test_a_group_that_somebody_is_subscribed_to_stays(world: World) -> None:
    worker = await member(world, "w1", expiry_s=100)
    await publish(world, 1, 2)
    remove = world.administration.remove
    with pytest.raises(CommandRefused, match="sessions are subscribed"):
        await remove(GROUP)
    worker.close()
    await world.settled()
    with pytest.raises(CommandRefused, match="sessions are subscribed"):
        await world.passing_time(remove(GROUP))
    assert world.sessions.has_durable(GROUP)
    await world.passing_time(remove("w1"))
    removed = await world.passing_time(remove(GROUP))
    await world.settled()
    assert removed.unread == 2
    assert not world.sessions.has_durable(GROUP)
    assert await world.disk.get(SessionDocument, (GROUP,)) is None


async def test_names_that_were_maybe_meant() -> None:
    names = ["sub1", "sub2", "kitchen", "$share/workers/jobs/#", "$share/workers/mail/#"]
    assert near_names("sub", names) == ["sub1", "sub2"]
    assert near_names("kitchn", names) == ["kitchen"]
    assert near_names("workers", names) == ["$share/workers/jobs/#", "$share/workers/mail/#"]
    assert near_names("zzz", names) == []
    assert len(near_names("s", [f"s{n}" for n in range(100)])) == 5


async def test_an_offset_beyond_the_log_is_its_end(world: World) -> None:
    await subscribed(world)
    await published(world, 1, 1)
    assert (await seek(world, "sub1", "99")).through == Offset(1)


@pytest.mark.parametrize("seed", range(12))
async def test_whatever_happens_after_a_seek_everything_from_there_on_comes(seed: int) -> None:
    """Through acknowledgements out of order, drops and crashes."""
    random_ = random.Random(seed)
    disk, place = Disk(), 0
    got: list[int] = []

    def received(subscriber: Subscriber) -> None:
        got.extend(message.offset for message, _ in subscriber.got)
        subscriber.got = []

    for _ in range(5):
        async with running(disk, Config(inflight_max=7)) as world:
            subscriber = Subscriber(world)
            if not await subscriber.open(receive_maximum=5):
                subscriber.subscribe(subscription("#", qos=2))
            left = placed(subscriber).in_flight.unfinished()
            got.extend(entry.offset for entry in left)  # Its client layer sends these again.
            subscriber.packet_ids = [entry.packet_id for entry in left]
            for _ in range(8):
                subscriber.limit = random_.choice([0, 300, 1 << 20])
                batch = range(random_.randrange(5))
                await world.publish(*[message("x", qos=random_.randrange(3)) for _ in batch])
                received(subscriber)
                some = random_.sample(subscriber.packet_ids, len(subscriber.packet_ids) // 2)
                placed(subscriber).in_flight.finish(some)
                subscriber.packet_ids = [p for p in subscriber.packet_ids if p not in some]
                world.log.changed(placed(subscriber))
                await world.settled()
                if random_.random() < 0.4:
                    to = random_.randrange(1, disk.high_watermark + 2)
                    received(subscriber)
                    got, earlier = [], got
                    moved = await seek(world, "sub1", str(to))
                    place = moved.through
                    if moved.through >= moved.before:  # QoS 0 that was handed on is not repeated.
                        got += earlier
            received(subscriber)
            if random_.random() < 0.5:
                subscriber.close()
                await world.settled()
    async with running(disk) as world:
        subscriber = await back(world)
        left = placed(subscriber).in_flight.unfinished()
        got.extend(entry.offset for entry in left)
        subscriber.packet_ids = [entry.packet_id for entry in left]
        for _ in range(20):
            placed(subscriber).in_flight.finish(subscriber.packet_ids)
            await subscriber.acknowledge()
        received(subscriber)
        assert placed(subscriber).cursor() == disk.high_watermark
    assert {*range(place + 1, disk.high_watermark + 1)} <= {*got}


async def test_a_group_that_was_made_by_a_command_is_removed_by_its_own(world: World) -> None:
    made = GroupDocument(GROUP, 3, 1000, 8000, 60_000, 0)
    await world.passing_time(Queues(world.log, world.groups, world.clock).create(made, ""))
    with pytest.raises(CommandRefused, match="group rm"):
        await world.passing_time(world.administration.remove(GROUP))
