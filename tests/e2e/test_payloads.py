"""Payloads of 1 B to 10 MiB, in both directions, over all that a client can come by."""

from __future__ import annotations

import random
import socket
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from broker.mqtt.packets import MQTT_5, Publish
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import TIMEOUT_S, RawClient, connect_packet
from tests.support.websocket_client import (
    WebSocketClient,
    frames_of,
    one_frame,
    one_message_of_frames_of,
)

MIB = 1024 * 1024
SIZES = [
    *(1, 2, *range(100, 130), *range(16_350, 16_390), *range(65_500, 65_540)),
    *(MIB, 2 * MIB, 10_000_000, 10 * MIB),
]
"""In the ranges the length of the packet, and of its frame, comes to need more bytes."""
LARGEST = 10 * MIB
WAITING_BYTES_MAX = 5 * LARGEST
"""What one subscriber may cost: its buffer, and one message on the way there."""


class UnixSocketClient(RawClient):
    def __init__(self, path: Path) -> None:
        self.version = MQTT_5
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(TIMEOUT_S)
        self.socket.connect(str(path))
        self._buffer = bytearray()
        self._packet_ids = count(1)


@pytest.fixture(scope="module")
def path() -> Iterator[Path]:
    """Short: the path of a Unix socket has at most 103 bytes."""
    with tempfile.TemporaryDirectory(prefix="pubsub-") as directory:
        yield Path(directory) / "mqtt.sock"


@pytest.fixture(scope="module")
def broker(path: Path) -> Iterator[BrokerProcess]:
    settings = {"packet_bytes_max": LARGEST + MIB, "unix_socket": str(path)}
    with BrokerProcess(path.parent, settings) as broker:
        yield broker
    assert broker.complaints() == []


Opened = Callable[[BrokerProcess, Path], RawClient]
TRANSPORTS: dict[str, Opened] = {
    "TCP": lambda broker, _: RawClient(broker.port),
    "Unix socket": lambda _, path: UnixSocketClient(path),
    "WebSocket": lambda broker, _: WebSocketClient(broker.port, one_frame),
    "WebSocket, frames of 1000 B": lambda broker, _: WebSocketClient(broker.port, frames_of(1000)),
    "WebSocket, fragments of 50,000 B": lambda broker, _: WebSocketClient(
        broker.port, one_message_of_frames_of(50_000)
    ),
}


@pytest.mark.parametrize("opened", TRANSPORTS.values(), ids=TRANSPORTS.keys())
def test_all_sizes_there_and_back(
    broker: BrokerProcess, path: Path, name: str, opened: Opened
) -> None:
    """In one write, so that a frame holds all of the packets, or a packet takes many frames."""
    payloads = [random.Random(size).randbytes(size) for size in SIZES]
    with opened(broker, path) as client:
        client.connect(connect_packet(name))
        client.subscribe(name, 0)
        client.publish_all(name, payloads, 0)
        for payload in payloads:
            assert client.expect(Publish).payload == payload


def test_who_reads_slowly_costs_no_more_than_a_message(tmp_path: Path, name: str) -> None:
    """Over WebSocket as over TCP: the rest waits in the log."""
    payloads = [bytes((number,)) * LARGEST for number in range(10)]
    with (
        BrokerProcess(tmp_path, {"packet_bytes_max": LARGEST + MIB}) as broker,
        RawClient(broker.port) as publisher,
        WebSocketClient(broker.port, one_frame, max_queue=1) as slow,
    ):
        publisher.connect(connect_packet(f"{name}-pub"))
        for payload in payloads:  # So that what they cost anyway is there before.
            publisher.publish_all("nobody", [payload])
        before = broker.resident_bytes()
        slow.connect(connect_packet(name))
        slow.subscribe(name, 0)
        for payload in payloads:
            publisher.publish_all(name, [payload])
            assert broker.resident_bytes() - before < WAITING_BYTES_MAX
        for payload in payloads:
            assert slow.expect(Publish).payload == payload
