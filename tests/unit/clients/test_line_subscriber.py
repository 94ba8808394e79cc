"""LineSubscriber: what the operating system took counts as acknowledged; the rest comes again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.mqtt.packets import MQTT_5
from broker.store import Read
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.lines import Lines
from tests.support.messages import message, numbered
from tests.support.world import (
    Disk,
    World,
    cursor,
    leave_in_flight,
    running,
)

# Delivery


async def test_a_message_counts_as_acknowledged_when_the_system_has_taken_it(
    world: World, subscribed: Lines
) -> None:
    await world.publish(message("1"))
    assert await subscribed.gets() == ["1"]
    assert await cursor(world) == 1
    real_write = subscribed.transport.write

    def fill(data: bytes) -> None:
        real_write(data)
        subscribed.client.writable(yes=False)

    subscribed.transport.write = fill  # type: ignore[method-assign]
    await world.publish(message("2"))
    await world.publish(message("3"))
    assert await subscribed.gets() == ["2"]
    assert await cursor(world) == 1
    subscribed.client.writable(yes=True)
    assert await subscribed.gets() == ["3"]
    assert await cursor(world) == 2
    subscribed.client.writable(yes=True)
    assert await cursor(world) == 3
    assert world.counters.messages_out == 3
    assert world.counters.payload_bytes_out == 3


async def test_qos_0_is_delivered_in_the_turn_in_which_it_came_and_once(
    world: World, subscribed: Lines
) -> None:
    """P9; the socket's buffer is full for the third."""
    world.disk.may_commit.clear()
    fire(world, "1", "2")
    assert subscribed.written() == ["1", "2"]
    subscribed.client.writable(yes=False)
    fire(world, "3")
    assert subscribed.written() == []
    subscribed.client.writable(yes=True)
    fire(world, "4")
    assert subscribed.written() == ["3", "4"]
    world.disk.may_commit.set()
    assert await subscribed.gets() == []
    assert await cursor(world) == 4


async def test_qos_0_that_a_line_subscriber_had_does_not_come_to_its_next_connection(
    world: World, subscribed: Lines
) -> None:
    """P9: gone and back before the commit."""
    world.disk.may_commit.clear()
    fire(world, "1")
    assert subscribed.written() == ["1"]
    subscribed.client.lost()
    fire(world, "2")
    again = Lines(world, confirm=False)
    again.says("SUBSCRIBE t sub1")
    world.disk.may_commit.set()
    assert await again.gets() == ["2"]


def fire(world: World, *payloads: str) -> None:
    world.log.append([message(payload, qos=0) for payload in payloads], durable=False)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_every_qos_is_finished_when_the_system_has_taken_it(
    qos: int, world: World, lines: Lines
) -> None:
    """Also of a subscription that the subscriber made by MQTT."""
    earlier = Dialogue(world)
    await earlier.connect("sub1", version=MQTT_5, expiry_s=100)
    await earlier.subscribe("t", 2)
    lines.says("SUBSCRIBE u sub1")
    await world.settled()
    await world.publish(message("1", qos=qos))
    assert await lines.gets() == ["OK", "1"]
    assert await cursor(world) == 1
    assert len(world.sessions.in_memory["sub1"].in_flight) == 0


async def test_several_subscribers_share_a_connection(world: World, lines: Lines) -> None:
    lines.says("SUBSCRIBE t sub1", "SUBSCRIBE t sub2", "SUBSCRIBE u sub2")
    await world.settled()
    await world.publish(message("1"), message("2", "u"))
    assert await lines.gets() == ["OK", "OK", "OK", "1", "1", "2"]
    assert (await cursor(world, "sub1"), await cursor(world, "sub2")) == (2, 2)


async def test_what_expired_before_it_was_delivered_is_counted(
    world: World, subscribed: Lines
) -> None:
    """P5"""
    await world.publish(message("1", expires_at_us=1), message("2"))
    assert await subscribed.gets() == ["2"]
    assert world.counters.dropped == {"expired": 1}


async def test_who_reads_slowly_gets_the_rest_from_the_log() -> None:
    """Whoever reads for it hears that there is room again."""
    config = replace(NOTHING_TO_TELL, outbox_messages_max=2)
    async with running(Disk(), config) as world:
        lines = Lines(world, config)
        lines.says("SUBSCRIBE t sub1")
        await world.settled()
        lines.client.writable(yes=False)
        for n in range(1, 7):
            await world.publish(*numbered(1, first=n))
        lines.client.writable(yes=True)
        assert await lines.gets() == ["OK", "1", "2", "3", "4", "5", "6"]


# Delivered again


async def test_what_an_earlier_connection_left_comes_before_what_is_new(
    world: World, lines: Lines
) -> None:
    """P3, P4"""
    await leave_in_flight(world, message("1"), message("22", qos=2), qos=2)
    await world.publish(message("3"))
    lines.client.writable(yes=False)
    lines.says("SUBSCRIBE t sub1")
    assert await lines.gets() == ["OK"]
    assert not any(world.disk.fetched)
    lines.client.writable(yes=True)
    assert await lines.gets() == ["1", "22", "3"]
    assert await cursor(world) == 3
    counters = world.counters
    assert (counters.redeliveries, counters.messages_out, counters.payload_bytes_out) == (2, 3, 4)


async def test_what_retention_removed_before_it_was_delivered_again_is_counted(
    world: World, lines: Lines
) -> None:
    """P5"""
    await leave_in_flight(world, *numbered(3))
    await world.disk.trim(Offset(3))
    lines.says("SUBSCRIBE t sub1")
    await world.settled()
    await world.publish(message("4"))
    assert await lines.gets() == ["OK", "3", "4"]
    assert world.counters.dropped == {"removed by retention": 2}
    assert await cursor(world) == 4


async def test_who_loses_its_subscriber_delivers_nothing_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await leave_in_flight(world, *numbered(2))
    may_fetch, fetch = asyncio.Event(), world.disk.fetch

    async def held_up(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
        await may_fetch.wait()
        return await fetch(offsets, bytes_max=bytes_max)

    monkeypatch.setattr(world.disk, "fetch", held_up)
    first, second = Lines(world), Lines(world)
    for lines in (first, second):
        lines.says("SUBSCRIBE t sub1")
        assert await lines.gets() == ["OK"]
    may_fetch.set()
    assert (await first.gets(), await second.gets()) == ([], ["1", "2"])


async def test_what_cannot_be_delivered_again_ends_the_connection(
    world: World,
    lines: Lines,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A subscriber that gets nothing more, and is not told, would wait for ever."""
    await leave_in_flight(world, *numbered(2))

    async def damaged(offsets: Sequence[Offset], *, bytes_max: int) -> Read:
        if offsets:
            raise StoreCorrupt("checksum")
        return Read([], Offset(1))

    monkeypatch.setattr(world.disk, "fetch", damaged)
    lines.says("SUBSCRIBE t sub1")
    await world.settled()
    assert lines.transport.closed.is_set()
    assert caplog.messages == ["subscriber 'sub1': checksum"]
    assert world.sessions.connected_count == 0


async def test_what_is_retained_comes_in_its_place_after_what_was_missed(
    world: World, subscribed: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """[MQTT-4.6.0-6]"""
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 7)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 0)
    subscribed.client.lost()
    await world.publish(*[message(str(n), retain=True) for n in range(1, 31)])
    back = Lines(world)
    back.says("SUBSCRIBE t sub1", "SUBSCRIBE + sub1")
    got = await back.gets()
    assert [line for line in got if line != "OK"] == [str(n) for n in (*range(1, 31), 30)]


async def test_what_a_mistake_left_half_taken_comes_again(
    world: World, subscribed: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P3: what the log has of a session counts, not what memory has."""
    session = world.sessions.in_memory["sub1"]
    take = session.in_flight.take

    def half(*args: Any, **kwargs: Any) -> None:
        session.in_flight.finish(take(*args, **kwargs).packet_ids)
        raise ZeroDivisionError

    monkeypatch.setattr(session.in_flight, "take", half)
    await world.publish(*numbered(2))
    assert subscribed.transport.aborted
    back = Lines(world)
    back.says("SUBSCRIBE t sub1")
    assert sorted(await back.gets()) == ["1", "2", "OK"]
