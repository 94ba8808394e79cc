"""WebSocket between a socket and a client; a library plays the browser, without I/O."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import pytest
from websockets.client import ClientProtocol
from websockets.frames import CloseCode, Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Origin, Subprotocol
from websockets.uri import parse_uri

from broker.config import Config
from broker.message import Monotonic
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Pingreq, Subscribe, SubscriptionRequest
from broker.net.websocket import WebSocket
from tests.support.clients import HERE, Transport, services
from tests.support.messages import message
from tests.support.raw_client import connect_packet
from tests.support.world import World

MET_AT = Monotonic(100.0)
MUCH_LATER = Monotonic(1100.0)
CONNECT = encode(connect_packet("client"), MQTT_5)
PINGRESP = bytes.fromhex("D0 00")


class Socket(Transport):
    """Keeps what was asked of the connection below."""

    def __init__(self) -> None:
        super().__init__()
        self.output_ended = False
        self.asked: list[str] = []

    def end_output(self) -> None:
        self.output_ended = True

    def pause_reading(self, reason: str) -> None:
        self.asked.append(f"pause: {reason}")

    def resume_reading(self, reason: str) -> None:
        self.asked.append(f"resume: {reason}")

    def deadline_moved(self) -> None:
        self.asked.append("deadline")


class Browser:
    """The other side of one connection."""

    def __init__(
        self,
        world: World,
        config: Config,
        *,
        path: str = "/mqtt",
        origin: str | None = None,
        subprotocol: str = "mqtt",
    ) -> None:
        self.socket = Socket()
        self.websocket = WebSocket(services(world, config), self.socket, HERE, MET_AT)
        self.protocol = ClientProtocol(
            parse_uri(f"ws://localhost{path}"),
            origin=None if origin is None else Origin(origin),
            subprotocols=[Subprotocol(subprotocol)],
        )
        self.protocol.send_request(self.protocol.connect())
        self.request = b"".join(self.protocol.data_to_send())

    def send(self, data: bytes) -> None:
        self.websocket.receive(data, Monotonic(MET_AT + 1))

    def send_frames(self, *payloads: bytes) -> None:
        for payload in payloads:
            self.protocol.send_binary(payload)
        self.send(b"".join(self.protocol.data_to_send()))

    def received(self) -> list[Frame]:
        """What came since the last time, after the answer to the request."""
        self.protocol.receive_data(self.socket.written)
        self.socket.written = b""
        return [event for event in self.protocol.events_received() if isinstance(event, Frame)]

    def told_to_close(self) -> int:
        """The code of the Close frame that came."""
        assert self.protocol.close_rcvd is not None
        return self.protocol.close_rcvd.code

    def response(self) -> Response:
        self.protocol.receive_data(self.socket.written)
        self.socket.written = b""
        response, *_ = self.protocol.events_received()
        assert isinstance(response, Response)
        return response


@pytest.fixture
def browser(world: World) -> Browser:
    """Its request is accepted."""
    browser = Browser(world, Config())
    browser.send(browser.request)
    assert browser.response().status_code == 101
    return browser


@pytest.fixture
async def connected(world: World, browser: Browser) -> Browser:
    """Its CONNECT is accepted too."""
    browser.send_frames(CONNECT)
    await world.settled()
    (connack,) = browser.received()
    assert (connack.opcode, connack.data[:1]) == (Opcode.BINARY, b"\x20")
    browser.socket.asked.clear()
    return browser


# The HTTP request


@pytest.mark.parametrize("path", ["/", "/mqtt", "/mqtt?token=1"])
def test_it_is_accepted_as_mqtt_and_never_compressed(world: World, path: str) -> None:
    """[MQTT-6.0.0-3, 4]"""
    browser = Browser(world, Config(), path=path)
    browser.send(browser.request)
    response = browser.response()
    assert response.status_code == 101
    assert response.headers["Sec-WebSocket-Protocol"] == "mqtt"
    assert "Sec-WebSocket-Extensions" not in response.headers
    assert not browser.socket.output_ended


@pytest.mark.parametrize(
    ("path", "origin", "subprotocol", "status"),
    [
        ("/other", None, "mqtt", 404),
        ("/mqttx", None, "mqtt", 404),
        ("/", None, "amqp", 400),
        ("/", "https://elsewhere.example", "mqtt", 403),
        ("/", "http://localhost.example", "mqtt", 403),
        ("/", "http://127.0.0.1.example", "mqtt", 403),
    ],
)
def test_it_is_refused_in_http_and_that_is_the_end(
    world: World, path: str, origin: str | None, subprotocol: str, status: int
) -> None:
    browser = Browser(world, Config(), path=path, origin=origin, subprotocol=subprotocol)
    browser.send(browser.request)
    assert browser.response().status_code == status
    assert browser.socket.output_ended
    assert browser.websocket.deadline() is None
    browser.send(browser.request)
    browser.websocket.expire(MUCH_LATER)
    assert (browser.socket.written, browser.socket.closed.is_set()) == (b"", False)


@pytest.mark.parametrize(
    "origin", ["http://localhost:8080", "https://127.0.0.1", "http://[::1]:1", "https://a.example"]
)
def test_pages_of_this_machine_and_those_that_were_named_are_let_in(
    world: World, origin: str
) -> None:
    browser = Browser(world, Config(websocket_origins=("https://a.example",)), origin=origin)
    browser.send(browser.request)
    assert browser.response().status_code == 101


def test_every_page_is_let_in_where_that_was_said(world: World) -> None:
    browser = Browser(world, Config(websocket_origins=("*",)), origin="https://elsewhere.example")
    browser.send(browser.request)
    assert browser.response().status_code == 101


def test_what_is_no_http_request_is_told_so(world: World) -> None:
    browser = Browser(world, Config())
    browser.send(b"GET / NONSENSE\r\n\r\n")
    status, _, text = browser.socket.written.partition(b"\r\n")
    assert status == b"HTTP/1.1 400 Bad Request"
    assert b"Not a valid HTTP request: " in text
    assert browser.socket.output_ended


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    bounds = [*range(0, len(data), size), len(data)]
    return (data[start:end] for start, end in pairwise(bounds))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
async def test_request_and_packets_may_come_in_any_pieces(world: World, size: int) -> None:
    """[MQTT-6.0.0-2] Also in one with the request: nobody has to wait for the answer."""
    browser = Browser(world, Config())
    frames = Browser(world, Config())
    frames.send(frames.request)
    frames.response()
    frames.protocol.send_binary(CONNECT[:5])
    frames.protocol.send_binary(CONNECT[5:])
    for piece in pieces(browser.request + b"".join(frames.protocol.data_to_send()), size):
        browser.send(piece)
    await world.settled()
    assert [frame.data[:1] for frame in browser.received()[:1]] == [b"\x20"]
    assert world.sessions.connected_count == 1


# Time


def test_request_and_connect_share_one_timeout(world: World) -> None:
    config = Config(connect_timeout_s=7)
    browser = Browser(world, config)
    assert browser.websocket.deadline() == MET_AT + 7
    browser.websocket.receive(browser.request, Monotonic(MET_AT + 3))
    assert browser.websocket.deadline() == MET_AT + 7


def test_who_sends_no_whole_request_in_time_is_cut_off(world: World) -> None:
    browser = Browser(world, Config())
    browser.send(browser.request[:-1])
    browser.websocket.expire(MUCH_LATER)
    assert browser.socket.closed.is_set()
    assert browser.socket.written == b""


def test_who_sends_no_connect_in_time_gets_a_close_frame(browser: Browser) -> None:
    browser.websocket.expire(MUCH_LATER)
    browser.received()
    assert browser.told_to_close() == CloseCode.NORMAL_CLOSURE
    assert browser.socket.output_ended


# Frames


async def test_packets_go_out_in_binary_frames(connected: Browser) -> None:
    """[MQTT-6.0.0-1]"""
    connected.send_frames(encode(Pingreq(), MQTT_5))
    assert [(frame.opcode, frame.data) for frame in connected.received()] == [
        (Opcode.BINARY, PINGRESP)
    ]


async def test_of_the_pings_in_one_read_the_last_is_answered_and_packets_count(
    connected: Browser,
) -> None:
    connected.protocol.send_ping(b"1")
    connected.protocol.send_binary(encode(Pingreq(), MQTT_5))
    connected.protocol.send_ping(b"2")
    connected.send(b"".join(connected.protocol.data_to_send()))
    pong, binary = connected.received()
    assert (pong.opcode, pong.data) == (Opcode.PONG, b"2")
    assert binary.data == PINGRESP


async def test_a_frame_that_may_not_be_ends_the_connection_after_what_came_before(
    world: World, connected: Browser
) -> None:
    connected.protocol.send_binary(encode(Pingreq(), MQTT_5))
    connected.protocol.send_text(b"text")
    connected.send(b"".join(connected.protocol.data_to_send()))
    assert [frame.data for frame in connected.received()[:1]] == [PINGRESP]
    assert connected.told_to_close() == CloseCode.UNSUPPORTED_DATA
    assert connected.socket.output_ended
    await world.settled()
    assert world.sessions.connected_count == 0


async def test_the_peer_closes(world: World, connected: Browser) -> None:
    connected.protocol.send_close(CloseCode.GOING_AWAY)
    connected.send(b"".join(connected.protocol.data_to_send()))
    connected.received()
    assert connected.told_to_close() == CloseCode.GOING_AWAY
    assert connected.socket.output_ended
    await world.settled()
    assert world.sessions.connected_count == 0


# Between socket and client


async def test_after_the_close_frame_nothing_is_written_or_read(
    world: World, connected: Browser
) -> None:
    connected.websocket.close()
    connected.websocket.close()
    connected.websocket.write(PINGRESP)
    connected.send_frames(encode(Pingreq(), MQTT_5))
    (close,) = connected.received()
    assert close.opcode == Opcode.CLOSE
    assert connected.socket.output_ended
    assert connected.websocket.deadline() is None
    assert world.counters.protocol_errors == 0


async def test_a_broker_that_stops_says_so_and_waits_for_no_answer(connected: Browser) -> None:
    connected.websocket.shut_down()
    disconnect, *_ = connected.received()
    assert disconnect.data[::2] == bytes.fromhex("E0 8B")
    assert connected.socket.closed.is_set()


def test_a_broker_that_stops_closes_also_who_is_not_accepted_yet(world: World) -> None:
    browser = Browser(world, Config())
    browser.websocket.shut_down()
    assert browser.socket.closed.is_set()


async def test_a_connection_that_is_lost_is_lost_for_its_client(
    world: World, connected: Browser
) -> None:
    assert world.sessions.connected_count == 1
    connected.websocket.lost()
    await world.settled()
    assert world.sessions.connected_count == 0


def test_what_the_client_asks_of_its_transport_is_asked_of_the_socket(browser: Browser) -> None:
    browser.websocket.pause_reading("log")
    browser.websocket.resume_reading("log")
    browser.websocket.deadline_moved()
    assert browser.socket.asked == ["pause: log", "resume: log", "deadline"]


async def test_qos_0_goes_out_in_the_turn_in_which_it_came_once(
    world: World, connected: Browser
) -> None:
    """P9; the socket's buffer is full for the second."""
    connected.send_frames(encode(Subscribe(1, [SubscriptionRequest("t", 1)]), MQTT_5))
    await world.settled()
    connected.received()
    world.disk.may_commit.clear()
    world.log.append([message("1", qos=0)], durable=False)
    assert [frame.data[-1:] for frame in connected.received()] == [b"1"]
    connected.websocket.writable(yes=False)
    world.log.append([message("2", qos=0)], durable=False)
    assert connected.received() == []
    connected.websocket.writable(yes=True)
    world.log.append([message("3", qos=0)], durable=False)
    assert b"".join([frame.data for frame in connected.received()])[-1:] == b"3"
    world.disk.may_commit.set()
    await world.settled()
    assert connected.received() == []


async def test_nothing_is_delivered_while_the_sockets_buffer_is_full(
    world: World, connected: Browser
) -> None:
    connected.send_frames(encode(Subscribe(1, [SubscriptionRequest("t", 0)]), MQTT_5))
    await world.settled()
    connected.received()
    connected.websocket.writable(yes=False)
    await world.publish(message("x"))
    assert connected.received() == []
    connected.websocket.writable(yes=True)
    assert [frame.data[-1:] for frame in connected.received()] == [b"x"]


def test_why_a_request_was_refused_is_logged(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    browser = Browser(world, Config(), path="/other?password=secret")
    browser.send(browser.request)
    assert caplog.messages == ["here: WebSocket refused (404): /other"]


def test_what_happens_before_there_is_a_client_concerns_nobody(world: World) -> None:
    browser = Browser(world, Config())
    browser.websocket.writable(yes=False)
    browser.websocket.lost()
    assert browser.socket.written == b""
