"""Changes: a subscription counts for what arrives after it. At random: `model/test_order.py`."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from itertools import pairwise

import pytest

from broker.clients.line_client import LineClient
from broker.config import Config
from broker.delivery import changes, delivery
from broker.documents import NOT_YET, Place, SubscriptionDocument
from broker.errors import StoreError
from broker.message import Offset
from broker.mqtt.packets import Ack
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.lines import Lines
from tests.support.messages import message
from tests.support.raw_client import next_packet
from tests.support.world import (
    Disk,
    Subscriber,
    World,
    payloads,
    placed,
    running,
    subscription,
)

SUBSCRIBE = "82 06 0001 0001 't' 00"
SUBSCRIBE_5 = "82 07 0001 00 0001 't' 02"
UNSUBSCRIBE_5 = "A2 06 0002 00 0001 't'"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with running(Disk(), NOTHING_TO_TELL) as world:
        yield world


async def connected(world: World, client_id: str = "a", **words: int) -> Dialogue:
    client = Dialogue(world)
    await client.connect(client_id, **words)  # type: ignore[arg-type]
    return client


async def test_a_publish_before_its_subscribe_is_retained_and_not_live(world: World) -> None:
    client = await connected(world, version=4)
    client.client(f"31 04 0001 't' 'x'  {SUBSCRIBE}")
    await client.broker("90 03 0001 00  31 04 0001 't' 'x'")


@pytest.mark.parametrize("expiry_s", [0, 100])
@pytest.mark.parametrize("retain_handling", [0, 1, 2])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_what_came_before_a_subscribe_is_not_live(
    world: World, qos: int, retain_handling: int, expiry_s: int
) -> None:
    """On the connection of another, whose commit is on its way."""
    client = await connected(world, expiry_s=expiry_s)
    world.disk.may_commit.clear()
    world.log.append([message("committing", qos=qos, retain=retain_handling == 2)])
    await asyncio.sleep(0)
    world.log.append([message("waiting", qos=qos)])
    client.client(f"82 07 0001 00 0001 't' {retain_handling << 4:02X}")
    world.log.append([message("after", qos=qos)])
    world.disk.may_commit.set()
    await client.broker("90 04 0001 00 00  30 .. 0001 't' 00 'after'")


async def test_retain_as_published_tells_them_apart(world: World) -> None:
    client = await connected(world)
    client.client("31 05 0001 't' 00 'x'  82 07 0001 00 0001 't' 08  31 05 0001 't' 00 'y'")
    await client.broker("90 04 0001 00 00  31 05 0001 't' 00 'y'")


@pytest.mark.parametrize("expiry_s", [0, 100])
@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_unsuback_follows_the_last_message(world: World, qos: int, expiry_s: int) -> None:
    client = await connected(world, expiry_s=expiry_s)
    client.client(SUBSCRIBE_5)
    await client.broker("90 04 0001 00 02")
    publisher = await connected(world, "b")
    identifier = "0001" if qos else ""
    publisher.client(f"3{2 * qos} ( 0001 't' {identifier} 00 'x' )")
    client.client(UNSUBSCRIBE_5)
    publisher.client("30 05 0001 't' 00 'y'")
    await client.broker(f"3{2 * qos} .. 0001 't' {'.. ..' if qos else ''} 00 'x'  B0 04 0002 00 00")


async def test_who_must_acknowledge_first_gets_unsuback_all_the_same(world: World) -> None:
    """Or who waits for UNSUBACK before it goes on would wait for ever."""
    client = await connected(world, receive_maximum=1)
    client.client(SUBSCRIBE_5)
    await client.broker("90 04 0001 00 02")
    world.log.append([message("1"), message("2")])
    client.client(UNSUBSCRIBE_5)
    await client.broker("32 07 0001 't' .. .. 00 '1'  B0 04 0002 00 00")
    assert [packet.payload for packet in await client.deliveries()] == []


async def test_another_qos_counts_from_where_it_stands(world: World) -> None:
    client = await connected(world)
    client.client(SUBSCRIBE_5)
    await client.broker("90 04 0001 00 02")
    world.log.append([message("1", qos=1)])
    client.client("82 07 0001 00 0001 't' 20")
    world.log.append([message("2", qos=1)])
    await client.broker("32 07 0001 't' 0001 00 '1'  90 04 0001 00 00  30 05 0001 't' 00 '2'")


async def test_no_matching_subscribers_goes_by_the_same_order(world: World) -> None:
    """[MQTT 5, section 3.4.2.1] Though routing is behind all four."""
    client = await connected(world)
    publish = "32 07 0001 't' 000{} 00 'x'"
    client.client(
        f"{publish.format(1)} {SUBSCRIBE_5} {publish.format(2)} {UNSUBSCRIBE_5} {publish.format(3)}"
    )
    await client.broker(
        "40 03 0001 10  40 02 0002  40 03 0003 10"
        "90 04 0001 00 02  32 07 0001 't' 0001 00 'x'  B0 04 0002 00 00"
    )


async def test_no_matching_subscribers_counts_the_last_of_a_group(world: World) -> None:
    """[MQTT 5, section 3.4.2.1] The group ends with it, in the same order."""
    first, last = await connected(world, "first"), await connected(world, "last")
    for client in (first, last):
        client.client("82 ( 0001 00 000A '$share/g/t' 00 )")
        await client.broker("90 04 0001 00 00")
    publish = "32 07 0001 't' 000{} 00 'x'"
    leave = "A2 ( 0002 00 000A '$share/g/t' )"
    first.client(f"{publish.format(1)} {leave} {publish.format(2)}")
    last.client(f"{publish.format(3)} {leave} {publish.format(4)}")
    await world.settled()
    codes: dict[int, int] = {}
    for client in (first, last):
        written = bytearray(client.transport.written)
        while (packet := next_packet(written)) is not None:
            if isinstance(packet, Ack):
                codes |= dict.fromkeys(packet.packet_ids, packet.reason_code)
    assert codes == {1: 0, 2: 0, 3: 0, 4: 0x10}


async def test_with_nothing_on_its_way_it_is_immediate(world: World) -> None:
    client = await connected(world)
    await world.settled()
    client.client(f"{SUBSCRIBE_5} {UNSUBSCRIBE_5}")
    client.written("90 04 0001 00 02  B0 04 0002 00 00")


async def test_a_subscribe_ends_the_wait_of_acknowledgements_for_company(world: World) -> None:
    client = await connected(world, expiry_s=100)
    clean = await connected(world, "clean")
    assert client.peer._session is not None
    world.log.changed(client.peer._session)
    clean.client(SUBSCRIBE_5)
    for _ in range(20):
        await asyncio.sleep(0)
    clean.written("90 04 0001 00 02")


async def test_a_full_disk_holds_up_no_session_that_needs_nothing_stored(world: World) -> None:
    """What waits for the disk comes after the subscription then."""
    client = await connected(world)
    world.disk.full = True
    world.log.append([message("1")])
    client.client(SUBSCRIBE_5)
    await client.world.passing_time(asyncio.sleep(0.01))
    client.written("90 04 0001 00 02")
    client.client(SUBSCRIBE_5)
    client.written("90 04 0001 00 02")
    world.disk.full = False
    await client.broker("32 07 0001 't' 0001 00 '1'")


async def test_a_durable_subscription_waits_for_the_disk_in_its_order(world: World) -> None:
    client = await connected(world, expiry_s=100)
    world.disk.full = True
    world.log.append([message("1")])
    client.client(SUBSCRIBE_5)
    world.log.append([message("refused")], keep_if_full=False)
    world.log.append([message("2")])
    await client.world.passing_time(asyncio.sleep(0.01))
    client.written("")
    world.disk.full = False
    await client.broker("90 04 0001 00 02  32 07 0001 't' 0001 00 '2'")


async def test_a_replay_begins_and_ends_where_its_subscribe_stands(world: World) -> None:
    client = await connected(world)
    world.log.append([message("1"), message("2")])
    request = "82 ( 0001 ( 26 0004 'from' {} ) 0001 't' 00 )"
    client.client(request.format("0006 'latest'"))
    await world.publish(message("3"))
    await client.broker("90 04 0001 00 00  30 .. 0001 't' * '3'")
    client.client(UNSUBSCRIBE_5)
    await client.broker("B0 04 0002 00 00")
    world.log.append([message("4")])
    until = "26 0004 'from' 0001 '2'  26 0005 'until' 0006 'latest'"
    client.client(f"82 ( 0001 ( {until} ) 0001 't' 00 )")
    world.log.append([message("5")])
    await world.settled()
    assert [p.payload for p in await client.deliveries() if p.topic == "t"] == [b"2", b"3", b"4"]


async def test_a_new_group_begins_where_its_first_subscribe_stands(world: World) -> None:
    client = await connected(world)
    world.log.append([message("before")])
    client.client("82 ( 0001 00 000A '$share/g/t' 01 )")
    world.log.append([message("after", qos=0)])
    await client.broker("30 .. 0001 't' 00 'after'  90 04 0001 00 01")


async def test_who_leaves_a_group_gets_what_came_before(world: World) -> None:
    client = await connected(world)
    client.client("82 ( 0001 00 000A '$share/g/t' 01 )")
    await client.broker("90 04 0001 00 01")
    world.log.append([message("before", qos=0)])
    client.client("A2 ( 0002 00 000A '$share/g/t' )")
    world.log.append([message("after", qos=0)])
    await client.broker("30 .. 0001 't' 00 'before'  B0 04 0002 00 00")


async def test_commands_of_the_line_protocol_count_where_they_stand(world: World) -> None:
    lines = Lines(world)
    lines.says("SUBSCRIBE other line")
    assert await lines.gets() == ["OK"]
    world.log.append([message("1")])
    lines.says("SUBSCRIBE t line")
    world.log.append([message("2")])
    assert await lines.gets() == ["OK", "2"]
    world.log.append([message("3")])
    lines.says("UNSUBSCRIBE t line")
    world.log.append([message("4")])
    assert await lines.gets() == ["3", "OK"]


async def test_a_line_subscriber_hears_that_it_unsubscribed_after_the_last_message(
    world: World,
) -> None:
    """Also after more than may be in flight at once."""
    lines = Lines(world)
    lines.says("SUBSCRIBE t line")
    assert await lines.gets() == ["OK"]
    numbers = [str(n) for n in range(5000)]
    world.log.append([message(number) for number in numbers])
    lines.says("UNSUBSCRIBE t line")
    world.log.append([message("late")])
    got = [line for _ in range(5) for line in await lines.gets()]
    assert got == [*numbers, "OK"]


async def test_a_line_subscriber_that_does_not_read_goes_on_without_its_answer(
    world: World,
) -> None:
    lines = Lines(world)
    lines.says("SUBSCRIBE t line")
    assert await lines.gets() == ["OK"]
    lines.client.writable(yes=False)
    world.log.append([message("1")])
    lines.says("UNSUBSCRIBE t line", "PUBLISH t 2 pub")
    assert await lines.gets() == []
    assert world.disk.high_watermark == 2
    lines.client.writable(yes=True)
    assert await lines.gets() == ["1", "OK", "OK"]


@pytest.mark.parametrize("ends", [LineClient.end_of_input, LineClient.lost])
async def test_who_has_no_more_to_say_does_not_wait_to_be_told_that_it_unsubscribed(
    world: World, ends: Callable[[LineClient], object]
) -> None:
    lines = Lines(world)
    lines.says("SUBSCRIBE t line")
    assert await lines.gets() == ["OK"]
    lines.client.writable(yes=False)
    world.log.append([message("1")])
    lines.says("UNSUBSCRIBE t line")
    await world.settled()
    lines.transport.tells_arrival = False
    ends(lines.client)
    assert lines.transport.closed.is_set() == (ends is LineClient.end_of_input)


@pytest.mark.parametrize("crash", [False, True])
async def test_who_comes_back_before_it_is_routed_gets_what_is_after_it(crash: bool) -> None:
    disk = Disk()
    async with running(disk, NOTHING_TO_TELL) as world:
        sub = Subscriber(world)
        await sub.open()
        for _ in range(2):
            world.log.append([message("before")])
        world.delivery.changes.subscribe(placed(sub), [new()], _nothing)
        world.log.append([message("after")])
        if crash:
            await world.flushed()
        else:
            sub.close()
            await sub.open()
            await world.settled()
            assert payloads(sub.got) == [b"after"]
    (stored,) = await disk.scan(SubscriptionDocument)
    assert stored.start_offset == 2
    async with running(disk, NOTHING_TO_TELL) as world:
        sub = Subscriber(world)
        await sub.open()
        await world.settled()
        assert payloads(sub.got) == [b"after"]


async def test_two_of_one_filter_in_a_commit_begin_where_the_first_stands(world: World) -> None:
    """The second has another QoS, and misses nothing between. P3"""
    sub = Subscriber(world)
    await sub.open()
    world.log.append([message("before")])
    for qos in (1, 2):
        world.delivery.changes.subscribe(placed(sub), [new(qos=qos)], _nothing)
        world.log.append([message(str(qos))])
    await world.settled()
    (stored,) = await world.disk.scan(SubscriptionDocument)
    assert (stored.qos, stored.start_offset) == (2, 1)
    assert payloads(sub.got) == [b"1", b"2"]
    assert [grant.qos for _, grant in sub.got] == [1, 2]


async def test_what_is_over_when_it_is_committed_stays_over(world: World) -> None:
    sub = Subscriber(world)
    await sub.open()
    world.log.append([message("before")])
    ordered = world.delivery.changes
    ordered.subscribe(placed(sub), [new()], _nothing)
    world.log.append([message("between")])
    ordered.unsubscribe(placed(sub), ["t"], _nothing)
    world.log.append([message("after")])
    await world.settled()
    await world.publish(message("later"))
    assert payloads(sub.got) == [b"between"]
    assert await world.disk.scan(SubscriptionDocument) == []


async def test_many_changes_take_effect_over_several_turns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many a commit has: nobody else's turn waits for all of them."""
    monkeypatch.setattr(changes, "CHANGED_PER_TURN", 10)
    sub = Subscriber(world)
    await sub.open(expiry_s=0)
    in_turn: list[int] = []
    turn = 0

    def in_effect(error: StoreError | None) -> None:
        in_turn.append(turn)

    world.disk.may_commit.clear()
    world.log.append([message("before", "f/7")])
    for n in range(50):
        world.delivery.changes.subscribe(placed(sub), [new(f"f/{n}")], in_effect)
    world.log.append([message("after", "f/7")])
    world.disk.may_commit.set()
    while len(in_turn) < 50:
        turn += 1
        await asyncio.sleep(0)
    assert max(in_turn.count(turn) for turn in in_turn) == 10
    await world.settled()
    assert payloads(sub.got) == [b"after"]


async def test_a_large_batch_is_routed_over_several_turns(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody else's turn waits for all of it. Changes take effect where they stand all the same."""
    for module in (changes, delivery):
        monkeypatch.setattr(module, "ROUTED_AT_ONCE_MAX", 10)
    sub = Subscriber(world, limit=1 << 30)
    await sub.open(receive_maximum=1000)
    world.delivery.subscribe(placed(sub), subscription("t"))
    world.disk.may_commit.clear()
    world.log.append([message(str(n)) for n in range(25)])
    world.delivery.changes.subscribe(placed(sub), [new("u")], _nothing)
    world.log.append([message(str(n), "u") for n in range(25, 50)])
    world.disk.may_commit.set()
    through = [world.delivery.live.through]
    while through[-1] < 50:
        await asyncio.sleep(0)
        through.append(world.delivery.live.through)
    assert max(after - before for before, after in pairwise(through)) == 15, "10, or 5 and 10"
    await world.settled()
    assert payloads(sub.got) == [b"%d" % n for n in range(50)]


async def test_what_was_handed_on_before_is_passed_over_in_larger_parts(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a flood of QoS 0 is routed more slowly than it is logged, and others wait behind it."""
    for module in (changes, delivery):
        monkeypatch.setattr(module, "ROUTED_AT_ONCE_MAX", 10)
    monkeypatch.setattr(changes, "PASSED_AT_ONCE_MAX", 100)
    sub = Subscriber(world)
    await sub.open()
    sub.subscribe(subscription("own"))
    await world.settled()
    world.disk.may_commit.clear()
    world.log.append([message(str(n), qos=0) for n in range(250)], durable=False)
    world.log.append([message("mine", "own")])
    world.disk.may_commit.set()
    through = [world.delivery.live.through]
    while through[-1] < 251:
        await asyncio.sleep(0)
        through.append(world.delivery.live.through)
    assert len({*through}) == 5, "100, 100, 50, and what was not handed on"
    await world.settled()
    assert payloads(sub.got) == [b"mine"]


async def test_a_place_where_no_message_is_does_not_stop_routing() -> None:
    async with running(Disk(), Config()) as world:
        sub = Subscriber(world)
        await sub.open()
        for n in range(3):
            world.log.append([message(str(n))])
        known = changes.Change(placed(sub), _nothing, place=Place(offset=Offset(2)))
        known.subscriptions["t"] = subscription(start=2)
        placed(sub).subscribe(subscription(start=2))
        world.delivery.changes.waiting.append(known)
        await world.settled()
        assert payloads(sub.got) == [b"2"]


def new(topic_filter: str = "t", qos: int = 1) -> SubscriptionDocument:
    """One that has no place yet, and does not ask for what is retained."""
    return replace(subscription(topic_filter, qos), start_offset=NOT_YET, retain_handling=2)


def _nothing(error: StoreError | None) -> None:
    assert error is None
