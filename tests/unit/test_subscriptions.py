from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from broker.config import Config
from broker.documents import SubscriptionDocument
from broker.mqtt.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from broker.session import Session
from broker.subscriptions import Subscriptions
from broker.sys_tree import SysTree
from tests.unit.world import Disk, Subscriber, World, message, payloads, running


class Client(Subscriber):
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
    async with running(Disk(), Config(subscriptions_per_session_max=3)) as world:
        yield world


@pytest.fixture
def subscriptions(world: World) -> Subscriptions:
    sys_tree = SysTree(world.log, world.delivery, world.sessions, world.groups, world.counters, 0)
    config = Config(subscriptions_per_session_max=3)
    return Subscriptions(world.log, world.delivery, world.groups, sys_tree, config)


@pytest.fixture
async def client(world: World) -> Client:
    client = Client(world)
    await client.open()
    return client


def session_of(client: Client) -> Session:
    assert client.session is not None
    return client.session


def subscribe(*filters: str, retain_handling: int = 0) -> Subscribe:
    return Subscribe(
        7, [SubscriptionRequest(f, 1, retain_handling=retain_handling) for f in filters]
    )


async def test_suback_leaves_when_all_is_committed(
    world: World, subscriptions: Subscriptions, client: Client
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
    world: World, subscriptions: Subscriptions, client: Client
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
    world: World, subscriptions: Subscriptions, client: Client
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
    client: Client,
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


async def test_what_is_owed_of_retained_messages_stays_owed_when_the_subscription_is_repeated(
    world: World, subscriptions: Subscriptions, client: Client
) -> None:
    """As clients do when they come back, here with Retain Handling 1."""
    await world.publish(message("1", "a", retain=True))
    client.limit = 0
    for _ in range(2):
        subscriptions.subscribe(session_of(client), subscribe("a", retain_handling=1), client)
        await world.settled()
    client.close()
    await world.settled()
    again = Client(world)
    await again.open()
    subscriptions.subscribe(session_of(again), subscribe("a", retain_handling=1), again)
    await world.settled()
    assert payloads(again.got) == [b"1"]


async def test_who_takes_a_session_over_is_in_no_group_that_was_just_asked_for(
    world: World, subscriptions: Subscriptions, client: Client
) -> None:
    """Or its share would go to the connection that is gone."""
    session = session_of(client)
    joining = subscriptions.subscribe(session, subscribe("$share/g/a"), client)
    assert joining is not None
    opened = world.groups.join

    async def taken_over_meanwhile(*args: object) -> None:
        other = Client(world)
        await other.open()
        assert client.closed
        assert other.session is session
        await opened(*args)  # type: ignore[arg-type]

    world.groups.join = taken_over_meanwhile  # type: ignore[method-assign,assignment]
    await joining
    assert client.answers == []
    assert session.subscriptions == {}
    assert world.groups.open_count == 0
