"""MQTT through a WebSocket: the frames around the bytes; the protocol is that of `websockets`."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidHandshake
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.uri import parse_uri

from cli.net.address import Address

READ_BYTES = 64 * 1024


class WebSocketFraming:
    """`received` takes what came from the network, `framed` makes what goes there."""

    def __init__(self, address: Address) -> None:
        assert address.websocket is not None
        scheme = "ws" if address.tls is None else "wss"
        self._protocol = ClientProtocol(
            parse_uri(f"{scheme}://{address}{address.websocket}"),
            subprotocols=["mqtt"],  # type: ignore[list-item]  # its NewType for str
            max_size=None,
        )

    def shake_hands(self, connected: socket.socket) -> bytes:
        """Blocking; the MQTT bytes that came along. Raises OSError: it is no WebSocket of MQTT."""
        protocol = self._protocol
        protocol.send_request(protocol.connect())
        connected.sendall(b"".join(protocol.data_to_send()))
        while True:
            received = connected.recv(READ_BYTES)
            if received:
                protocol.receive_data(received)
            else:
                protocol.receive_eof()
            if protocol.handshake_exc is not None:
                raise ConnectionAbortedError(_refused(protocol.handshake_exc))
            events = protocol.events_received()
            if events and isinstance(events[0], Response):
                if protocol.subprotocol != "mqtt":
                    raise ConnectionAbortedError("its WebSocket does not speak MQTT")
                return _payload(events[1:])
            if not received:
                raise ConnectionAbortedError("it closed the connection")

    def received(self, burst: bytes | bytearray) -> bytes:
        """Nothing, where they are no frames: then it is closed."""
        self._protocol.receive_data(bytes(burst))
        return _payload(self._protocol.events_received())

    def framed(self, data: bytes | bytearray) -> bytes:
        self._protocol.send_binary(bytes(data))
        return self.answers()

    def answers(self) -> bytes:
        """To pings, and to an end."""
        return b"".join(self._protocol.data_to_send())


def _payload(events: Sequence[object]) -> bytes:
    """Of frames with data: where one ends means nothing to MQTT. [MQTT-6.0.0-2]"""
    kinds = (Opcode.BINARY, Opcode.CONT)
    return b"".join(
        bytes(event.data) for event in events if isinstance(event, Frame) and event.opcode in kinds
    )


def _refused(error: Exception) -> str:
    said = str(error) if isinstance(error, InvalidHandshake) else "it sends no HTTP"
    return f"no WebSocket: {said}"
