from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery, route
from broker.delivery.readers import READ_BYTES_MAX
from broker.delivery.recent import Recent
from broker.delivery.routes import Routes
from broker.documents import CursorDocument, SubscriptionDocument
from broker.errors import StoreCorrupt, StoreError, StoreFull
from broker.log.log import Log
from broker.message import Grant, Message, Offset
from broker.session.session import Session
from broker.store import Read, Store
from broker.store.memory import MemoryStore
from broker.store.sqlite.store import SqliteStore
from broker.topics import REPLAY_ENDED
from tests.support.world import Disk, Subscriber, World, message, payloads, running, subscription


def numbered(count: int, topic: str = "t", *, first: int = 1, qos: int = 1) -> list[Message]:
    return [message(str(n), topic, qos=qos) for n in range(first, first + count)]


def texts(count: int, *, first: int = 1) -> list[bytes]:
    return [str(n).encode() for n in range(first, first + count)]


@pytest.fixture
async def world(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[World]:
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 6)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 8)
    config = Config(outbox_messages_max=10, outbox_bytes_max=1000)
    async with running(Disk(), config) as world:
        yield world


@pytest.fixture
async def sub(world: World) -> Subscriber:
    subscriber = Subscriber(world)
    await subscriber.open()
    subscriber.subscribe(subscription())
    return subscriber


def placed(of: Subscriber) -> Session:
    assert of.session is not None
    return of.session


def is_live(world: World, of: Subscriber) -> bool:
    return placed(of).position is world.delivery.live


# Routing


def _session(client_id: str) -> Session:
    return Session(client_id, created_at_us=1, start=Offset(0), inflight_max=10)


def test_sessions_with_the_same_grant_share_one_list_of_a_batch() -> None:
    """One publisher to 100 subscribers builds one list."""
    grants = [Grant(1) for _ in range(3)]
    routes: Routes = tuple((_session("s"), grant, grant) for grant in grants)
    routed = route(numbered(2), lambda topic: routes)
    assert len({id(outgoing) for outgoing, _ in routed.values()}) == 1
    assert [size for _, size in routed.values()] == [2, 2, 2]


def test_a_session_gets_a_batch_in_order_whatever_topics_alternate_in_it() -> None:
    everything, some, grant = _session("all"), _session("some"), Grant(1)
    routes: dict[str, Routes] = {
        "a": ((everything, grant, grant), (some, grant, grant)),
        "b": ((everything, grant, grant),),
        "c": (),
    }
    batch = [message(str(n), topic) for n, topic in enumerate("abcab")]
    routed = route(batch, routes.__getitem__)
    assert payloads(routed[everything][0]) == [b"0", b"1", b"3", b"4"]
    assert payloads(routed[some][0]) == [b"0", b"3"]
    assert (routed[everything][1], routed[some][1]) == (4, 2)


def test_no_local_takes_out_a_clients_own_messages_and_their_size() -> None:
    own = _session("me")
    batch = [message("12345", publisher="me"), message("6", publisher="other")]
    outgoing, size = route(batch, lambda topic: ((own, Grant(1), None),))[own]
    assert (payloads(outgoing), size) == ([b"6"], 1)


def test_properties_count_in_the_size_of_what_a_session_gets() -> None:
    """P7"""
    grant, plain, no_local = Grant(1), _session("s"), _session("t")
    batch = [message("123", properties=b"4567"), message("8")]
    routed = route(batch, lambda topic: ((plain, grant, grant), (no_local, grant, None)))
    assert (routed[plain][1], routed[no_local][1]) == (8, 8)


def test_recent_batches_are_read_above_an_offset_and_forgotten_oldest_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 4)
    recent = Recent(Offset(0))
    for first in (1, 3, 5):
        recent.add([message(offset=first), message(offset=first + 1)])
    assert recent.after == 2
    messages, through = recent.read(Offset(3))
    assert ([m.offset for m in messages], through) == ([4, 5, 6], 6)
    assert recent.read(Offset(6)) == ([], 6)


def test_recent_batches_are_bounded_in_bytes_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    """P7: what is kept, and what a reader takes of it at a time."""
    monkeypatch.setattr("broker.delivery.recent.RECENT_BYTES_MAX", 400)
    monkeypatch.setattr("broker.delivery.readers.READ_BYTES_MAX", 200)
    recent = Recent(Offset(0))
    for offset in range(1, 7):
        recent.add([message("1", offset=offset, properties=bytes(99))])
    assert recent.after == 2
    messages, through = recent.read(Offset(2))
    assert ([m.offset for m in messages], through) == ([3, 4], 4)


# After acknowledgements


@pytest.fixture(params=["memory", "sqlite", "sqlite, quick disk"])
async def store(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Store]:
    if "quick" in request.param:
        monkeypatch.setattr("broker.store.sqlite.store.QUICK_COMMITS_MIN", 0)
    memory = request.param == "memory"
    store: Store = MemoryStore() if memory else SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    yield store
    await store.close()


async def test_a_batch_is_routed_after_its_acknowledgements_have_left(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """300 times of 300: its publisher goes on while it is routed."""
    log = Log(store, Counters(), append_bytes_max=1000)
    delivery = Delivery(log, Counters(), Config())
    loop = asyncio.get_running_loop()
    happened: list[tuple[str, bytes]] = []
    routed = asyncio.Event()

    def publish(payload: bytes) -> None:
        def acknowledge(error: StoreError | None) -> None:
            loop.call_soon(happened.append, ("acknowledged", payload))  # As to a socket.

        log.append([message(payload)], acknowledge)

    def note(batch: Sequence[Message]) -> None:
        happened.extend([("routed", m.payload) for m in batch])
        routed.set()

    monkeypatch.setattr(delivery, "_deliver", note)
    tasks = [asyncio.create_task(log.commit_forever())]
    tasks.append(asyncio.create_task(delivery.deliver_forever()))
    for payload in texts(300):
        publish(payload)
        await routed.wait()
        routed.clear()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    expected = [(what, of) for of in texts(300) for what in ("acknowledged", "routed")]
    assert happened == expected


async def test_what_nobody_here_acknowledges_is_routed_while_our_commit_runs(
    world: World, sub: Subscriber
) -> None:
    """Another broker on the same log appended it."""
    await world.settled()
    world.disk.may_commit.clear()
    world.log.append([message("ours")])
    await asyncio.sleep(0)
    await MemoryStore.append(world.disk, [message("theirs")])
    for _ in range(20):
        await asyncio.sleep(0)
    assert payloads(sub.got) == [b"theirs"]
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(sub.got) == [b"theirs", b"ours"]


# Live and behind


async def test_a_live_session_gets_each_batch_that_concerns_it(
    world: World, sub: Subscriber
) -> None:
    await world.settled()
    assert is_live(world, sub)
    await world.publish(message("1"), message("no", topic="other"), message("2"))
    assert payloads(sub.got) == [b"1", b"2"]
    assert placed(sub).cursor() == 0


async def test_a_session_that_does_not_take_keeps_no_more_than_its_outbox(
    world: World, sub: Subscriber
) -> None:
    """P7"""
    sub.limit = 0
    await world.settled()
    for first in range(1, 100, 3):
        await world.publish(*numbered(3, first=first))
    assert not is_live(world, sub)
    assert len(placed(sub).outbox) <= 10
    sub.limit = 1 << 20
    sub.wake()
    await world.settled()
    assert payloads(sub.got) == texts(99)
    assert is_live(world, sub)


async def test_a_reader_that_is_behind_keeps_to_bytes_as_well(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P7: a window of large messages must not be all of them."""
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 1000)
    monkeypatch.setattr("broker.delivery.readers.READ_BYTES_MAX", 1000)
    sub.limit = 0
    for n in range(100):
        await world.publish(message(str(n).encode().ljust(40), properties=bytes(60)))
    assert len(placed(sub).outbox) <= 20
    assert placed(sub).outbox_bytes == 100 * len(placed(sub).outbox)


async def test_the_size_of_an_outbox_comes_back_to_nothing(world: World) -> None:
    """Or a reader would wait for ever for room that is there."""
    sub = Subscriber(world)
    await sub.open("me")
    sub.subscribe(subscription(client_id="me", no_local=True))
    await world.settled()
    await world.publish(message("mine", publisher="me"), message("others"))
    assert payloads(sub.got) == [b"others"]
    assert placed(sub).outbox_bytes == 0


async def test_who_comes_back_gets_what_it_missed_and_then_goes_on_live(world: World) -> None:
    """P3"""
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription())
    await world.publish(*numbered(2))
    await sub.acknowledge()
    sub.close()
    for first in range(3, 40, 4):
        await world.publish(*numbered(4, first=first))
    await sub.open()
    world.log.append(numbered(1, first=43))
    await world.settled()
    assert payloads(sub.got) == texts(43)
    assert is_live(world, sub)


async def test_a_message_committed_before_a_subscription_and_routed_after_it_is_not_its(
    world: World, sub: Subscriber
) -> None:
    await world.settled()
    committed_before: list[Offset] = []

    def subscribe_late(_: object) -> None:
        committed_before.append(world.disk.high_watermark)
        sub.subscribe(subscription("late", start=world.disk.high_watermark))

    world.log.append([message("x", "late")], subscribe_late)
    await world.settled()
    assert committed_before == [1]
    assert world.delivery.live.through == 1
    await world.publish(message("y", "late"))
    assert payloads(sub.got) == [b"y"]


async def test_who_unsubscribed_gets_no_more(world: World, sub: Subscriber) -> None:
    await world.settled()
    assert world.delivery.unsubscribe(placed(sub), "t")
    assert not world.delivery.unsubscribe(placed(sub), "t")
    await world.publish(message("x"))
    assert sub.got == []


async def test_a_damaged_log_breaks_the_session_that_comes_to_it_and_no_other(
    world: World, sub: Subscriber, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P8"""
    await world.settled()
    absent = Subscriber(world)
    await absent.open("sub2")
    absent.subscribe(subscription(client_id="sub2"))
    absent.close()
    await world.publish(*numbered(9))
    await world.publish(*numbered(1, first=10))

    async def damaged(*args: object, **kwargs: object) -> Read:
        raise StoreCorrupt("checksum")

    monkeypatch.setattr(world.disk, "read", damaged)
    await absent.open("sub2")
    await world.publish(*numbered(1, first=11))
    assert [str(error) for error in absent.errors] == ["checksum"]
    assert payloads(sub.got) == texts(11)


# Replays


@pytest.mark.parametrize("window", [1, 100])
async def test_a_replay_is_followed_by_live_messages_without_a_gap_or_a_repeat(
    world: World, window: int
) -> None:
    await world.publish(*numbered(20), message("other", "other"))
    sub = Subscriber(world)
    await sub.open(receive_maximum=window)
    sub.subscribe(subscription(start=5, replaying=True))
    for n in range(21, 60):
        world.log.append(numbered(1, first=n))
        await sub.acknowledge()
    while sub.packet_ids:
        await sub.acknowledge()
    assert payloads(sub.got) == texts(54, first=6)
    assert not placed(sub).subscriptions["t"].replaying
    await world.publish(message("end"))
    assert payloads(sub.got)[-1:] == [b"end"]


async def test_a_replay_with_an_end_stops_there_and_says_so(world: World) -> None:
    await world.publish(*numbered(30))
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription(start=10, until=20, replaying=True))
    await world.settled()
    *history, (notice, grant) = sub.got
    assert payloads(history) == texts(10, first=11)
    assert (notice.topic, notice.payload, grant.qos) == (REPLAY_ENDED, b"t", 0)
    await world.publish(message("live"))
    assert len(sub.got) == 11
    assert placed(sub).subscriptions == {}
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_what_a_replay_left_in_flight_when_it_joined_is_stored_with_that() -> None:
    """Or a crash right after would lose it: nobody else owes it. (P3)"""
    disk = Disk()
    async with running(disk) as world:
        await world.publish(*numbered(3))
        sub = Subscriber(world, limit=0)
        await sub.open()
        sub.subscribe(subscription(replaying=True))
        await world.settled()
        sub.limit = 1 << 20
        sub.wake()
        await world.settled()
        [joined] = await disk.scan(SubscriptionDocument)
        assert (joined.replaying, joined.start_offset) == (False, 3)
        cursor = await disk.get(CursorDocument, ("sub1",))
        assert cursor is not None
        again = _session("sub1")
        again.restore(cursor, None, [])
    assert [entry.offset for entry in again.in_flight.unfinished()] == [1, 2, 3]


async def test_who_leaves_in_a_replay_goes_on_there_and_gets_nothing_twice() -> None:
    """P4"""
    async with running(Disk()) as world:
        await world.publish(*numbered(20))
        sub = Subscriber(world, limit=1)
        await sub.open(receive_maximum=3)
        sub.subscribe(subscription(start=5, replaying=True))
        await world.settled()
        await sub.acknowledge()
        sub.close()
        await world.settled()
        await sub.open()
        await world.settled()
        while sub.packet_ids:
            await sub.acknowledge()
    assert payloads(sub.got) == texts(15, first=6)


async def test_a_replay_goes_on_after_what_it_did_not_match(world: World) -> None:
    """Or each connection would read all of that again."""
    await world.publish(*numbered(6, "other"))
    await world.publish(message("wanted"))
    sub = Subscriber(world, limit=0)
    await sub.open()
    sub.subscribe(subscription(replaying=True))
    await world.settled()
    sub.close()
    await world.settled()
    [stored] = await world.disk.scan(SubscriptionDocument)
    assert (stored.replaying, stored.start_offset) == (True, 6)


async def test_a_full_disk_keeps_nobody_from_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cursors cannot be stored then, so what a crash could repeat is not bounded meanwhile."""
    monkeypatch.setattr("broker.log.log.FULL_RETRY_S", 0.01)
    async with running(Disk(), Config(inflight_max=5)) as world:
        sub = Subscriber(world)
        await sub.open()
        sub.subscribe(subscription())
        await world.publish(*numbered(20))
        assert sub.session is not None
        world.disk.full = True
        for _ in range(4):
            sub.session.in_flight.puback(sub.packet_ids)
            sub.packet_ids = []
            heard = asyncio.get_running_loop().create_future()
            world.log.changed(sub.session, heard.set_result, urgent=False)
            assert isinstance(await heard, StoreFull)
            sub.wake()
        assert payloads(sub.got) == texts(20)


# Retained messages


async def _keep(world: World, count: int, *, qos: int = 1) -> None:
    """Retained messages: one on each topic."""
    await world.publish(
        *[message(str(n), f"kept/{n}", qos=qos, retain=True) for n in range(1, count + 1)]
    )


def _subscribe(world: World, to: Subscriber, qos: int = 1) -> None:
    through = world.disk.high_watermark
    to.subscribe(subscription("kept/+", qos, start=through, retained_through=through))
    world.delivery.send_retained(placed(to))


async def test_what_waits_of_retained_messages_when_the_client_leaves_comes_when_it_is_back() -> (
    None
):
    """P3, P4: each once, then what was published meanwhile."""
    async with running(Disk()) as world:
        await _keep(world, 9)
        sub = Subscriber(world, limit=1)
        await sub.open(receive_maximum=3)
        _subscribe(world, sub)
        await world.settled()
        assert payloads(sub.got) == texts(3)
        await sub.acknowledge()
        sub.close()
        await world.publish(message("10", "kept/1", retain=True))
        await sub.open()
        await world.settled()
        assert payloads(sub.got) == texts(10)
        await sub.acknowledge()
        sub.close()
        await world.settled()
        await sub.open()
        await world.settled()
        assert len(sub.got) == 10


@pytest.mark.parametrize("taken", [0, 4])
async def test_a_crash_loses_no_retained_message_and_repeats_none_of_qos_2(taken: int) -> None:
    """P3"""
    disk = Disk()
    async with running(disk) as world:
        await _keep(world, 9, qos=2)
        sub = Subscriber(world, limit=1 if taken else 0)
        await sub.open(receive_maximum=taken or 1)
        _subscribe(world, sub, qos=2)
        await world.settled()
        world.log.changed(placed(sub), lambda error: None)
        await world.settled()
        assert payloads(sub.got) == texts(taken)
    async with running(disk) as world:
        again = Subscriber(world)
        await again.open()
        await world.settled()
        assert [entry.offset for entry in placed(again).in_flight.unfinished()] == [*range(1, 10)]
        assert payloads(again.got) == texts(9 - taken, first=1 + taken)


async def test_a_slow_client_has_few_retained_messages_wait_for_it(world: World) -> None:
    """P7: no more than were read at a time. All come when it takes them, and then what is newer."""
    size = READ_BYTES_MAX // 4
    await world.publish(*[message(bytes([n]) * size, f"kept/{n}", retain=True) for n in range(10)])
    sub = Subscriber(world, limit=0)
    await sub.open()
    _subscribe(world, sub)
    await world.settled()
    assert len(placed(sub).aside) == 4
    await world.publish(message(b"\x0a", "kept/9", retain=True))
    sub.limit = size
    sub.wake()
    assert len(sub.got) == 4
    await world.settled()
    assert [payload[0] for payload in payloads(sub.got)] == [*range(11)]
    assert placed(sub).owed.subscriptions() == []


async def test_what_is_removed_while_retained_messages_are_handed_on_is_passed_over(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 2)
    await _keep(world, 6)
    sub = Subscriber(world, limit=0)
    await sub.open()
    _subscribe(world, sub)
    await world.settled()
    await world.publish(*[message("", f"kept/{n}", retain=True) for n in (3, 4, 5)])
    await world.disk.trim(world.disk.high_watermark)
    sub.limit = 1 << 20
    sub.wake()
    await world.settled()
    retained = [message.payload for message, grant in sub.got if grant.retained]
    assert retained == [b"1", b"2", b"6"]
    assert placed(sub).owed.subscriptions() == []


async def test_what_was_taken_of_retained_messages_is_not_read_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await _keep(world, 5)
    sub = Subscriber(world, limit=1)
    await sub.open(receive_maximum=3)
    _subscribe(world, sub)
    await world.settled()
    sub.close()
    read: list[Offset] = []
    fetch = world.disk.fetch

    async def noting(offsets: Sequence[Offset], *, bytes_max: int) -> list[Message]:
        read.extend(offsets)
        return await fetch(offsets, bytes_max=bytes_max)

    monkeypatch.setattr(world.disk, "fetch", noting)
    await sub.open()
    await world.settled()
    assert read == [4, 5]


async def test_subscriptions_made_together_get_all_that_is_retained(world: World) -> None:
    """The second is made while the messages of the first are read."""
    await _keep(world, 3)
    await world.publish(message("a", "a", retain=True))
    sub = Subscriber(world)
    await sub.open()
    _subscribe(world, sub)
    sub.subscribe(subscription("a", start=4, retained_through=4))
    world.delivery.send_retained(placed(sub))
    await world.settled()
    assert payloads(sub.got) == [*texts(3), b"a"]
