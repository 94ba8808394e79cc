from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from broker.clients.subscriptions import FILTERS_PER_TURN, Subscriptions
from broker.config import Config
from broker.documents import SubscriptionDocument
from broker.message import Message, Offset
from broker.mqtt.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from broker.observe.sys_tree import SysTree
from broker.session.session import Session
from tests.support.world import Disk, Subscriber, World, message, payloads, running


class AskingSubscriber(Subscriber):
    """Remembers the answers."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.closed = False
        self.answers: list[list[int]] = []

    def answer(self, packet: Suback | Unsuback) -> None:
        assert packet.packet_id == 7
        self.answers.append([*packet.reason_codes])

    def close(self) -> None:
        self.closed = True
        super().close()


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk()) as world:
        yield world


def subscriptions_of(world: World, config: Config) -> Subscriptions:
    now = world.clock.monotonic()
    sys_tree = SysTree(world.log, world.delivery, world.sessions, world.groups, world.counters, now)
    return Subscriptions(world.log, world.delivery, world.groups, sys_tree, config, world.clock)


@pytest.fixture
def subscriptions(world: World) -> Subscriptions:
    return subscriptions_of(world, Config(subscriptions_per_session_max=3))


@pytest.fixture
async def client(world: World) -> AskingSubscriber:
    client = AskingSubscriber(world)
    await client.open()
    return client


def session_of(client: AskingSubscriber) -> Session:
    assert client.session is not None
    return client.session


def subscribe(*filters: str, retain_handling: int = 0) -> Subscribe:
    return Subscribe(
        7, [SubscriptionRequest(f, 1, retain_handling=retain_handling) for f in filters]
    )


async def test_suback_leaves_when_all_is_committed(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """[MQTT-3.8.4-1] One of them too many is refused, and nothing of it is kept."""
    world.disk.may_commit.clear()
    waiting = subscriptions.subscribe(session_of(client), subscribe("a", "b", "c", "d"), client)
    assert waiting is None
    assert client.answers == []
    world.disk.may_commit.set()
    await world.settled()
    kept = [s.filter for s in await world.disk.scan(SubscriptionDocument)]
    assert (client.answers, kept) == ([[1, 1, 1, 0x97]], ["a", "b", "c"])


async def test_unsuback_leaves_when_that_is_committed(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """[MQTT-3.10.4-4, MQTT-3.11.3-1]"""
    subscriptions.subscribe(session_of(client), subscribe("a", "b"), client)
    await world.settled()
    client.answers.clear()
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, ["x", "a"]), client)
    assert client.answers == []
    await world.settled()
    kept = [s.filter for s in await world.disk.scan(SubscriptionDocument)]
    assert (client.answers, kept) == ([[0x11, 0]], ["b"])


async def test_who_leaves_before_the_answer_hears_nothing_and_is_subscribed(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    subscriptions.subscribe(session_of(client), subscribe("a"), client)
    client.close()
    await world.settled()
    assert client.answers == []
    assert await world.disk.get(SubscriptionDocument, ("sub1", "a")) is not None


@pytest.mark.parametrize(("retain_handling", "got"), [(0, [b"1", b"1"]), (1, [b"1"]), (2, [])])
async def test_retain_handling_says_when_what_is_retained_is_sent(
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
    retain_handling: int,
    got: list[bytes],
) -> None:
    """[MQTT-3.3.1-9, MQTT-3.3.1-10, MQTT-3.3.1-11]"""
    await world.publish(message("1", "a", retain=True))
    for _ in range(2):
        packet = subscribe("a", retain_handling=retain_handling)
        subscriptions.subscribe(session_of(client), packet, client)
        await world.settled()
    assert payloads(client.got) == got


async def test_what_was_read_before_a_subscription_was_committed_is_not_taken_for_its_own(
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P3: each gets what is retained for it, whenever the reading for the other ends."""
    await world.publish(message("1", "a", retain=True), message("2", "b", retain=True))
    may_read = asyncio.Event()
    fetch = world.disk.fetch

    async def slowly(offsets: Sequence[Offset], *, bytes_max: int) -> list[Message]:
        await may_read.wait()
        return await fetch(offsets, bytes_max=bytes_max)

    monkeypatch.setattr(world.disk, "fetch", slowly)
    subscriptions.subscribe(session_of(client), subscribe("a"), client)
    await world.settled()
    world.disk.may_commit.clear()
    subscriptions.subscribe(session_of(client), subscribe("b"), client)
    may_read.set()
    for _ in range(10):
        await asyncio.sleep(0)
    assert payloads(client.got) == [b"1"]
    world.disk.may_commit.set()
    await world.settled()
    assert payloads(client.got) == [b"1", b"2"]


async def test_who_subscribes_to_more_while_retained_messages_come_gets_all_of_that_too(
    world: World, subscriptions: Subscriptions
) -> None:
    """P3: also those that are older than what was just taken."""
    await world.publish(
        *[message(str(n), f"b/{n}", retain=True) for n in range(3)],
        *[message(str(n), f"a/{n}", retain=True) for n in range(3, 9)],
    )
    client = AskingSubscriber(world)
    await client.open(receive_maximum=1)
    subscriptions.subscribe(session_of(client), subscribe("a/#"), client)
    await world.settled()
    subscriptions.subscribe(session_of(client), subscribe("#"), client)
    session_of(client).in_flight.puback(client.packet_ids)
    client.packet_ids = []
    client.wake()
    for _ in range(12):
        await client.acknowledge()
    assert payloads(client.got)[-9:] == [b"%d" % n for n in range(9)]


async def test_what_is_owed_of_retained_messages_stays_owed_when_the_subscription_is_repeated(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """As clients do when they come back, here with Retain Handling 1."""
    await world.publish(message("1", "a", retain=True))
    client.limit = 0
    for _ in range(2):
        subscriptions.subscribe(session_of(client), subscribe("a", retain_handling=1), client)
        await world.settled()
    client.close()
    await world.settled()
    again = AskingSubscriber(world)
    await again.open()
    subscriptions.subscribe(session_of(again), subscribe("a", retain_handling=1), again)
    await world.settled()
    assert payloads(again.got) == [b"1"]


async def test_who_takes_a_session_over_is_in_no_group_that_was_just_asked_for(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """Or its share would go to the connection that is gone."""
    session = session_of(client)
    joining = subscriptions.subscribe(session, subscribe("$share/g/a"), client)
    assert joining is not None
    opened = world.groups.join

    async def taken_over_meanwhile(*args: object) -> None:
        other = AskingSubscriber(world)
        await other.open()
        assert client.closed
        assert other.session is session
        await opened(*args)  # type: ignore[arg-type]

    world.groups.join = taken_over_meanwhile  # type: ignore[method-assign,assignment]
    await joining
    assert client.answers == []
    assert session.subscriptions == {}
    assert world.groups.open_count == 0


# Many Topic Filters

MANY = [str(number) for number in range(3 * FILTERS_PER_TURN - 1)]


@pytest.fixture
def many(world: World) -> Subscriptions:
    return subscriptions_of(world, Config(subscriptions_per_session_max=2 * FILTERS_PER_TURN))


async def stored(world: World) -> set[str]:
    return {s.filter for s in await world.disk.scan(SubscriptionDocument)}


async def test_many_filters_of_one_packet_are_granted_and_taken_back_in_turns(
    world: World, many: Subscriptions, client: AskingSubscriber
) -> None:
    """One answer when all is committed, though nothing of the last part was to be stored."""
    session = session_of(client)
    world.disk.may_commit.clear()
    for waiting, counts in (
        (many.subscribe(session, subscribe(*MANY), client), [100, 200]),
        (many.unsubscribe(session, Unsubscribe(7, MANY), client), [100, 0]),
    ):
        assert waiting is not None
        working = asyncio.create_task(waiting)
        seen = []
        while not working.done():
            await asyncio.sleep(0)
            if len(session.subscriptions) not in seen:
                seen.append(len(session.subscriptions))
        assert seen[-2:] == counts
    assert client.answers == []
    world.disk.may_commit.set()
    await world.settled()
    assert client.answers == [[1] * 200 + [0x97] * 99, [0] * 200 + [0x11] * 99]
    assert await stored(world) == set()


async def test_many_packets_that_come_at_once_are_no_more_than_one_with_as_many_filters(
    world: World, many: Subscriptions, client: AskingSubscriber
) -> None:
    session = session_of(client)
    for name in MANY[:FILTERS_PER_TURN]:
        assert many.subscribe(session, subscribe(name), client) is None
    waiting = many.subscribe(session, subscribe("next"), client)
    assert waiting is not None
    await waiting
    assert many.unsubscribe(session, Unsubscribe(7, ["next"]), client) is None
    await world.settled()
    assert client.answers == [[1]] * (FILTERS_PER_TURN + 1) + [[0]]


async def test_who_is_cut_off_between_two_parts_is_subscribed_to_what_the_log_knows_of(
    world: World, many: Subscriptions, client: AskingSubscriber
) -> None:
    """And the rest is not granted to whoever has the session then."""
    session = session_of(client)
    world.disk.may_commit.clear()
    waiting = many.subscribe(session, subscribe(*MANY), client)
    assert waiting is not None
    working = asyncio.create_task(waiting)
    while not session.subscriptions:  # noqa: ASYNC110  No event.
        await asyncio.sleep(0)
    client.taken_over()
    await working
    world.disk.may_commit.set()
    again = AskingSubscriber(world)
    await again.open()
    assert session_of(again) is session
    assert await stored(world) == set(session.subscriptions) == set(MANY[:FILTERS_PER_TURN])
    assert client.answers == []
