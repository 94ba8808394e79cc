"""WebSocketClient: a client that hides nothing, over WebSocket."""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from itertools import count
from typing import Any, Self

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5
from tests.support.raw_client import RawClient

TIMEOUT_S = 5.0
MQTT = Subprotocol("mqtt")
Cut = Callable[[bytes], Iterable[bytes | list[bytes]]]
"""How bytes become messages; a list is one message, a frame for each part."""


def opened(
    port: int, path: str = "/mqtt", **options: Any
) -> AbstractContextManager[ClientConnection]:
    how: dict[str, Any] = {"subprotocols": [MQTT], "open_timeout": TIMEOUT_S, "max_size": None}
    websocket: AbstractContextManager[ClientConnection] = connect(
        f"ws://127.0.0.1:{port}{path}", ping_interval=None, proxy=None, **(how | options)
    )
    return websocket


class WebSocketClient(RawClient):
    """A `RawClient` whose bytes go in binary frames, cut as `cut` says."""

    def __init__(self, port: int, cut: Cut, **options: Any) -> None:
        self.version = MQTT_5
        self._buffer = bytearray()
        self._packet_ids = count(1)
        self._cut = cut
        self._opened = opened(port, **({"close_timeout": 1} | options))

    def __enter__(self) -> Self:
        self.websocket = self._opened.__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        self._opened.__exit__(*error)

    def send(self, *packets: Any) -> None:
        parts = [p if isinstance(p, bytes) else encode(p, self.version) for p in packets]
        for message in self._cut(b"".join(parts)):
            self.websocket.send(message)

    def _recv(self) -> bytes:
        try:
            message = self.websocket.recv(TIMEOUT_S)
        except ConnectionClosed:
            return b""
        assert isinstance(message, bytes)
        return message


def one_frame(data: bytes) -> list[bytes]:
    return [data]


def frames_of(size: int) -> Cut:
    return lambda data: [data[at : at + size] for at in range(0, len(data), size)]


def one_message_of_frames_of(size: int) -> Cut:
    return lambda data: [[b"", *(data[at : at + size] for at in range(0, len(data), size)), b""]]


def handshake(port: int) -> bytes:
    key = base64.b64encode(os.urandom(16)).decode()
    lines = [
        "GET / HTTP/1.1",
        f"Host: 127.0.0.1:{port}",
        "Connection: Upgrade",
        "Upgrade: websocket",
        f"Sec-WebSocket-Key: {key}",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Protocol: mqtt",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
