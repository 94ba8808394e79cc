"""The frames around MQTT, against the server's side of the same library."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from contextlib import closing

import pytest
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol

from cli.net.address import Address
from cli.net.websocket import WebSocketFraming

ADDRESS = Address(host="127.0.0.1", port=1, websocket="/mqtt")


class Server:
    """Of one connection; `subprotocol` is what it speaks."""

    def __init__(self, connected: socket.socket, subprotocol: str = "mqtt") -> None:
        self.protocol = ServerProtocol(subprotocols=[subprotocol])  # type: ignore[list-item]  # its NewType
        self._socket = connected

    def accept(self, *sent: bytes) -> Request:
        """And at once send these, each a frame."""
        self.protocol.receive_data(self._socket.recv(65_536))
        (request,) = self.protocol.events_received()
        assert isinstance(request, Request)
        self.protocol.send_response(self.protocol.accept(request))
        for data in sent:
            self.protocol.send_binary(data)
        self.flush()
        return request

    def flush(self) -> None:
        self._socket.sendall(b"".join(self.protocol.data_to_send()))


def shake_hands(play: Callable[[socket.socket], None]) -> tuple[WebSocketFraming, bytes]:
    """With a server that does this, and then closes."""
    ours, theirs = socket.socketpair()
    ours.settimeout(5)
    framing = WebSocketFraming(ADDRESS)

    def serve() -> None:
        with theirs:
            play(theirs)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with closing(ours):
            return framing, framing.shake_hands(ours)
    finally:
        thread.join()


def test_it_asks_for_mqtt_and_what_comes_with_the_answer_is_not_lost() -> None:
    requests: list[Request] = []
    _, received = shake_hands(lambda s: requests.append(Server(s).accept(b"ab", b"c")))
    assert received == b"abc"
    assert requests[0].path == "/mqtt"
    assert requests[0].headers["Sec-WebSocket-Protocol"] == "mqtt"


def test_frames_are_taken_off_whatever_their_edges_and_pings_are_answered() -> None:
    servers: list[Server] = []

    def play(connected: socket.socket) -> None:
        servers.append(Server(connected))
        servers[0].accept()

    framing, _ = shake_hands(play)
    protocol = servers[0].protocol
    protocol.send_binary(b"ab", fin=False)
    protocol.send_ping(b"?")
    protocol.send_continuation(b"cd", fin=True)
    stream = b"".join(protocol.data_to_send())
    assert b"".join(framing.received(stream[n : n + 1]) for n in range(len(stream))) == b"abcd"
    protocol.receive_data(framing.answers())
    protocol.receive_data(framing.framed(bytearray(b"xyz")))
    pong, binary = protocol.events_received()
    assert isinstance(pong, Frame)
    assert isinstance(binary, Frame)
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"?")
    assert (binary.opcode, binary.data) == (Opcode.BINARY, b"xyz")


@pytest.mark.parametrize(
    ("play", "says"),
    [
        (lambda s: s.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"), "HTTP 404"),
        (lambda s: s.sendall(b"\x20\x02\x00\x00"), "no WebSocket"),
        (lambda s: None, "no WebSocket|closed"),
        (lambda s: Server(s, "chat").accept(), "HTTP 400"),
    ],
)
def test_what_is_no_websocket_of_mqtt_is_told(
    play: Callable[[socket.socket], None], says: str
) -> None:
    def read_then(connected: socket.socket) -> None:
        play(connected)
        connected.shutdown(socket.SHUT_WR)
        while connected.recv(1000):
            pass

    with pytest.raises(ConnectionAbortedError, match=says):
        shake_hands(read_then)
