"""Client: what becomes of it when what it needs cannot be had."""

from __future__ import annotations

import asyncio

import pytest

from broker.clients.client import Client
from broker.config import Config
from broker.documents import SubscriptionDocument
from broker.errors import QuotaExceeded, StoreError, StoreFull, StoreUnavailable
from broker.message import Monotonic, Offset
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Connect
from tests.support.clients import Transport, services
from tests.support.groups import GROUP, member
from tests.support.raw_client import connect_packet
from tests.support.world import Disk, Subscriber, message, running, subscription

NOW = Monotonic(0.0)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (QuotaExceeded("too many sessions"), 0x97),
        (StoreFull("no space"), 0x97),
        (StoreUnavailable("busy"), 0x80),
    ],
)
async def test_who_cannot_have_its_share_is_told_so_and_keeps_its_session(
    error: QuotaExceeded | StoreError,
    code: int,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Or it would stay, believing to be a member, and get nothing."""
    async with running(Disk()) as world:
        left = await member(world, "worker", expiry_s=100)
        left.close()
        await world.settled()

        async def refused(*_: object) -> None:
            raise error

        monkeypatch.setattr(world.groups, "join", refused)
        transport = Transport()
        client = Client(services(world, Config()), transport, "here", NOW)
        client.receive(encode(connect_packet("worker", durable=True), MQTT_5), NOW)
        await asyncio.wait_for(transport.closed.wait(), 5)
        await world.settled()
        connack, disconnect = packets_of(transport.written)
        assert (connack[0], connack[2:4]) == (0x20, b"\x01\x00")
        assert (disconnect[0], disconnect[2]) == (0xE0, code)
        assert caplog.messages == [f"client 'worker' refused: {error}"]
        assert (world.sessions.connected_count, world.counters.refused_connects) == (0, 1)
        assert await world.disk.get(SubscriptionDocument, ("worker", GROUP)) is not None


async def test_what_is_sent_again_is_read_in_parts_that_are_bounded_in_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """P7: or who comes back costs a window of messages as large as packets, all at once."""
    monkeypatch.setattr("broker.clients.client.TAKE_BYTES_MAX", 100)
    async with running(Disk()) as world:
        earlier = Subscriber(world)
        await earlier.open()
        earlier.subscribe(subscription())
        reason = b"\x26\x00\x01r\x00\x2d" + b"x" * 45
        await world.publish(*[message(str(n), properties=reason) for n in range(1, 7)])
        assert len(earlier.got) == 6
        earlier.close()
        await world.disk.trim(Offset(2))
        transport = Transport()
        client = Client(services(world, Config()), transport, "here", NOW)
        client.receive(
            encode(Connect(MQTT_5, "sub1", False, 60, session_expiry_s=3600), MQTT_5), NOW
        )
        await world.settled()
        _, *publishes = packets_of(transport.written)
        assert [packet[-1:] for packet in publishes] == [b"2", b"3", b"4", b"5", b"6"]
        assert [len(part) for part in world.disk.fetched] == [2, 2, 1]
        assert world.counters.dropped == {"removed by retention": 1}


def packets_of(written: bytes) -> list[bytes]:
    """The packets, all of them short."""
    packets = []
    while written:
        end = 2 + written[1]
        packets.append(written[:end])
        written = written[end:]
    return packets
