"""A quota of retained topics: each way to publish, in both versions."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest

from broker.config import Config
from broker.documents.quotas import RetainedByDocument
from broker.log.retained_topics import TOO_MANY
from broker.message import Offset
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Ack, Disconnect, Publish, Will
from broker.security.quotas import Quota
from broker.settings.dedup import DedupRule
from tests.support.clock import FakeClock
from tests.support.permitted import VERSIONS, PermittedClient, make_user
from tests.support.stores import retained
from tests.support.world import Disk, World, running

both = pytest.mark.parametrize("version", VERSIONS)
FULL = {MQTT_5: 0x97, MQTT_3_1_1: 0}
TAKEN = (0, 0x10, None)
"""0x10: nobody is subscribed; None: QoS 0 is not acknowledged."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def world(clock: FakeClock) -> AsyncIterator[World]:
    async with running(Disk(), clock=clock) as world:
        await limited(world)
        yield world


async def limited(world: World) -> None:
    for name in ("anna", "ben"):
        await make_user(world, name, "allow publish #", "allow subscribe #")
    await world.quotas.put("user", "anna", Quota(retained=2))


async def topics(world: World) -> list[str]:
    """That have a retained message."""
    return [message.topic for message in await retained(world.disk, ["#"])]


async def stored(world: World) -> list[str]:
    log = await world.disk.read(Offset(1), world.disk.high_watermark)
    return [message.topic for message in log.messages]


async def client_of(
    world: World, version: int = MQTT_5, user: str = "anna", will: Will | None = None
) -> PermittedClient:
    client = PermittedClient(world, user, version, client_id=user)
    assert await client.connected(will=will) == 0
    return client


@both
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_a_topic_too_many_is_refused_and_neither_stored_nor_delivered(
    world: World, version: int, qos: int
) -> None:
    subscriber = await client_of(world, user="ben")
    await subscriber.subscribed("#")
    client = await client_of(world, version)
    for topic in ("a", "b", "a"):
        assert await client.published(topic, qos, retain=True) in TAKEN
    refused = await client.published("c", qos, retain=True)
    assert refused == (FULL[version] if qos else None)
    assert await client.published("c", qos) in TAKEN, "it is not to be retained"
    assert await client.published("b", qos, retain=True) in TAKEN
    assert await stored(world) == subscriber.topics == ["a", "b", "a", "c", "b"]
    assert world.counters.dropped == {TOO_MANY: 1}
    if qos and version == MQTT_5:
        (ack,) = [p for p in client.packets if isinstance(p, Ack) and p.reason_code == 0x97]
        assert ack.reason_string == "anna may have retained messages on 2 topics, and has on 2"


@both
async def test_acknowledgements_keep_their_order_around_a_refusal(
    world: World, version: int
) -> None:
    client = await client_of(world, version)
    sent = [client.publish(topic, retain=topic != "d") for topic in "abcde"]
    await world.settled()
    acks = [packet for packet in client.packets if isinstance(packet, Ack)]
    assert [packet_id for ack in acks for packet_id in ack.packet_ids] == sent
    codes = [ack.reason_code for ack in acks for _ in ack.packet_ids]
    assert [code == 0x97 for code in codes] == [version == MQTT_5 and n in (2, 4) for n in range(5)]
    assert await stored(world) == ["a", "b", "d"]


@both
async def test_an_empty_payload_makes_room_in_the_same_read(world: World, version: int) -> None:
    client = await client_of(world, version)
    client.publish("a", retain=True)
    client.publish("b", retain=True)
    client.send(Publish("a", b"", 0, True, False, 0))
    assert await client.published("c", retain=True) in TAKEN
    assert await topics(world) == ["b", "c"]


@both
async def test_what_others_take_over_makes_room(
    world: World, version: int, clock: FakeClock
) -> None:
    client, other = await client_of(world, version), await client_of(world, user="ben")
    for topic in ("a", "b"):
        await client.published(topic, retain=True)
    await other.published("a", retain=True)
    clock.advance(10)
    assert await client.published("c", retain=True) in TAKEN
    assert await client.published("d", retain=True) == FULL[version]
    assert await topics(world) == ["b", "a", "c"]


@both
async def test_who_leaves_at_once_is_counted_for_first(
    world: World, version: int, clock: FakeClock
) -> None:
    """A message of QoS 0 and the DISCONNECT behind it come in one read."""
    will = Will("will", b"gone", 1, False)
    client = await client_of(world, version, will=will)
    other = await client_of(world, user="ben")
    for topic in ("a", "b"):
        await client.published(topic, retain=True)
    await other.published("a", retain=True)
    clock.advance(10)
    packets = Publish("c", b"x", 0, True, False, 0), Disconnect()
    read = b"".join([encode(packet, version) for packet in packets])
    client.peer.receive(read, clock.monotonic())
    assert not client.transport.reading
    await world.settled()
    assert client.transport.closed.is_set()
    assert await stored(world) == ["a", "b", "a", "c"], "the will is withdrawn"


@both
async def test_a_quota_holds_from_then_on(world: World, version: int) -> None:
    client = await client_of(world, version, "ben")
    for topic in ("a", "b"):
        await client.published(topic, retain=True)
    await world.quotas.put("user", "ben", Quota(retained=1))
    assert await client.published("c", retain=True) in TAKEN
    assert await client.published("a", retain=True) == FULL[version], "it counts when it comes"
    await world.quotas.put("user", "ben", Quota(publish_per_s=100))
    assert await client.published("d", retain=True) in TAKEN


@both
async def test_a_repeated_message_is_acknowledged_again(world: World, version: int) -> None:
    client = await client_of(world, version)
    again = Publish("a", b"x", 2, True, False, 7)
    client.send(again)
    client.publish("b", retain=True)
    await world.settled()
    client.send(again)
    await world.settled()
    answers = [p.reason_code for p in client.packets if isinstance(p, Ack) and 7 in p.packet_ids]
    assert len(answers) == 2
    assert {*answers} <= {0, 0x10}
    assert await stored(world) == ["a", "b"]


@both
@pytest.mark.parametrize("crashed", [False, True])
async def test_what_is_published_later_needs_room_then(
    clock: FakeClock, version: int, crashed: bool
) -> None:
    disk = Disk()
    async with AsyncExitStack() as story:
        world = await story.enter_async_context(running(disk, clock=clock))
        await limited(world)
        client = await client_of(world, version, will=Will("w", b"gone", 1, True))
        for topic in ("$delayed/50/a", "$delayed/50/b", "$delayed/50/c"):
            assert await client.published(topic, retain=True) in TAKEN
        assert await client.published("now", retain=True) in TAKEN
        if crashed:
            await story.aclose()
            world = await story.enter_async_context(running(disk, clock=clock))
            await world.quotas.start()
        clock.advance(60)
        await world.settled()
        there = await topics(world)
        assert len(there) == 2
        assert there[0] == "now"
        if not crashed:
            client.leave(lost=True)
            await world.settled()
        assert await topics(world) == there
        assert world.counters.dropped == {TOO_MANY: 3}
        assert len(await disk.scan(RetainedByDocument)) == 2


@both
@pytest.mark.parametrize("left", ["will", "delayed"])
async def test_after_a_crash_it_is_counted_first(clock: FakeClock, version: int, left: str) -> None:
    disk = Disk()
    async with running(disk, clock=clock) as world:
        await limited(world)
        will = Will("late", b"gone", 1, True) if left == "will" else None
        client = await client_of(world, version, will=will)
        for topic in ("a", "b"):
            assert await client.published(topic, retain=True) in TAKEN
        if left == "delayed":
            assert await client.published("$delayed/50/late", retain=True) in TAKEN
    async with running(disk, clock=clock) as world:
        await world.quotas.start()
        clock.advance(60)
        await world.settled()
        assert await topics(world) == ["a", "b"]
        assert world.counters.dropped == {TOO_MANY: 1}


@both
async def test_a_will_counts_for_its_user(world: World, version: int) -> None:
    client = await client_of(world, version, will=Will("w", b"gone", 1, True))
    client.leave(lost=True)
    await world.settled()
    assert await topics(world) == ["w"]
    client = await client_of(world, version)
    assert await client.published("a", retain=True) in TAKEN
    assert await client.published("b", retain=True) == FULL[version]


async def test_a_will_that_a_connect_makes_due_counts(world: World, clock: FakeClock) -> None:
    client = await client_of(world, will=Will("w", b"gone", 1, True, delay_s=100))
    client.leave(lost=True)
    await world.settled()
    assert await topics(world) == []
    again = PermittedClient(world, "anna", client_id="anna")
    again.connect(clean=True)
    await world.settled()
    assert await topics(world) == ["w"]
    (document,) = await world.disk.scan(RetainedByDocument)
    (offset,) = await world.disk.retained(["w"])
    assert document.offset == offset
    clock.advance(10)
    assert await again.published("a", retain=True) in TAKEN
    assert await again.published("b", retain=True) == 0x97


async def test_a_message_with_a_key_needs_room(clock: FakeClock) -> None:
    config = Config(dedup=(DedupRule(filter="#", window="60s"),))
    async with running(Disk(), config, clock) as world:
        await limited(world)
        client = await client_of(world)
        key = b"\x26\x00\x09dedup-key\x00\x01"
        for number, topic in enumerate("abca", 1):
            properties = key + topic.encode()
            client.send(Publish(topic, b"x", 1, True, False, number, properties=properties))
            await world.settled()
        codes = [p.reason_code for p in client.packets if isinstance(p, Ack)]
        assert [code == 0x97 for code in codes] == [False, False, True, False]
        offsets = {document.offset for document in await world.disk.scan(RetainedByDocument)}
        assert offsets == {*await world.disk.retained(["#"])}
        await world.quotas.remove("user", "anna")
        properties = key + b"c"
        client.send(Publish("c", b"x", 1, True, False, 9, properties=properties))
        await world.settled()
        assert await topics(world) == ["a", "b", "c"], "the key of what was refused is free"
