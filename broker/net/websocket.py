"""WebSocket: MQTT in binary frames, for browsers and networks that only let HTTP through.
[MQTT-6.0.0-1..4]

Stands between a `TcpConnection` and the `Client`: a `NetworkClient` to the former, a `Transport` to
the latter. The `websockets` library does the handshake, the control frames, the closing and the
sending; `FrameReader` reads the data frames. This module decides:

- A packet may be spread over frames and a frame may hold many packets. The bytes that the frames of
  one read carry are handed on as if they had come over TCP. [MQTT-6.0.0-2] So no frame is kept, and
  a frame may have any size: `packet_bytes_max` bounds the packets in them.
- If one read brings several pings, only the last is answered, as RFC 6455 (5.5.3) permits.
- permessage-deflate is not negotiated: small packets gain little by it, its window costs hundreds
  of KiB a connection, and a small frame could inflate to any size.
- A browser lets every page of the web connect to this machine and only tells us the page's Origin.
  Without a password that is the only guard, so pages are let in from this machine or by
  `websocket_origins`; programs send no Origin. The Host is no proof: DNS may name us anything.
- HTTP request and MQTT CONNECT together have `connect_timeout_s`.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from http import HTTPStatus
from typing import Protocol

from websockets.exceptions import InvalidMessage, NegotiationError
from websockets.frames import CloseCode
from websockets.http11 import Request
from websockets.protocol import SEND_EOF, State
from websockets.server import ServerProtocol
from websockets.typing import Origin, Subprotocol

from broker.clients.client import Client
from broker.clients.faces import Peer, Transport
from broker.clients.services import Services
from broker.errors import PeerError
from broker.message import Monotonic
from broker.net.frames import CLOSE, PING, FrameReader, Refused

logger = logging.getLogger(__name__)
library_logger = logger.getChild("library")
library_logger.setLevel(logging.WARNING)
"""Below that it would log payloads."""

REQUEST_END = b"\r\n\r\n"
SUBPROTOCOL = Subprotocol("mqtt")
PATHS = ("/", "/mqtt")
ANY_ORIGIN = "*"
LOOPBACK_ORIGIN = re.compile(r"https?://(localhost|127(\.\d{1,3}){3}|\[::1\])(:\d+)?")


class Socket(Transport, Protocol):
    """The connection below, as a WebSocket needs it."""

    def end_output(self) -> None:
        """Send what was written, then the end; close when the peer has ended too, or in time."""
        ...


class WebSocket:
    """One connection: towards the rim a `NetworkClient`, towards its client the `Transport`."""

    def __init__(self, services: Services, socket: Socket, peer: Peer, now: Monotonic) -> None:
        config = services.config
        self._services = services
        self._socket = socket
        self._peer = peer
        self._met_at = now
        self._protocol = ServerProtocol(
            origins=_origins(config.websocket_origins),
            subprotocols=[SUBPROTOCOL],
            select_subprotocol=_select_subprotocol,
            logger=library_logger,
        )
        self._request_bytes = 0
        """What is kept of the HTTP request until it is whole."""
        self._request_tail = b""
        """The last bytes of the HTTP request so far: its end may begin in them."""
        self._frames = FrameReader()
        self._client: Client | None = None
        """None until the HTTP request is accepted."""
        self._ended = False
        """Our last frame is written, and the end of output after it."""

    # The rim calls

    def receive(self, data: bytes, now: Monotonic) -> int:
        if self._ended:
            return 0
        if self._client is None:
            data = self._receive_request(data)
        if self._client is not None:
            self._receive_frames(self._client, data, now)
        self._flush()
        return self.kept_bytes

    @property
    def kept_bytes(self) -> int:
        return self._request_bytes if self._client is None else self._client.kept_bytes

    def _receive_request(self, data: bytes) -> bytes:
        """The bytes after the HTTP request, once the request is whole and accepted."""
        protocol = self._protocol
        searched = self._request_tail + data
        end = searched.find(REQUEST_END)
        size = len(data) if end < 0 else end + len(REQUEST_END) - len(self._request_tail)
        self._request_tail = searched[1 - len(REQUEST_END) :]
        self._request_bytes += size
        protocol.receive_data(data[:size])
        for event in protocol.events_received():
            assert isinstance(event, Request)
            self._accept(event)
        if isinstance(protocol.handshake_exc, InvalidMessage):
            # Here the library would say nothing.
            why = protocol.handshake_exc.__cause__
            response = protocol.reject(HTTPStatus.BAD_REQUEST, f"Not a valid HTTP request: {why}\n")
            self._socket.write(response.serialize())
        return data[size:]

    def _receive_frames(self, client: Client, data: bytes, now: Monotonic) -> None:
        protocol, frames = self._protocol, self._frames
        payloads: list[bytes] = []
        last_ping = None
        frames.feed(data)
        while (frame := frames.next(payloads)) is not None:
            if isinstance(frame, Refused) or frame[0] & 0x0F == CLOSE:
                break
            if frame[0] & 0x0F == PING:
                last_ping = frame
        if last_ping is not None:
            protocol.receive_data(last_ping)
        if packets := b"".join(payloads):
            client.receive(packets, now)
        if isinstance(frame, Refused):
            logger.info("%s: %s", self._peer.address, frame.reason)
            protocol.fail(frame.code, frame.reason)
        elif frame is not None:
            protocol.receive_data(frame)
        protocol.events_received()

    def deadline(self) -> Monotonic | None:
        if self._ended:
            return None
        if self._client is None:
            return Monotonic(self._met_at + self._services.config.connect_timeout_s)
        return self._client.deadline()

    def expire(self, now: Monotonic) -> None:
        if self._ended:
            return
        if self._client is None:
            logger.info("%s: no whole HTTP request in time", self._peer.address)
            self._socket.close()
        else:
            self._client.expire(now)

    def writable(self, *, yes: bool) -> None:
        if self._client is not None:
            self._client.writable(yes=yes)

    def end_of_input(self) -> bool:
        return self._client is not None and self._client.end_of_input()

    def lost(self) -> None:
        if self._client is not None:
            self._client.lost()
            self._client = None

    def shut_down(self) -> None:
        """The broker stops: it waits for no answer."""
        if self._client is not None:
            self._client.shut_down()
        self._socket.close()

    def dismiss(self, error: PeerError) -> None:
        if self._client is not None:
            self._client.dismiss(error)
        else:
            self.abort()

    def evict(self, reason: str) -> None:
        if self._client is not None:
            self._client.evict(reason)
        else:
            self.abort()

    def failed(self, error: Exception) -> None:
        if self._client is not None:
            self._client.failed(error)
        else:
            logger.critical("%s: WebSocket cut off", self._peer.address, exc_info=error)
            self.abort()

    def _accept(self, request: Request) -> None:
        """Answer the HTTP request. [MQTT-6.0.0-3, 4]"""
        protocol = self._protocol
        if request.path.partition("?")[0] in PATHS:
            response = protocol.accept(request)
        else:
            where = " or ".join(PATHS)
            response = protocol.reject(HTTPStatus.NOT_FOUND, f"MQTT over WebSocket is at {where}\n")
        protocol.send_response(response)
        if protocol.state is not State.OPEN:
            reason = protocol.handshake_exc or request.path.partition("?")[0]
            logger.info(
                "%s: WebSocket refused (%d): %s", self._peer.address, response.status_code, reason
            )
            return
        # As if it had come with the first byte, so that both handshakes share the timeout.
        self._client = Client(self._services, self, self._peer, self._met_at)

    def _flush(self) -> None:
        """Write what the library wants written; its last word may be that nothing follows."""
        writes = self._protocol.data_to_send()
        if data := b"".join(writes):
            self._socket.write(data)
        if writes and writes[-1] == SEND_EOF:
            self._end()

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if self._client is not None:
            self._client.lost()
        self._socket.end_output()

    # Transport

    def write(self, data: bytes) -> None:
        if self._protocol.state is State.OPEN:
            self._protocol.send_binary(data)
            self._flush()

    def close(self) -> None:
        """Close frame, then the end of output: what the peer still sends is read and ignored."""
        if self._protocol.state is State.OPEN:
            self._protocol.send_close(CloseCode.NORMAL_CLOSURE)
        self._flush()
        self._end()

    def abort(self) -> None:
        self._ended = True
        self._socket.abort()

    def pause_reading(self, reason: str) -> None:
        self._socket.pause_reading(reason)

    def resume_reading(self, reason: str) -> None:
        self._socket.resume_reading(reason)

    def has_left(self) -> bool:
        return self._socket.has_left()

    def deadline_moved(self) -> None:
        self._socket.deadline_moved()


def _origins(allowed: Sequence[str]) -> Sequence[Origin | re.Pattern[str] | None] | None:
    """As the library wants them: None for all, None among them for a request without Origin."""
    if ANY_ORIGIN in allowed:
        return None
    return [None, LOOPBACK_ORIGIN, *map(Origin, allowed)]


def _select_subprotocol(_: ServerProtocol, offered: Sequence[Subprotocol]) -> Subprotocol:
    if SUBPROTOCOL not in offered:
        raise NegotiationError('Sec-WebSocket-Protocol must offer "mqtt"')
    return SUBPROTOCOL
