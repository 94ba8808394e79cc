"""Subscriptions: granted and taken back when that is committed, each kind in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from broker.clients.permitted import RULES_PER_FILTER
from broker.clients.subscriptions import FILTERS_PER_TURN, Subscriptions
from broker.config import Config
from broker.documents import CursorDocument, SubscriptionDocument
from broker.errors import QuotaExceeded, StoreUnavailable
from broker.message import Message, Offset
from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from broker.security.quotas import Quota
from broker.security.rights import Rights
from broker.session.session import Session
from broker.store import Read
from tests.support.clients import Dialogue, services
from tests.support.messages import message
from tests.support.passwords import user
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import next_packet
from tests.support.rulebook import Rulebook
from tests.support.world import Disk, Subscriber, World, payloads, running, subscription


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


@pytest.fixture
def subscriptions(world: World) -> Subscriptions:
    return services(world, Config(subscriptions_per_session_max=3)).subscriptions


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


async def test_what_is_subscribed_already_does_not_count_again(
    subscriptions: Subscriptions, world: World, client: AskingSubscriber
) -> None:
    for filters in (("a", "b"), ("a", "c", "c", "d", "b")):
        subscriptions.subscribe(session_of(client), subscribe(*filters), client)
        await world.settled()
    assert client.answers == [[1, 1], [1, 1, 1, 0x97, 1]]


async def test_a_subscription_is_stored_with_the_place_of_its_session(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """P3: whatever comes from here on is owed, also after a crash."""
    await world.publish(message("1", "a"))
    subscriptions.subscribe(session_of(client), subscribe("a"), client)
    await world.settled()
    cursor = await world.disk.get(CursorDocument, ("sub1",))
    assert cursor is not None
    assert cursor.offset == 1


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

    async def slowly(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
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


async def test_a_subscription_is_kept_as_it_was_asked_for(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """[MQTT-3.8.4-3, MQTT-3.8.4-6] From now on, and if it is repeated, since the first time."""
    session = session_of(client)
    first = SubscriptionDocument("sub1", "a", 2, True, True, 2, 9, Offset(1), metadata=True)
    await world.publish(message("1"))
    packet = Subscribe(
        7, [SubscriptionRequest("a", 2, True, True, 2)], 9, [("metadata", "true"), ("x", "y")]
    )
    subscriptions.subscribe(session, packet, client)
    await world.publish(message("2"))
    assert await world.disk.scan(SubscriptionDocument) == [first]
    for properties in ([], [("metadata", "false")]):
        packet = Subscribe(7, [SubscriptionRequest("a", 0)], user_properties=properties)
        subscriptions.subscribe(session, packet, client)
        await world.settled()
        [kept] = await world.disk.scan(SubscriptionDocument)
        assert (kept.qos, kept.no_local, kept.retain_handling) == (0, False, 0)
        assert (kept.subscription_id, kept.start_offset, kept.metadata) == (None, 1, False)
    assert client.answers == [[2], [0], [0]]


async def test_a_session_that_does_not_last_is_answered_at_once(
    world: World, subscriptions: Subscriptions
) -> None:
    client = AskingSubscriber(world)
    await client.open(expiry_s=0)
    world.disk.may_commit.clear()
    subscriptions.subscribe(session_of(client), subscribe("a"), client)
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, ["a", "b"]), client)
    assert client.answers == [[1], [0, 0x11]]
    world.disk.may_commit.set()
    await world.settled()
    assert world.disk.commits == []


async def test_what_the_log_could_not_take_is_not_answered(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """P6"""
    world.disk.broken = StoreUnavailable("lost")
    subscriptions.subscribe(session_of(client), subscribe("a"), client)
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, ["a"]), client)
    for _ in range(20):
        await asyncio.sleep(0)
    assert world.log.failure is not None
    assert client.answers == []


async def test_what_the_broker_says_of_itself_comes_after_the_suback(
    world: World, client: AskingSubscriber
) -> None:
    """`$SYS` is retained, and not in the log."""
    parts = services(world, Config())
    await parts.sys_tree.publish(world.clock.now())
    world.disk.may_commit.clear()
    parts.subscriptions.subscribe(session_of(client), subscribe("$SYS/broker/version"), client)
    client.wake()
    assert client.got == []
    world.disk.may_commit.set()
    await world.settled()
    [(version, grant)] = client.got
    assert (version.topic, grant.retained) == ("$SYS/broker/version", True)
    assert client.answers == [[1]]


# Replays


@pytest.mark.parametrize(
    ("topic_filter", "properties"),
    [
        ("$replay/earliest/a", []),
        ("a", [("from", "earliest")]),
        ("a", [("from", "1"), ("until", "2")]),
        ("a", [("stream-offset", "earliest")]),
    ],
)
async def test_who_asks_for_history_gets_it_and_nothing_that_is_retained(
    topic_filter: str,
    properties: list[tuple[str, str]],
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
) -> None:
    await world.publish(message("1", "a", retain=True), message("2", "a"))
    packet = Subscribe(7, [SubscriptionRequest(topic_filter, 1)], user_properties=properties)
    waiting = subscriptions.subscribe(session_of(client), packet, client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert client.answers == [[1]]
    assert payloads([out for out in client.got if out[0].topic == "a"]) == [b"1", b"2"]
    assert not any(grant.retained for _, grant in client.got)
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, [topic_filter]), client)
    await world.settled()
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_a_replay_that_makes_no_sense_is_refused_and_the_others_are_granted(
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    packet = subscribe("$replay/sometime/a", "$replay/latest/$share/g/a", "b")
    waiting = subscriptions.subscribe(session_of(client), packet, client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert client.answers == [[0x83, 0x9E, 1]]
    assert list(session_of(client).subscriptions) == ["b"]
    assert len(caplog.messages) == 2
    assert all(text.startswith("client 'sub1': ") for text in caplog.messages)


async def test_a_stream_offset_that_makes_no_sense_is_refused(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """`from` may be an application's own; nobody else has a property of this name."""
    properties = [("stream-offset", "alice")]
    packet = Subscribe(7, [SubscriptionRequest("a", 1)], user_properties=properties)
    waiting = subscriptions.subscribe(session_of(client), packet, client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert client.answers == [[0x83]]


async def test_a_replay_that_the_log_cannot_find_is_refused(
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def unavailable(*_: object) -> Offset:
        raise StoreUnavailable("busy")

    monkeypatch.setattr(world.disk, "nth_last", unavailable)
    waiting = subscriptions.subscribe(session_of(client), subscribe("$replay/-3/a"), client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert client.answers == [[0x83]]
    assert caplog.messages == ["client 'sub1': busy"]


async def test_who_leaves_while_the_log_is_asked_is_not_subscribed(
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = session_of(client)

    async def leave(*_: object) -> Offset:
        client.close()
        return Offset(1)

    monkeypatch.setattr(world.disk, "nth_last", leave)
    waiting = subscriptions.subscribe(session, subscribe("$replay/-3/a", "$replay/-4/b"), client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert (client.answers, session.subscriptions) == ([], {})


# Shared Subscriptions


async def test_a_shared_subscription_is_granted_beside_others_and_gets_nothing_retained(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """[MQTT-4.8.2-3]"""
    await world.publish(message("1", "a", retain=True))
    packet = subscribe("b", "$share/g/a", retain_handling=1)
    waiting = subscriptions.subscribe(session_of(client), packet, client)
    assert waiting is not None
    await waiting
    await world.publish(message("2", "a"))
    assert client.answers == [[1, 1]]
    assert payloads(client.got) == [b"2"]
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, ["$share/g/a"]), client)
    await client.acknowledge()
    assert world.groups.open_count == 0


async def test_a_session_has_so_many_patterns_of_wildcards(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or one message would match as many filters as it has, and hold up everybody."""
    async with running(Disk()) as world:
        config = Config(wildcard_patterns_per_session_max=2)
        subscriptions, client = services(world, config).subscriptions, AskingSubscriber(world)
        await client.open()
        for filters in (
            ("a/+", "a/b", "+/a", "b/+", "a/#", "c"),
            ("+/c", "#", "a/+"),
            ("$share/g/a/#", "a/b/#"),
        ):
            waiting = subscriptions.subscribe(session_of(client), subscribe(*filters), client)
            if waiting is not None:
                await waiting
            await world.settled()
        assert client.answers == [[1, 1, 1, 1, 0x97, 1], [1, 0x97, 1], [1, 0x97]]
        assert "it may have 2 patterns of wildcards, no more" in caplog.text


async def test_a_client_shares_in_so_many_groups(caplog: pytest.LogCaptureFixture) -> None:
    """One it is a member of already, or a place that it gave up, is granted."""
    async with running(Disk(), Config(groups_per_session_max=2)) as world:
        subscriptions, client = services(world, Config()).subscriptions, AskingSubscriber(world)
        await client.open()
        for names in (("a", "b", "c", "a"), ("c", "b")):
            packet = subscribe(*[f"$share/g/{name}" for name in names])
            waiting = subscriptions.subscribe(session_of(client), packet, client)
            assert waiting is not None
            await waiting
            await world.settled()
        assert client.answers == [[1, 1, 0x97, 1], [0x97, 1]]
        assert "Shared Subscriptions above groups_per_session_max, 2" in caplog.text
        assert world.sessions.kept.group_count == 2
        subscriptions.unsubscribe(session_of(client), Unsubscribe(7, ["$share/g/a"]), client)
        await world.settled()
        waiting = subscriptions.subscribe(session_of(client), subscribe("$share/g/c"), client)
        assert waiting is not None
        await waiting
        await world.settled()
        assert client.answers[-1] == [1]


@pytest.mark.parametrize("error", [QuotaExceeded("too many sessions"), StoreUnavailable("busy")])
async def test_a_group_that_cannot_be_opened_is_refused(
    error: Exception,
    world: World,
    subscriptions: Subscriptions,
    client: AskingSubscriber,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def refused(*_: object) -> None:
        raise error

    monkeypatch.setattr(world.groups, "join", refused)
    waiting = subscriptions.subscribe(session_of(client), subscribe("$share/g/a", "b"), client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert client.answers == [[0x97, 1]]
    assert caplog.messages == [f"client 'sub1': {error}"]
    assert await stored(world) == {"b"}


async def test_one_subscription_too_many_joins_no_group(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    packet = subscribe("a", "b", "c", "$share/g/a", "a")
    waiting = subscriptions.subscribe(session_of(client), packet, client)
    assert waiting is not None
    await waiting
    await world.settled()
    assert client.answers == [[1, 1, 1, 0x97, 1]]
    assert world.groups.open_count == 0


# Many Topic Filters

MANY = [str(number) for number in range(3 * FILTERS_PER_TURN - 1)]


async def test_no_group_is_opened_for_a_subscription_too_many(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    subscriptions.subscribe(session_of(client), subscribe("a", "b", "c"), client)
    await world.settled()
    waiting = subscriptions.subscribe(session_of(client), subscribe("$share/g/t"), client)
    assert waiting is not None
    await asyncio.gather(waiting, world.settled())
    assert client.answers[-1] == [0x97]
    assert world.sessions.kept.group_count == 0


@pytest.fixture
def many(world: World) -> Subscriptions:
    config = Config(subscriptions_per_session_max=2 * FILTERS_PER_TURN)
    return services(world, config).subscriptions


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


async def test_what_follows_many_filters_waits_until_they_are_read(world: World) -> None:
    """In one read with them, or in another."""
    client = Dialogue(world)
    await client.connect()
    filters = [f"t/{n}" for n in range(3000)]
    subscribe = Subscribe(1, [SubscriptionRequest(filter, 0) for filter in filters])
    publish = Publish("t/2999", b"x", 1, False, False, 7)
    now = world.clock.monotonic()
    client.peer.receive(encode(subscribe, MQTT_5) + encode(publish, MQTT_5), now)
    assert client.transport.not_read_because == {"step"}
    client.peer.receive(encode(Pingreq(), MQTT_5), now)
    for _ in range(10):
        await world.settled()
    written, got = bytearray(client.transport.written), set[type]()
    while (packet := next_packet(written)) is not None:
        assert not isinstance(packet, Ack) or packet == Ack(PacketType.PUBACK, [7], 0)
        got.add(type(packet))
    assert got == {Suback, Publish, Ack, Pingresp}
    assert not client.transport.not_read_because


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


async def test_who_has_many_rules_is_granted_fewer_in_a_turn(
    many: Subscriptions, client: AskingSubscriber
) -> None:
    """Each filter is looked for in all of them: 100 filters and 1,000 rules took 50 to 250 ms."""
    session = session_of(client)
    rules = [f"allow subscribe t/{n}/#" for n in range(9 * RULES_PER_FILTER)]
    session.grants.allow(Rights(Rulebook("allow subscribe #", *rules), "anna", None, "sub1"))
    a_turn = FILTERS_PER_TURN // 10
    assert many.subscribe(session, subscribe(*MANY[:a_turn]), client) is None
    waiting = many.subscribe(session, subscribe(*MANY[a_turn : 4 * a_turn]), client)
    assert waiting is not None
    working, seen = asyncio.create_task(waiting), [a_turn]
    while not working.done():
        await asyncio.sleep(0)
        if len(session.subscriptions) != seen[-1]:
            seen.append(len(session.subscriptions))
    assert seen == [a_turn, 2 * a_turn, 3 * a_turn, 4 * a_turn]


async def test_each_turn_of_the_loop_has_room_for_as_many_again(
    many: Subscriptions, client: AskingSubscriber
) -> None:
    session = session_of(client)
    for first in (0, FILTERS_PER_TURN):
        names = MANY[first : first + FILTERS_PER_TURN]
        assert many.subscribe(session, subscribe(*names), client) is None
        await asyncio.sleep(0)
    assert len(session.subscriptions) == 2 * FILTERS_PER_TURN


async def test_what_is_granted_in_parts_counts_in_its_turn(
    world: World, many: Subscriptions, client: AskingSubscriber
) -> None:
    session = session_of(client)
    waiting = many.subscribe(session, subscribe(*MANY), client)
    assert waiting is not None
    working = asyncio.create_task(waiting)
    while not session.subscriptions:  # noqa: ASYNC110  No event.
        await asyncio.sleep(0)
    one_more = many.unsubscribe(session, Unsubscribe(7, ["x"]), client)
    assert one_more is not None
    await working
    await one_more
    await world.settled()
    assert client.answers == [[1] * 200 + [0x97] * 99, [0x11]]


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


@pytest.mark.parametrize("topic_filter", ["$replay/earliest/t", "$replay/latest/t"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_the_first_live_message_after_a_replay_says_that_it_has_caught_up(
    qos: int, topic_filter: str, world: World
) -> None:
    await world.publish(*[message(str(n)) for n in (1, 2)])
    dialogue = Dialogue(world)
    await dialogue.connect()
    dialogue.client(subscribing("other", 1) + subscribing(topic_filter, qos))
    history = await dialogue.deliveries()
    await world.publish(message("3", "other"), *[message(str(n)) for n in (4, 5)])
    told = [(p.payload, b"caught-up" in p.properties) for p in await dialogue.deliveries()]
    assert told == [(b"3", False), (b"4", True), (b"5", False)]
    assert [p.payload for p in history if b"caught-up" not in p.properties] == (
        [b"1", b"2"] if "earliest" in topic_filter else []
    )


# Retained messages find their place among the others


def values(first: int, last: int, topic: str = "t", qos: int = 1) -> list[Message]:
    """Of one topic, each retained in its turn."""
    return [message(str(n), topic, qos=qos, retain=True) for n in range(first, last + 1)]


def seen(deliveries: Sequence[Publish], topic: str = "t") -> list[tuple[int, bool]]:
    """The values of one topic, and which came as retained."""
    return [(int(p.payload), p.retain) for p in deliveries if p.topic == topic]


def subscribing(topic_filter: str, qos: int, version: int = MQTT_5) -> str:
    """A SUBSCRIBE."""
    properties = "00" if version == MQTT_5 else ""
    return f"82 ( 0009 {properties} 00 ('{topic_filter}') {qos:02X} )"


def resuming(*, version: int = MQTT_5, receive_maximum: int = 1000) -> str:
    """A CONNECT of client `a`, whose session lasts."""
    properties = f"08 11 00000064 21 {receive_maximum:04X}" if version == MQTT_5 else ""
    return f"10 ( 0004 'MQTT' {version:02X} 00 003C {properties} 0001 'a' )"


async def absent(world: World, topic_filter: str, qos: int = 1, version: int = MQTT_5) -> None:
    """Client `a` has subscribed, and left."""
    dialogue = Dialogue(world)
    dialogue.client(resuming(version=version) + subscribing(topic_filter, qos, version))
    await dialogue.deliveries(version=version)
    dialogue.peer.lost()
    await world.settled()


@pytest.fixture
def from_the_log(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is behind reads the log, a few messages at a time."""
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 7)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 0)


@pytest.mark.usefixtures("from_the_log")
@pytest.mark.parametrize("version", [4, MQTT_5])
@pytest.mark.parametrize("topic_filter", ["t", "#", "+"])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_retained_message_comes_in_its_place_after_what_was_missed(
    qos: int, topic_filter: str, version: int, world: World
) -> None:
    """[MQTT-4.6.0-6] Clients connect and subscribe again, all in one."""
    await absent(world, topic_filter, qos, version)
    await world.publish(*values(1, 300, qos=qos), message("1", "u", qos=qos))
    back = Dialogue(world)
    back.client(resuming(version=version) + subscribing(topic_filter, qos, version))
    got = seen(await back.deliveries(version=version))
    await world.publish(*values(301, 302, qos=qos))
    got += seen(await back.deliveries(version=version))
    missed = [(n, False) for n in range(1, 301)]
    assert got == [*missed, (300, True), (301, False), (302, False)]


@pytest.mark.usefixtures("from_the_log")
@pytest.mark.parametrize("receive_maximum", [1, 3, 1000])
async def test_each_retained_message_comes_between_what_is_older_and_what_is_newer(
    receive_maximum: int, world: World
) -> None:
    """[MQTT-4.6.0-6] Also where a newer one that is not retained is on its topic."""
    await absent(world, "#")
    await world.publish(*[message(str(n), "abc"[n % 3], retain=n % 5 == 0) for n in range(1, 61)])
    back = Dialogue(world)
    back.client(resuming(receive_maximum=receive_maximum) + subscribing("#", 1))
    deliveries = await back.deliveries()
    for topic, kept in (("a", 60), ("b", 55), ("c", 50)):
        missed = [(n, False) for n in range(1, 61) if "abc"[n % 3] == topic]
        assert seen(deliveries, topic) == sorted([*missed, (kept, True)])


@pytest.mark.usefixtures("from_the_log")
async def test_who_leaves_while_a_retained_message_waits_gets_it_in_its_place_later(
    world: World,
) -> None:
    """P3: and nothing twice."""
    await absent(world, "#")
    await world.publish(*values(1, 30), *values(31, 32, "u"))
    back = Dialogue(world)
    back.client(resuming(receive_maximum=3) + subscribing("#", 1))
    await world.settled()
    back.peer.lost()
    await world.publish(message("33"), message("34"))
    again = Dialogue(world)
    again.client(resuming())
    deliveries = await again.deliveries()
    missed = [(n, False) for n in (*range(1, 31), 33, 34)]
    assert seen(deliveries) == sorted([*missed, (30, True)])
    assert seen(deliveries, "u") == [(31, False), (32, False), (32, True)]


@pytest.mark.parametrize("clean_start", [False, True])
@pytest.mark.parametrize("durable", [False, True])
async def test_what_comes_while_retained_messages_are_looked_for_comes_after_them(
    durable: bool, clean_start: bool, world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await absent(world, "t")
    await world.publish(*values(1, 2))
    may_look, look_up = asyncio.Event(), world.disk.retained

    async def held_up(filters: Sequence[str]) -> list[Offset]:
        found = await look_up(filters)
        await may_look.wait()
        return found

    monkeypatch.setattr(world.disk, "retained", held_up)
    client = Dialogue(world)
    await client.connect(clean_start=clean_start, expiry_s=100 if durable else None)
    first = [] if clean_start else seen(await client.deliveries())
    client.client(subscribing("#", 1))
    await world.settled()
    await world.publish(*values(3, 4))
    assert seen(await client.deliveries()) == []
    may_look.set()
    assert first == []
    assert seen(await client.deliveries()) == [(2, True), (3, False), (4, False)]


async def test_what_waits_for_its_commit_before_the_subscription_is_not_sent(world: World) -> None:
    """Only what is retained came before."""
    await world.publish(*values(1, 1))
    client = Dialogue(world)
    await client.connect(expiry_s=100)
    world.disk.may_commit.clear()
    world.log.append([message("2")])
    await asyncio.sleep(0)
    client.client(subscribing("t", 1))
    world.disk.may_commit.set()
    assert seen(await client.deliveries()) == [(1, True)]


async def test_a_subscription_that_a_full_disk_holds_up_holds_up_nothing_else(
    world: World,
) -> None:
    """Its SUBACK waits, and what is retained; what was missed comes."""
    client = Dialogue(world)
    await client.connect(expiry_s=100)
    await client.subscribe("t")
    client.peer.writable(yes=False)
    await world.publish(*values(1, 2))
    world.disk.full = True
    client.client(subscribing("#", 1))
    async with asyncio.timeout(PATIENCE_S):
        while not world.counters.append_failures:  # noqa: ASYNC110  No event.
            await asyncio.sleep(0)
    client.peer.writable(yes=True)
    written = bytearray(client.transport.written)
    packets = [next_packet(written), next_packet(written)]
    assert seen([p for p in packets if isinstance(p, Publish)]) == [(1, False), (2, False)]
    assert not written


@pytest.mark.usefixtures("from_the_log")
async def test_who_does_not_want_what_is_retained_gets_what_was_missed(world: World) -> None:
    """[MQTT-3.3.1-10, 11] Retain Handling 1, of a subscription that was there, and 2."""
    await absent(world, "t")
    await world.publish(*values(1, 20))
    back = Dialogue(world)
    back.client(resuming() + subscribing("t", 0x11) + subscribing("#", 0x21))
    assert seen(await back.deliveries()) == [(n, False) for n in range(1, 21)]


@pytest.mark.usefixtures("from_the_log")
async def test_a_retained_message_that_is_replaced_while_it_waits_is_not_the_last(
    world: World,
) -> None:
    await absent(world, "t")
    await world.publish(*values(1, 20))
    back = Dialogue(world)
    back.client(resuming(receive_maximum=1) + subscribing("t", 1))
    await world.settled()
    await world.publish(*values(21, 21))
    assert seen(await back.deliveries())[-3:] == [(20, False), (20, True), (21, False)]


async def test_what_has_expired_of_what_is_retained_holds_up_nothing(world: World) -> None:
    await absent(world, "#")
    now_us = world.clock.wall_us()
    await world.publish(message("1", "t", retain=True, expires_at_us=now_us - 1))
    await world.publish(*values(2, 3, "u"))
    back = Dialogue(world)
    back.client(resuming() + subscribing("#", 1))
    assert seen(await back.deliveries(), "u") == [(2, False), (3, False), (3, True)]


# Control characters


REFUSED = [
    "a/\x07",
    "\u009f/#",
    "$share/g\x01/t",
    "$share/g/\ufdd0",
    "$replay/earliest/\x7f",
    "\uffff",
]


@pytest.mark.parametrize("refused", REFUSED)
async def test_a_filter_with_a_control_character_is_refused_and_the_others_are_granted(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber, refused: str
) -> None:
    waiting = subscriptions.subscribe(session_of(client), subscribe("t", refused, "u"), client)
    if waiting is not None:
        await waiting
    await world.settled()
    assert client.answers == [[1, 0x8F, 1]]
    assert [*session_of(client).subscriptions] == ["t", "u"]
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, [refused, "t"]), client)
    await world.settled()
    assert client.answers[1:] == [[0x8F, 0]]


async def test_a_filter_with_a_control_character_that_is_stored_can_be_taken_back(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    """An older program granted it."""
    client.subscribe(subscription("a/\x07"))
    subscriptions.unsubscribe(session_of(client), Unsubscribe(7, ["a/\x07"]), client)
    await world.settled()
    assert client.answers == [[0]]


async def test_3_1_1_hears_that_a_filter_with_a_control_character_failed(world: World) -> None:
    """[MQTT3-3.9.3-2] The connection is kept."""
    dialogue = Dialogue(world)
    await dialogue.connect(version=MQTT_3_1_1)
    dialogue.client("82 0B 0007 0002 't' 07 01 0001 't' 01")
    await dialogue.broker("90 04 0007 80 01")
    dialogue.client("A2 06 0008 0002 't' 07")
    await dialogue.broker("B0 02 0008")


# What belongs to applications


@pytest.mark.parametrize(
    ("properties", "remark"),
    [
        ("26 0004'from' 0005'alice'", "from=alice is no place in the log: live only"),
        ("26 0008'metadata' 0003'yes'", "metadata=yes is not true: without metadata"),
        (
            "26 0005'until' 0003'bob' 26 0008'metadata' 0001'1'",
            "until=bob is no place in the log: live only; metadata=1 is not true: without metadata",
        ),
    ],
)
async def test_a_value_that_is_none_of_ours_is_ignored_and_suback_says_so(
    world: World, properties: str, remark: str
) -> None:
    await world.publish(message("before"))
    client = Dialogue(world)
    await client.connect()
    client.client(f"82 ( 0001 ( {properties} ) 0001't' 00 )")
    await world.settled()
    said = b"\x1f" + len(remark).to_bytes(2) + remark.encode()
    assert said in client.transport.written
    client.transport.written = b""
    await world.publish(message("after"))
    assert [packet.payload for packet in await client.deliveries()] == [b"after"]


async def test_a_shared_subscription_may_come_from_alice(world: World) -> None:
    client = Dialogue(world)
    await client.connect()
    client.client("82 ( 0001 ( 26 0004'from' 0005'alice' ) 000A'$share/g/t' 01 )")
    await client.broker("90 .. 0001 * 01")


async def test_who_asked_for_no_reasons_gets_none(world: World) -> None:
    """[MQTT-3.1.2-29]"""
    client = Dialogue(world)
    client.client("10 ( 0004'MQTT' 05 02 003C 02 1700 0001'a' )")
    await client.broker("20 *")
    client.client("82 ( 0001 ( 26 0004'from' 0005'alice' ) 0001't' 00 )")
    await client.broker("90 04 0001 00 00")


async def test_a_message_that_expires_at_once_is_for_who_is_connected_now(world: World) -> None:
    """[MQTT-3.3.2-5] Message Expiry Interval 0, and nothing of it for who comes later."""
    absent, here, later = Dialogue(world), Dialogue(world), Dialogue(world)
    await absent.connect("absent", expiry_s=100)
    await absent.subscribe("t")
    absent.peer.lost()
    await here.connect("here")
    await here.subscribe("t")
    here.client("33 ( 0001't' 0001 05 0200000000 'x' )")
    assert [packet.payload for packet in await here.deliveries()] == [b"x"]
    back = Dialogue(world)
    await back.connect("absent", expiry_s=100)
    await later.connect("later")
    later.client("82 ( 0001 00 0001't' 00 ) 82 ( 0002 00 0012'$replay/earliest/t' 00 )")
    await world.publish(message("end"))
    for client in (back, later):
        assert {packet.payload for packet in await client.deliveries()} == {b"end"}


async def test_a_user_with_a_quota_has_so_many_subscriptions_in_each_session(
    world: World, subscriptions: Subscriptions, client: AskingSubscriber
) -> None:
    await world.users.put(user("anna"))
    await world.quotas.put("user", "anna", Quota(subscriptions=2))
    session_of(client).tally.belongs_to("anna")
    subscriptions.subscribe(session_of(client), subscribe("a", "b", "c"), client)
    await world.settled()
    assert client.answers == [[1, 1, 0x97]]
