"""What TcpConnection asks of the kernel, and how long it waits for a peer."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from broker.config import Config
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Ack, PacketType, Publish, Subscribe, SubscriptionRequest
from broker.net.tcp import FIRST_BYTE_TIMEOUT_S
from broker.server import Server
from tests.support.clock import FakeClock
from tests.support.raw_client import connect_packet


@pytest.mark.skipif(not hasattr(socket, "TCP_QUICKACK"), reason="only Linux has the option")
async def test_what_gets_no_answer_is_acknowledged_at_once_by_the_kernel(tmp_path: Path) -> None:
    """Or a client with Nagle's algorithm on waits 40 ms after each PUBACK that it sends."""
    server = Server(Config(port=0, data_dir=tmp_path))
    await server.start()
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        for packet in (
            connect_packet("client"),
            Subscribe(1, [SubscriptionRequest("topic", 1)]),
            Publish("topic", bytes(100), 1, False, False, 1),
        ):
            writer.write(encode(packet, MQTT_5))
        while not (await reader.read(1000)).endswith(bytes(100)):
            pass
        (connection,) = server._connections
        assert connection._transport is not None
        tcp = connection._transport.get_extra_info("socket")
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 0
        seen = server.counters.bytes_in
        writer.write(encode(Ack(PacketType.PUBACK, [1]), MQTT_5))
        async with asyncio.timeout(5):
            while server.counters.bytes_in == seen:  # noqa: ASYNC110  (it has no event)
                await asyncio.sleep(0)
        assert tcp.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1
    finally:
        writer.close()
        await server.stop()


async def test_who_says_nothing_is_cut_off(tmp_path: Path) -> None:
    clock = FakeClock()
    server = Server(Config(port=0, data_dir=tmp_path), clock=clock)
    await server.start()
    reader, writer = await asyncio.open_connection(*server.address)
    try:
        async with asyncio.timeout(5):
            while not server._connections:  # noqa: ASYNC110  (it has no event)
                await asyncio.sleep(0)
            clock.advance(FIRST_BYTE_TIMEOUT_S - 1)
            await asyncio.sleep(0)
            assert server._connections
            clock.advance(1)
            assert await reader.read() == b""
    finally:
        writer.close()
        await server.stop()
