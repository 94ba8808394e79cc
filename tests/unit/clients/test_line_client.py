"""LineClient: what is delivered again, and what is given up is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broker.clients.line_client import LineClient
from broker.config import Config
from broker.message import Message, Monotonic, Offset
from tests.support.clients import Transport, services
from tests.support.world import Disk, Subscriber, World, message, running, subscription

NOW = Monotonic(0.0)


async def subscribed(world: World, *, full: bool = False) -> tuple[LineClient, Transport]:
    """A connection with subscriber `sub1`; `full`: the operating system takes nothing."""
    transport = Transport()
    client = LineClient(services(world, Config()), transport, "here", NOW)
    client.writable(yes=not full)
    client.receive(b"SUBSCRIBE t sub1\n", NOW)
    async with asyncio.timeout(5):
        while b"OK" not in transport.written:
            await world.settled()
    return client, transport


async def left_in_flight(world: World, count: int) -> None:
    """An earlier connection took so many messages of 100 bytes, and acknowledged none."""
    earlier = Subscriber(world)
    await earlier.open()
    earlier.subscribe(subscription())
    await world.publish(*[message(str(n), properties=bytes(99)) for n in range(1, count + 1)])
    assert len(earlier.got) == count
    earlier.close()
    await world.settled()


def delivered(transport: Transport) -> list[int]:
    lines = transport.written.decode().splitlines()
    return [int(line.split(" ")[2]) for line in lines if line.startswith("DELIVER")]


async def test_what_expired_before_it_was_delivered_is_counted() -> None:
    """P5"""
    async with running(Disk()) as world:
        _, transport = await subscribed(world)
        await world.publish(message("1", expires_at_us=1), message("2"))
        assert delivered(transport) == [2]
        assert world.counters.dropped == {"expired": 1}


async def test_what_retention_removed_before_it_was_delivered_again_is_counted() -> None:
    """P5"""
    async with running(Disk()) as world:
        await left_in_flight(world, 3)
        await world.disk.trim(Offset(3))
        _, transport = await subscribed(world)
        await world.publish(message("4"))
        assert delivered(transport) == [3, 4]
        assert world.counters.dropped == {"removed by retention": 2}
        assert (world.counters.redeliveries, world.counters.messages_out) == (1, 2)
        assert world.counters.payload_bytes_out == 2


async def test_what_is_delivered_again_is_read_in_parts_and_before_what_is_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P7: what an earlier connection left may be a window of messages as large as packets."""
    monkeypatch.setattr("broker.delivery.sender.TAKE_BYTES_MAX", 200)
    async with running(Disk()) as world:
        await left_in_flight(world, 5)
        client, transport = await subscribed(world, full=True)
        await world.publish(message("6"))
        assert (delivered(transport), world.disk.fetched) == ([], [])
        client.writable(yes=True)
        await world.settled()
        assert delivered(transport) == [1, 2, 3, 4, 5, 6]
        assert [len(part) for part in world.disk.fetched] == [2, 2, 1]
        assert world.counters.dropped == {}


async def test_who_loses_its_subscriber_delivers_nothing_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with running(Disk()) as world:
        await left_in_flight(world, 2)
        may_fetch, fetch = asyncio.Event(), world.disk.fetch

        async def held_up(offsets: Sequence[Offset], *, bytes_max: int) -> list[Message]:
            await may_fetch.wait()
            return await fetch(offsets, bytes_max=bytes_max)

        monkeypatch.setattr(world.disk, "fetch", held_up)
        _, first = await subscribed(world)
        _, second = await subscribed(world)
        may_fetch.set()
        await world.settled()
        assert (delivered(first), delivered(second)) == ([], [1, 2])
