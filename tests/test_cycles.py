"""What a connection leaves behind when it ends: nothing that only the cycle collector would find.

It comes so seldom that the memory of hostile clients would be kept for good.
"""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

import pytest

from broker.config import Config
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Publish, Subscribe, SubscriptionRequest
from broker.net.first_bytes import HTTP_GET
from broker.server.server import Server
from tests.support.raw_client import connect_packet
from tests.support.websocket_client import handshake

CONNECT = encode(connect_packet("a"), MQTT_5)


def ours_among(garbage: list[object]) -> set[str]:
    return {type(each).__name__ for each in garbage if type(each).__module__.startswith("broker")}


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(CONNECT, id="client"),
        pytest.param(CONNECT[:5], id="half a CONNECT"),
        pytest.param(CONNECT + b"\x32\x80\x80\x08" + bytes(1000), id="half a PUBLISH"),
        pytest.param(CONNECT + b"\xe0\x00", id="DISCONNECT"),
        pytest.param(
            encode(connect_packet("d", durable=True), MQTT_5)
            + encode(Subscribe(1, [SubscriptionRequest("t", 2)]), MQTT_5)
            + encode(Publish("t", b"", 2, False, False, 1), MQTT_5),
            id="subscriber with a message in flight",
        ),
        pytest.param(
            CONNECT
            + encode(Subscribe(1, [SubscriptionRequest("$share/g/t", 1)]), MQTT_5)
            + encode(Publish("t", b"", 1, False, False, 1), MQTT_5),
            id="member",
        ),
        pytest.param(b"SUBSCRIBE t s\nPUBLISH t x p\n", id="lines"),
        pytest.param(b"PUBLISH t x", id="half a line"),
        pytest.param(HTTP_GET + b"/mqtt HTTP/1.1\r\n", id="half a request"),
        pytest.param(handshake(9000), id="WebSocket"),
    ],
)
async def test_a_connection_that_is_gone_leaves_nothing_to_the_collector(
    tmp_path: Path, sent: bytes
) -> None:
    server = Server(Config(port=0, data_dir=tmp_path))
    await server.start()
    before = asyncio.all_tasks()
    gc.collect()
    gc.disable()
    try:
        for _ in range(2):
            _, writer = await asyncio.open_connection(*server.address)
            writer.write(sent)
            await asyncio.sleep(0)
            async with asyncio.timeout(5):
                while not any(each.client for each in server._connections):  # noqa: ASYNC110
                    await asyncio.sleep(0)
            await server._log.flushed()
            writer.close()
            async with asyncio.timeout(5):
                while server._connections or asyncio.all_tasks() > before:  # noqa: ASYNC110
                    await asyncio.sleep(0)
        await server._log.flushed()
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert ours_among(gc.garbage) == set()
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
        await server.stop()
