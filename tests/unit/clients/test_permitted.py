"""Every way in and out of a client, with and without each right, in both versions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from broker.clients.faces import Peer
from broker.clients.permitted import FORBIDDEN, NO_RIGHT, missing_right
from broker.config import CLOSE
from broker.documents.queues import GroupDocument
from broker.log import delayed
from broker.message import Offset
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Ack, Connack, Suback, Will
from broker.mqtt.properties import Property
from broker.registry import wills
from broker.registry.groups.queues import Queues
from broker.registry.groups.readership import FOR_NOBODY
from broker.security.rights import Rights
from broker.security.rules import Holder
from broker.session.withholding import NOT_PERMITTED
from broker.topics import REPLAY_ENDED
from tests.support.clock import FakeClock
from tests.support.lines import Lines
from tests.support.permitted import VERSIONS, PermittedClient, allow, make_user, rule, take_back
from tests.support.wire import script_bytes
from tests.support.world import Disk, World, running


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


both = pytest.mark.parametrize("version", VERSIONS)
FROM_THE_START = [("from", "earliest")]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(clock: FakeClock) -> AsyncIterator[World]:
    async with running(Disk(), clock=clock) as world:
        await make_user(world, "root", roles="admin")
        await make_user(world, "anna")
        yield world


async def root(world: World) -> PermittedClient:
    client = PermittedClient(world, "root", client_id="root")
    assert await client.connected() == 0
    return client


async def anna(
    world: World, version: int = MQTT_5, client_id: str = "c1", *texts: str
) -> PermittedClient:
    await allow(world, "anna", *texts)
    client = PermittedClient(world, "anna", version, client_id)
    assert await client.connected() == 0
    return client


async def stored(world: World) -> list[str]:
    await world.log.flushed()
    return [
        m.topic
        for m in (await world.disk.read(Offset(1), world.log.high_watermark, ["#"])).messages
    ]


# Publishing


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_publish(world: World, version: int, qos: int) -> None:
    client = await anna(world, version, "c1", "allow publish a/#")
    assert await client.published("a/1", qos) in (0, 0x10, None)
    refused = await client.published("b/1", qos, retain=True)
    if qos:
        assert refused == (0x87 if version == MQTT_5 else 0)
    assert world.counters.dropped == {FORBIDDEN: 1}
    assert await stored(world) == ["a/1"]
    await take_back(world, "anna", "allow publish a/#")
    await client.published("a/1", qos)
    assert world.counters.dropped == {FORBIDDEN: 2}
    assert await stored(world) == ["a/1"]


async def test_what_is_refused_is_acknowledged_in_its_turn(world: World) -> None:
    client = await anna(world, MQTT_5, "c1", "allow publish a/#")
    ids = [client.publish(topic) for topic in ("a/1", "b/1", "a/2", "b/2", "b/3", "a/3")]
    await world.settled()
    answers = [
        (packet_id, ack.reason_code)
        for ack in client.packets
        if isinstance(ack, Ack)
        for packet_id in ack.packet_ids
    ]
    assert [packet_id for packet_id, _ in answers] == ids
    assert [code == 0x87 for _, code in answers] == [False, True, False, True, True, False]


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_3_1_1_may_be_closed_instead(clock: FakeClock, qos: int) -> None:
    async with running(Disk(), clock=clock) as world:
        await make_user(world, "anna", "allow publish a")
        for version in VERSIONS:
            client = PermittedClient(
                world, "anna", version, f"c{version}", settings={"forbidden_publish_3_1_1": CLOSE}
            )
            assert await client.connected() == 0
            client.publish("a", qos)
            assert await client.published("b", qos) in (None, 0x87)
            assert client.transport.closed.is_set() == (version == MQTT_3_1_1)
            client.leave()
            await world.settled()
        assert world.counters.dropped == {FORBIDDEN: 2}
        assert await stored(world) == ["a", "a"]


@both
async def test_a_repeated_message_that_was_received_is_acknowledged(
    world: World, version: int
) -> None:
    """QoS 2, sent again after the right was taken away: it is stored, once."""
    client = await anna(world, version, "c1", "allow publish a")
    packet_id = client.publish("a", 2)
    await world.settled()
    await take_back(world, "anna", "allow publish a")
    client._packet_id -= 1
    assert client.publish("a", 2) == packet_id
    await world.settled()
    codes = [p.reason_code for p in client.packets if isinstance(p, Ack)]
    assert len(codes) == 2
    assert codes[1] < 0x80
    assert await stored(world) == ["a"]


@both
async def test_delayed_messages_go_by_their_own_topic(
    world: World, version: int, clock: FakeClock
) -> None:
    client = await anna(world, version, "c1", "allow publish a/#")
    await client.published("$delayed/1/a/1")
    await client.published("$delayed/1/b/1")
    clock.advance(2)
    await world.settled()
    assert await stored(world) == ["a/1"]


@both
async def test_a_bridge_tells_its_own_state_and_no_other(world: World, version: int) -> None:
    await make_user(world, "bridge", roles="standard")
    client = PermittedClient(world, "bridge", version, "b1")
    assert await client.connected() == 0
    await client.published("$SYS/broker/connection/b1/state", retain=True)
    assert not world.counters.dropped
    await client.published("$SYS/broker/connection/b2/state", retain=True)
    assert world.counters.dropped == {FORBIDDEN: 1}


async def test_an_alias_publishes_to_no_other_topic_than_its_name(world: World) -> None:
    """What is refused leaves its alias, and that is still for a topic without the right."""
    await allow(world, "anna", "allow publish a")
    client = PermittedClient(world, "anna", settings={"topic_alias_max": 5})
    assert await client.connected() == 0
    packets = "32 0A 0001'b' 0001 03 230001'x'  32 09 0000 0002 03 230001'x'"
    packets += "32 0A 0001'a' 0003 03 230001'x'  32 09 0000 0004 03 230001'x'"
    client.peer.receive(script_bytes(packets), world.clock.monotonic())
    await world.settled()
    await take_back(world, "anna", "allow publish a")
    client.peer.receive(script_bytes("32 09 0000 0005 03 230001'x'"), world.clock.monotonic())
    await world.settled()
    acks = [packet for packet in client.packets if isinstance(packet, Ack)]
    codes = {packet_id: ack.reason_code for ack in acks for packet_id in ack.packet_ids}
    assert {n for n, code in codes.items() if code == 0x87} == {1, 2, 5}
    assert await stored(world) == ["a", "a"]


# Wills


@both
async def test_a_will_is_refused_at_connect(world: World, version: int) -> None:
    await allow(world, "anna", "allow publish a/#")
    refused = PermittedClient(world, "anna", version)
    code = await refused.connected(will=Will("b", b"gone", 1, False))
    assert code == (0x87 if version == MQTT_5 else 5)
    assert refused.transport.closed.is_set()
    assert world.sessions.connected_count == 0
    accepted = PermittedClient(world, "anna", version)
    assert await accepted.connected(will=Will("a/1", b"gone", 1, False)) == 0
    accepted.leave(lost=True)
    await world.settled()
    assert await stored(world) == ["a/1"]


@both
async def test_a_will_is_not_published_without_the_right(world: World, version: int) -> None:
    await allow(world, "anna", "allow publish a/#")
    client = PermittedClient(world, "anna", version)
    assert await client.connected(will=Will("a/1", b"gone", 1, False)) == 0
    await take_back(world, "anna", "allow publish a/#")
    client.leave(lost=True)
    await world.settled()
    assert await stored(world) == []
    assert world.counters.dropped == {wills.NO_RIGHT: 1}


@both
@pytest.mark.parametrize("crashed", [False, True])
async def test_what_is_published_later_needs_the_right_then(
    clock: FakeClock, version: int, crashed: bool
) -> None:
    """A Will and delayed messages, also by a line, and also those of an earlier run."""
    disk = Disk()
    async with AsyncExitStack() as story:
        world = await story.enter_async_context(running(disk, clock=clock))
        await make_user(world, "anna", *[f"allow publish {topic}" for topic in "abcdef"])
        clients = [PermittedClient(world, "anna", version, client_id) for client_id in ("c1", "c2")]
        for client, topic in zip(clients, "ab", strict=True):
            assert await client.connected(will=Will(topic, b"gone", 1, False)) == 0
        for topic in "cd":
            assert await clients[0].published(f"$delayed/50/{topic}") in (0, 0x10)
        lines = Lines(world, peer=Peer("here", certificate_user="anna"))
        lines.says(*[f"PUBLISH $delayed/50/{topic} x c1" for topic in "ef"])
        assert await lines.gets() == ["OK", "OK"]
        if crashed:
            await story.aclose()
            world = await story.enter_async_context(running(disk, clock=clock))
        await take_back(world, "anna", *[f"allow publish {topic}" for topic in "ace"])
        if not crashed:
            for client in clients:
                client.leave(lost=True)
        clock.advance(60)
        await world.settled()
        assert sorted(await stored(world)) == ["b", "d", "f"]
        assert world.counters.dropped == {wills.NO_RIGHT: 1, delayed.NO_RIGHT: 2}


@both
async def test_what_a_removed_user_left_is_not_published(
    world: World, version: int, clock: FakeClock
) -> None:
    client = PermittedClient(world, "anna", version)
    await allow(world, "anna", "allow publish #")
    assert await client.connected(will=Will("a", b"gone", 1, False)) == 0
    await client.published("$delayed/50/b")
    await world.passing_time(world.users.remove("anna"))
    assert client.transport.closed.is_set()
    clock.advance(60)
    await world.settled()
    assert await stored(world) == []
    assert world.counters.dropped == {wills.NO_RIGHT: 1, delayed.NO_RIGHT: 1}


# Subscribing


@both
@pytest.mark.parametrize(
    ("texts", "topic_filter", "granted"),
    [
        ((), "a/1", False),
        (("allow subscribe a/1",), "a/1", True),
        (("allow subscribe a/1",), "#", True),
        (("allow subscribe a/1",), "b/#", False),
        (("allow subscribe a/1",), "$share/g/#", True),
        (("allow subscribe a/1",), "$share/g/b/#", False),
        (("allow subscribe a/1",), "$replay/earliest/a/1", False),
        (("allow read-history a/1",), "$replay/earliest/a/1", False),
        (("allow subscribe #", "allow read-history a/1"), "$replay/earliest/+/1", True),
        (("allow subscribe #", "allow read-history a/1"), "$replay/earliest/b/+", False),
        (("allow subscribe #",), "$SYS/#", False),
        (("allow subscribe $SYS/#",), "$SYS/broker/uptime", True),
        (("allow subscribe a/#",), "$dead/g/#", True),
        (("allow subscribe a/#",), "$dead/g/b", False),
        (("allow subscribe #", "deny subscribe b/#"), "b/+", False),
    ],
)
async def test_subscribe(
    world: World, version: int, texts: tuple[str, ...], topic_filter: str, granted: bool
) -> None:
    client = await anna(world, version, "c1", *texts)
    (code,) = await client.subscribed(topic_filter)
    assert code == (1 if granted else 0x87 if version == MQTT_5 else 0x80)


async def test_a_suback_says_which_right_is_missing(world: World) -> None:
    client = await anna(world, MQTT_5, "c1", "allow subscribe a")
    await client.subscribed("b", "c", "$replay/earliest/a", "a")
    (suback,) = [packet for packet in client.packets if isinstance(packet, Suback)]
    assert [*suback.reason_codes] == [0x87, 0x87, 0x87, 1]
    assert suback.properties[Property.REASON_STRING] == (
        "the right to subscribe is missing; the right to read-history is missing"
    )


async def test_history_by_a_user_property_is_a_right_of_its_own(world: World) -> None:
    client = await anna(world, MQTT_5, "c1", "allow subscribe #", "allow read-history a/#")
    publisher = await root(world)
    for topic in ("a/1", "b/1"):
        await publisher.published(topic)
    assert await client.subscribed("b/#", user_properties=FROM_THE_START) == [0x87]
    assert await client.subscribed("$share/g/b/#", user_properties=FROM_THE_START) == [0x87]
    assert await client.subscribed("#", user_properties=FROM_THE_START) == [1]
    assert client.topics == ["a/1"]
    await publisher.published("b/1")
    assert client.topics == ["a/1", "b/1"], "what comes now is no history"


@both
async def test_what_is_granted_is_only_what_may_be_read(world: World, version: int) -> None:
    """Live, retained, after an absence, replayed, of QoS 0 and told by the broker."""
    client = await anna(world, version, "c1", "allow subscribe a/#", "allow read-history a/1")
    publisher = await root(world)
    for topic in ("a/1", "a/2", "b/1"):
        await publisher.published(topic, retain=True)
    await client.subscribed("#")
    assert client.topics == ["a/1", "a/2"]
    for qos in (0, 1, 2):
        for topic in ("a/1", "b/1"):
            await publisher.published(topic, qos)
    assert client.topics[2:] == ["a/1"] * 3
    client.acknowledge()
    await world.settled()
    client.acknowledge()
    await world.settled()
    client.leave()
    for topic in ("a/1", "b/1", "a/2"):
        await publisher.published(topic)
    again = PermittedClient(world, "anna", version)
    assert await again.connected() == 0
    assert again.topics == ["a/1", "a/2"]
    await again.subscribed("$replay/earliest/a/#", "$replay/earliest/+/1")
    assert {*again.topics[2:]} == {"a/1"}
    assert world.counters.dropped == {}


@both
async def test_of_what_the_broker_tells_comes_what_may_be_read(world: World, version: int) -> None:
    """`$SYS`, as retained and as it changes, and `$dead`."""
    client = await anna(
        *(world, version, "c1", "allow subscribe $SYS/#", "allow subscribe a"),
        *("deny subscribe $SYS/broker/uptime", "allow subscribe $dead/g/c"),
    )
    await client.services.sys_tree.publish(world.clock.now())
    await client.subscribed("$SYS/#", "$dead/#")
    assert "$SYS/broker/version" in client.topics
    assert "$SYS/broker/uptime" not in client.topics
    before = len(client.topics)
    world.clock.advance(7)
    await client.services.sys_tree.publish(world.clock.now())
    await world.settled()
    assert len(client.topics) > before
    assert "$SYS/broker/uptime" not in client.topics
    made = GroupDocument("$share/g/#", 1, 1000, 8000, 60_000, 0)
    await world.passing_time(Queues(world.log, world.groups, world.clock).create(made, ""))
    worker = await root(world)
    await worker.subscribed("$share/g/#")
    for topic in "abc":
        await worker.published(topic)
    worker.refuse()
    await world.settled()
    assert [topic for topic in client.topics if "$dead" in topic] == ["$dead/g/a", "$dead/g/c"]


# Rights that are taken away, or given


@both
async def test_a_right_that_is_taken_away_stops_the_next_message(
    world: World, version: int
) -> None:
    client = await anna(world, version, "c1", "allow subscribe a/#")
    await client.subscribed("#")
    publisher = await root(world)
    await publisher.published("a/1")
    await take_back(world, "anna", "allow subscribe a/#")
    for qos in (0, 1, 2):
        await publisher.published("a/1", qos)
    assert client.topics == ["a/1"]
    assert world.counters.dropped == {}, "it is as if nothing matched"
    await allow(world, "anna", "allow subscribe a/1")
    await publisher.published("a/1", 0)
    assert client.topics == ["a/1", "a/1"]


@both
async def test_it_stops_what_waits_for_the_client(world: World, version: int) -> None:
    client = await anna(world, version, "c1", "allow subscribe a", "allow subscribe b")
    await client.subscribed("+")
    publisher = await root(world)
    client.stall(yes=True)
    for topic in ("a", "b", "a"):
        await publisher.published(topic)
    await take_back(world, "anna", "allow subscribe a")
    client.stall(yes=False)
    await world.settled()
    assert client.topics == ["b"]
    assert world.counters.dropped == {NOT_PERMITTED: 2}
    client.acknowledge()
    await world.settled()
    client.leave()
    again = PermittedClient(world, "anna", version)
    assert await again.connected() == 0
    assert again.topics == [], "the cursor has passed what was withheld"


@both
@pytest.mark.parametrize("qos", [1, 2])
async def test_it_stops_what_is_sent_again(world: World, version: int, qos: int) -> None:
    client = await anna(world, version, "c1", "allow subscribe a", "allow subscribe b")
    await client.subscribed("+", qos=qos)
    publisher = await root(world)
    for topic in ("a", "b"):
        await publisher.published(topic, qos)
    assert client.topics == ["a", "b"]
    client.leave()
    await world.settled()
    await take_back(world, "anna", "allow subscribe a")
    again = PermittedClient(world, "anna", version)
    assert await again.connected() == 0
    assert again.topics == ["b"]
    assert world.counters.dropped == {NOT_PERMITTED: 1}


@both
async def test_it_stops_a_replay(world: World, version: int) -> None:
    client = await anna(world, version, "c1", "allow subscribe #", "allow read-history #")
    publisher = await root(world)
    for _ in range(5):
        await publisher.published("a")
    client.stall(yes=True)
    await client.subscribed("$replay/earliest/a")
    await take_back(world, "anna", "allow read-history #")
    client.stall(yes=False)
    await world.settled()
    assert client.topics == []
    assert world.counters.dropped == {NOT_PERMITTED: 5}
    await publisher.published("a")
    assert client.topics == ["a"], "what is live may still be read"


@both
async def test_it_stops_retained_messages(world: World, version: int) -> None:
    client = await anna(world, version, "c1", "allow subscribe a", "allow subscribe b")
    publisher = await root(world)
    for topic in ("a", "b"):
        await publisher.published(topic, retain=True)
    client.stall(yes=True)
    await client.subscribed("+")
    await take_back(world, "anna", "allow subscribe b")
    client.stall(yes=False)
    await world.settled()
    assert client.topics == ["a"]
    assert world.counters.dropped == {NOT_PERMITTED: 1}
    await publisher.published("a")
    assert client.topics == ["a", "a"]


@both
async def test_it_stops_what_waits_for_the_disk(world: World, version: int) -> None:
    """QoS 2 and what comes behind it: live, replayed, and leased from a group."""
    rules = "allow subscribe a", "allow read-history b"
    client = await anna(world, version, "c1", *rules, "allow subscribe b", "allow subscribe c")
    publisher = await root(world)
    await publisher.published("b", 2)
    client.stall(yes=True)
    await client.subscribed("+", qos=2)
    await client.subscribed("$share/g/a")
    await client.subscribed("$replay/earliest/b", qos=2)
    for topic in ("a", "c"):
        await publisher.published(topic, 2)
    world.disk.may_commit.clear()
    client.stall(yes=False)
    await turns()
    assert client.topics == []
    for text in rules:  # As if the commit that runs was the one of these changes.
        world.permissions._remove(rule(text, Holder("anna")))
    world.permissions._renew()
    world.disk.may_commit.set()
    await world.settled()
    assert client.topics == ["c"]
    assert world.counters.dropped == {NOT_PERMITTED: 2}, "of `b` as history, of `a` as `+`"
    assert world.counters.groups.dead_letters == 1


@both
async def test_history_that_was_not_acknowledged_is_not_sent_again(
    world: World, version: int
) -> None:
    rules = [f"allow {right} {topic}" for right in ("subscribe", "read-history") for topic in "ab"]
    client = await anna(world, version, "c1", *rules)
    publisher = await root(world)
    for topic in ("a", "b"):
        await publisher.published(topic)
    await client.subscribed("$replay/earliest/+")
    await publisher.published("a")
    assert client.topics == ["a", "b", "a"]
    await take_back(world, "anna", "allow read-history a")
    client.leave()
    again = PermittedClient(world, "anna", version)
    assert await again.connected() == 0
    assert again.topics == ["b", "a"], "what came live is no history"
    assert world.counters.dropped == {NOT_PERMITTED: 1}


@both
async def test_history_of_a_replay_that_has_ended_is_not_sent_again(
    world: World, version: int
) -> None:
    """Its subscription is gone, and what was not acknowledged is still in flight."""
    rules = [f"allow {right} {topic}" for right in ("subscribe", "read-history") for topic in "ab"]
    client = await anna(world, version, "c1", *rules)
    publisher = await root(world)
    for topic in ("a", "b"):
        await publisher.published(topic)
    await client.subscribed("$replay/1:2/+")
    await world.settled()
    assert client.topics == ["a", "b", REPLAY_ENDED]
    await take_back(world, "anna", "allow read-history a")
    client.leave()
    again = PermittedClient(world, "anna", version)
    assert await again.connected() == 0
    assert again.topics == ["b"]
    assert world.counters.dropped == {NOT_PERMITTED: 1}


async def test_unread_is_what_may_be_read(world: World) -> None:
    client = await anna(world, MQTT_5, "c1", "allow subscribe a")
    await client.subscribed("#")
    client.leave()
    publisher = await root(world)
    for topic in ("a", "b", "a"):
        await publisher.published(topic)
    again = PermittedClient(world, "anna")
    again.connect(user_properties=[("tell", "unread")])
    await world.settled()
    (connack,) = [packet for packet in again.packets if isinstance(packet, Connack)]
    assert connack.properties[Property.USER_PROPERTY] == [("unread", "2")]


async def test_the_first_user_ends_that_everybody_may_do_everything() -> None:
    async with running(Disk()) as world:
        stranger = PermittedClient(world, "anonymous")
        assert await stranger.connected() == 0
        await stranger.subscribed("#")
        assert await stranger.published("a") == 0
        assert stranger.topics == ["a"]
        await make_user(world, "root", roles="admin")
        publisher = await root(world)
        await publisher.published("a")
        assert stranger.topics == ["a"]


# Groups


@both
async def test_a_member_of_a_group_gets_what_it_may_read(world: World, version: int) -> None:
    await allow(world, "anna", "allow subscribe %c/#", "allow subscribe all")
    members = [await anna(world, version, client_id) for client_id in ("c1", "c2")]
    for member in members:
        assert await member.subscribed("$share/g/#") == [1]
    publisher = await root(world)
    for topic in ("c1/x", "c2/x", "nobody", "c2/y", "all", "all"):
        await publisher.published(topic)
    assert [topic for topic in members[0].topics if topic != "all"] == ["c1/x"]
    assert [topic for topic in members[1].topics if topic != "all"] == ["c2/x", "c2/y"]
    assert sum(member.topics.count("all") for member in members) == 2
    assert world.counters.dropped == {FOR_NOBODY: 1}


@both
async def test_what_no_member_may_read_any_more_holds_up_nothing(
    world: World, version: int
) -> None:
    member = await anna(world, version, "c1", "allow subscribe a", "allow subscribe b")
    await member.subscribed("$share/g/+")
    publisher = await root(world)
    member.stall(yes=True)
    for topic in ("a", "a", "b"):
        await publisher.published(topic)
    await take_back(world, "anna", "allow subscribe a")
    member.stall(yes=False)
    await world.settled()
    assert member.topics == ["b"]
    member.acknowledge()
    await publisher.published("b")
    assert member.topics == ["b", "b"]
    assert world.counters.dropped == {FOR_NOBODY: 2}
    member.acknowledge()
    await world.settled()
    group = world.groups.get("$share/g/+")
    assert group is not None
    assert group.sender is not None
    assert group.sender.session.cursor() == world.log.high_watermark


async def test_what_waits_for_a_member_goes_to_one_that_has_the_right_now(world: World) -> None:
    """Its own member has no room; the other may read it from then on."""
    await allow(world, "anna", "allow subscribe %c/#")
    full, other = [await anna(world, MQTT_5, client_id) for client_id in ("c1", "c2")]
    for member in (full, other):
        assert await member.subscribed("$share/g/#") == [1]
    publisher = await root(world)
    full.stall(yes=True)
    await publisher.published("c1/x")
    assert (full.topics, other.topics) == ([], [])
    await allow(world, "anna", "allow subscribe c1/#")
    await world.settled()
    assert (full.topics, other.topics) == ([], ["c1/x"])


@both
@pytest.mark.parametrize("away", [False, True])
async def test_a_group_is_its_users(world: World, version: int, away: bool) -> None:
    client = await anna(world, version, "c1", "allow subscribe a")
    assert await client.subscribed("$share/g/a") == [1]
    if away:
        client.leave()
        await world.settled()
    await make_user(world, "ben", "allow subscribe a")
    ben = PermittedClient(world, "ben", version, "c2")
    assert await ben.connected() == 0
    assert await ben.subscribed("$share/g/a") == [0x87 if version == MQTT_5 else 0x80]
    again = PermittedClient(world, "anna", version, "c1")
    assert await again.connected() == 0
    publisher = await root(world)
    await publisher.published("a")
    assert (again.topics, ben.topics) == (["a"], [])


async def test_who_may_read_little_does_not_empty_a_group_of_an_operator(world: World) -> None:
    """It may have members of several users, and these may be away."""
    made = GroupDocument("$share/g/#", 3, 1000, 8000, 60_000, 0)
    await world.passing_time(Queues(world.log, world.groups, world.clock).create(made, ""))
    await make_user(world, "eve", "allow subscribe eve/#")
    eve = PermittedClient(world, "eve", client_id="e1")
    assert await eve.connected() == 0
    assert await eve.subscribed("$share/g/#") == [1]
    publisher = await root(world)
    for topic in ("a", "eve/1", "b"):
        await publisher.published(topic)
    assert eve.topics == ["eve/1"]
    assert world.counters.dropped == {}
    assert world.counters.groups.dead_letters == 2


# The line protocol


async def test_lines_have_the_rights_of_their_user(world: World) -> None:
    await allow(world, "anna", "allow publish a/#", "allow subscribe a/#", "allow publish %c/#")
    lines = Lines(world, peer=Peer("here", certificate_user="anna"))
    lines.says(*[f"PUBLISH {topic} x c1" for topic in ("a/1", "b/1", "a/2", "c1/x")])
    refused = f"ERROR {NO_RIGHT}"
    assert await lines.gets() == ["OK", refused, "OK", refused]
    assert world.counters.dropped == {FORBIDDEN: 2}
    assert await stored(world) == ["a/1", "a/2"]
    lines.says(*[f"SUBSCRIBE {f} s1" for f in ("b/#", "a/#", "$replay/earliest/a/1")])
    assert await lines.gets() == [
        "ERROR the right to subscribe is missing",
        "OK",
        "ERROR the right to read-history is missing",
    ]
    publisher = await root(world)
    await publisher.published("a/1")
    assert await lines.gets() == ["x"]
    await take_back(world, "anna", "allow subscribe a/#")
    await publisher.published("a/1")
    assert await lines.gets() == []


# By itself


def test_nothing_is_asked_of_who_may_do_everything() -> None:
    assert missing_right(Rights.ALL, "$replay/earliest/#", replays=True) == ""
