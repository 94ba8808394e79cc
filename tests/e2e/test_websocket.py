"""MQTT over WebSocket: real clients see what they see over TCP, and frames are as the RFC has them.

`[MQTT-6.0.0-n]` are the same in 3.1.1 and 5.0; the other numbers are sections of RFC 6455.
"""

from __future__ import annotations

import base64
import io
import os
import socket
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, closing
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Connack,
    Disconnect,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from tests.e2e.behaviour import Behaviour, Behaviour5
from tests.e2e.process import Broker
from tests.e2e.test_mqttjs import NEEDS_MQTTJS, MqttJsPeer, WithNode
from tests.e2e.test_paho import PahoPeer
from tests.e2e.wire import Wire, connect_packet, publish_many

MIB = 1024 * 1024
TIMEOUT_S = 5.0
NORMAL, PROTOCOL_ERROR, UNSUPPORTED, TOO_BIG = 1000, 1002, 1003, 1009
MQTT = Subprotocol("mqtt")
UNMASKED = "00000000"
"""A mask that changes nothing."""
Cut = Callable[[bytes], Iterable[bytes | list[bytes]]]
"""How bytes become messages; a list is one message, a frame for each part."""


class MqttJsOverWebSocket(MqttJsPeer):
    over = {"protocol": "ws", "path": "/mqtt"}  # noqa: RUF012


class TestMqttJs311(WithNode, Behaviour):
    pytestmark = NEEDS_MQTTJS
    peer = MqttJsOverWebSocket
    version = 4


class TestMqttJs5(WithNode, Behaviour5):
    pytestmark = NEEDS_MQTTJS
    peer = MqttJsOverWebSocket
    version = 5


class PahoOverWebSocket(PahoPeer):
    transport = "websockets"


class TestPaho5(Behaviour5):
    peer = PahoOverWebSocket
    version = 5


# A client that hides nothing


def opened(
    port: int, path: str = "/mqtt", **options: Any
) -> AbstractContextManager[ClientConnection]:
    how: dict[str, Any] = {"subprotocols": [MQTT], "open_timeout": TIMEOUT_S, "max_size": None}
    websocket: AbstractContextManager[ClientConnection] = connect(
        f"ws://127.0.0.1:{port}{path}", ping_interval=None, proxy=None, **(how | options)
    )
    return websocket


class WebSocketWire(Wire):
    """A `Wire` whose bytes go in binary frames, cut as `cut` says."""

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


@pytest.fixture
def wire(broker: Broker, name: str) -> Iterator[WebSocketWire]:
    with WebSocketWire(broker.port, one_frame) as wire:
        wire.connect(connect_packet(name))
        yield wire


@pytest.mark.parametrize(
    "cut",
    [
        pytest.param(one_frame, id="one frame"),
        pytest.param(frames_of(1), id="frames of 1 B"),
        pytest.param(frames_of(7), id="frames of 7 B"),
        pytest.param(one_message_of_frames_of(1), id="fragments of 1 B"),
    ],
)
def test_packets_and_frames_have_nothing_to_do_with_each_other(
    broker: Broker, name: str, cut: Cut
) -> None:
    """[MQTT-6.0.0-2]"""
    payloads = [b"%d" % number for number in range(100)]
    with WebSocketWire(broker.port, cut) as wire:
        publishes = [
            Publish(name, payload, 1, False, False, packet_id)
            for packet_id, payload in enumerate(payloads, 1)
        ]
        subscribe = Subscribe(1, [SubscriptionRequest(name, 0)])
        wire.send(connect_packet(name), subscribe, *publishes, Pingreq())
        packets = [wire.receive() for _ in range(203)]
    assert sum(isinstance(packet, Pingresp) for packet in packets) == 1
    assert sum(isinstance(packet, Suback) for packet in packets) == 1
    assert [p.packet_ids[0] for p in packets if isinstance(p, Ack)] == list(range(1, 101))
    assert [p.payload for p in packets if isinstance(p, Publish)] == payloads


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 7, 120, 130]), min_size=1, max_size=5)),
)
@settings(max_examples=25, deadline=None)
def test_any_fragmentation(
    broker: Broker, payloads: list[bytes], messages: list[list[int]]
) -> None:
    """[MQTT-6.0.0-2] `messages` are the lengths of the fragments of each; the rest is one more."""

    def cut(data: bytes) -> Iterator[list[bytes]]:
        stream = io.BytesIO(data)
        for lengths in messages:
            yield [stream.read(length) for length in lengths]
        yield [stream.read()]

    name = uuid.uuid4().hex
    with WebSocketWire(broker.port, cut) as wire:
        publishes = [Publish(name, payload, 0, False, False, 0) for payload in payloads]
        subscribe = Subscribe(1, [SubscriptionRequest(name, 0)])
        wire.send(connect_packet(name), subscribe, *publishes)
        wire.expect(Connack)
        wire.expect(Suback)
        assert [wire.expect(Publish).payload for _ in payloads] == payloads


# What frames declare and what they cost


ENDLESS_FRAME = f"82 FF {2**63 - 1:016X} {UNMASKED}"
FRAME_OF_A_MIB = f"FF {MIB:016X} {UNMASKED}"


@pytest.mark.parametrize(
    ("first", "each"),
    [
        pytest.param(ENDLESS_FRAME, "", id="one frame"),
        pytest.param(f"02 80 {UNMASKED}", f"00 {FRAME_OF_A_MIB}", id="one message"),
    ],
)
def test_what_has_no_end_is_not_waited_for(
    broker: Broker, wire: WebSocketWire, first: str, each: str
) -> None:
    """No more than a packet is kept. These are refused, so that they cost no disk."""
    topic = "$SYS/nobody"
    beside_payload = len(encode(Publish(topic, bytes(MIB // 2), 0, False, False, 0), MQTT_5))
    payload = bytes(MIB + MIB // 2 - beside_payload)
    packet = encode(Publish(topic, payload, 0, False, False, 0), MQTT_5)
    assert len(packet) == MIB
    with closing(wire.websocket.socket.dup()) as raw:
        before = broker.resident_bytes()
        raw.sendall(bytes.fromhex(first))
        for _ in range(64):
            raw.sendall(bytes.fromhex(each) + packet)
        pingreq = encode(Pingreq(), MQTT_5)
        raw.sendall((bytes.fromhex(f"00 82 {UNMASKED}") if each else b"") + pingreq)
    wire.expect(Pingresp)
    assert broker.resident_bytes() - before < 16 * MIB


def test_no_frame_has_two_to_the_63_bytes(wire: WebSocketWire) -> None:
    """5.2"""
    wire.websocket.socket.sendall(bytes.fromhex(f"82 FF {2**63:016X} {UNMASKED}"))
    assert closed_with(wire) == TOO_BIG


def test_a_packet_that_is_too_large_is_refused_from_its_first_bytes(wire: WebSocketWire) -> None:
    """Though its frame might hold it. [MQTT-3.2.2-15]"""
    too_large = "30 80 80 80 01"  # 2 MiB, and these 5 bytes
    wire.websocket.socket.sendall(bytes.fromhex(ENDLESS_FRAME + too_large))
    assert wire.expect(Disconnect).reason_code == 0x95
    assert closed_with(wire) == NORMAL


def test_a_slow_subscriber_gets_all_in_order(broker: Broker, name: str) -> None:
    """More than fits into all buffers on the way: live until they are full, then from the log."""
    payloads = [b"%d" % number + bytes(20_000) for number in range(1000)]
    with WebSocketWire(broker.port, one_frame, max_queue=1) as wire:
        wire.connect(connect_packet(name))
        wire.subscribe(name, 0)
        publish_many(broker.port, name, payloads, client_id=f"{name}-pub")
        for payload in payloads:
            assert wire.expect(Publish).payload == payload


# Frames that are no binary frames


@pytest.mark.parametrize("text", ["text", ["te", "xt"]])
def test_a_text_frame_ends_the_connection(broker: Broker, name: str, text: str | list[str]) -> None:
    """[MQTT-6.0.0-1] What came before it counts, what comes after it does not; the will is due."""
    will = Will(name, b"will", 0, False)
    publish = Publish(name, b"before", 0, False, False, 0)
    with Wire(broker.port) as watcher, WebSocketWire(broker.port, one_frame) as wire:
        watcher.connect(connect_packet(f"{name}-watcher"))
        watcher.subscribe(name, 0)
        packet = connect_packet(name)
        packet.will = will
        wire.connect(packet)
        wire.send(publish)
        wire.websocket.send(text)
        wire.websocket.send(encode(publish, MQTT_5))
        assert closed_with(wire) == UNSUPPORTED
        assert watcher.expect(Publish).payload == b"before"
        assert watcher.expect(Publish).payload == b"will"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("82 02 C000", id="unmasked, 5.1"),
        pytest.param(f"C2 82 {UNMASKED} C000", id="compressed, which was not agreed on, 5.2"),
    ],
)
def test_a_protocol_error(wire: WebSocketWire, frame: str) -> None:
    wire.websocket.socket.sendall(bytes.fromhex(frame))
    assert closed_with(wire) == PROTOCOL_ERROR


def test_ping_is_answered_also_between_fragments(wire: WebSocketWire) -> None:
    """5.5.2, 5.4"""
    pingreq = encode(Pingreq(), MQTT_5)
    with closing(wire.websocket.socket.dup()) as raw:
        raw.sendall(b"\x02\x81\0\0\0\0" + pingreq[:1])
        assert wire.websocket.ping(b"now").wait(TIMEOUT_S)
        raw.sendall(b"\x80\x81\0\0\0\0" + pingreq[1:])
    wire.expect(Pingresp)


def test_of_the_pings_in_one_read_the_last_is_answered(broker: Broker) -> None:
    """5.5.3: it need not be all. So a flood of them does not come back as one."""
    pings = [bytes.fromhex(f"89 84 {UNMASKED}") + b"%04d" % number for number in range(10_000)]
    with Wire(broker.port) as wire:
        wire.send(handshake(broker.port), *pings)
        reply = b""
        while not reply.endswith(bytes.fromhex("8A 04") + b"9999"):
            reply += wire.socket.recv(1 << 16)
    assert reply.count(b"\x8a\x04") < 1000


# The end


def test_the_client_closes_without_disconnect(broker: Broker, name: str) -> None:
    """7.1.2; for MQTT the connection is lost, so the will is due."""
    with Wire(broker.port) as watcher, WebSocketWire(broker.port, one_frame) as wire:
        watcher.connect(connect_packet(f"{name}-watcher"))
        watcher.subscribe(name, 0)
        packet = connect_packet(name)
        packet.will = Will(name, b"will", 0, False)
        wire.connect(packet)
        wire.websocket.close(4000, "enough")
        assert wire.websocket.close_code == 4000
        assert watcher.expect(Publish).payload == b"will"


def test_disconnect_is_answered_by_a_close_frame(wire: WebSocketWire) -> None:
    wire.send(Disconnect())
    assert closed_with(wire) == NORMAL


def test_the_broker_says_why_before_it_closes(wire: WebSocketWire) -> None:
    wire.send(bytes.fromhex("00 00"))
    assert wire.expect(Disconnect).reason_code == 0x81
    assert closed_with(wire) == NORMAL


def test_the_broker_stops(own_broker: Broker, name: str) -> None:
    with WebSocketWire(own_broker.port, one_frame) as wire:
        wire.connect(connect_packet(name))
        assert own_broker.stop() == 0
        assert wire.expect(Disconnect).reason_code == 0x8B
        assert closed_with(wire) == NORMAL


def closed_with(wire: WebSocketWire) -> int | None:
    assert wire.closed()
    return wire.websocket.close_code


# The HTTP request


@pytest.mark.parametrize("path", ["/", "/mqtt", "/mqtt?token=1"])
@pytest.mark.parametrize("offered", [["mqtt"], ["mqttv3.1", "mqtt"]])
def test_where_it_is_and_what_it_is_called(broker: Broker, path: str, offered: list[str]) -> None:
    """[MQTT-6.0.0-3, 4] Compression is not negotiated, though this client asks for it."""
    subprotocols = [Subprotocol(one) for one in offered]
    with opened(broker.port, path, subprotocols=subprotocols) as websocket:
        assert websocket.subprotocol == MQTT
        assert websocket.response is not None
        assert "Sec-WebSocket-Extensions" not in websocket.response.headers


@pytest.mark.parametrize(
    ("options", "status", "says"),
    [
        pytest.param({"subprotocols": None}, 400, '"mqtt"', id="no subprotocol"),
        pytest.param({"subprotocols": ["mqttv3.1"]}, 400, '"mqtt"', id="another subprotocol"),
        pytest.param({"path": "/other"}, 404, "/mqtt", id="another path"),
        pytest.param({"origin": "https://example.org"}, 403, "example.org", id="a page elsewhere"),
        pytest.param({"origin": "http://localhost.example.org"}, 403, "", id="nearly here"),
        pytest.param({"origin": "null"}, 403, "null", id="a page of nowhere"),
    ],
)
def test_what_is_refused(broker: Broker, options: dict[str, Any], status: int, says: str) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(broker.port, **options):
        pass
    assert refused.value.response.status_code == status
    assert says in refused.value.response.body.decode()


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://localhost", "http://127.0.0.1:8080", "http://[::1]"],
)
def test_pages_of_this_machine_may_connect(broker: Broker, origin: str) -> None:
    with opened(broker.port, origin=origin) as websocket:
        assert websocket.subprotocol == MQTT


def test_other_pages_may_connect_where_that_is_set(tmp_path: Path) -> None:
    with Broker(tmp_path, {"websocket_origins": ["https://example.org"]}) as broker:
        for origin in (None, "https://example.org", "http://localhost"):
            with opened(broker.port, origin=origin):
                pass
        origin = "https://example.com"
        with pytest.raises(InvalidStatus), opened(broker.port, origin=origin):
            pass


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


def test_a_handshake_byte_by_byte(broker: Broker, name: str) -> None:
    """Also of its first word, which tells it from the other protocols of the port."""
    packet = encode(connect_packet(name), MQTT_5)
    frame = bytes((0x82, 0x80 | len(packet))) + bytes(4) + packet
    with socket.create_connection(("127.0.0.1", broker.port), TIMEOUT_S) as raw:
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in handshake(broker.port) + frame:
            raw.sendall(bytes((byte,)))
        reply = b""
        while b"\r\n\r\n" not in reply or len(reply.partition(b"\r\n\r\n")[2]) < 4:
            data = raw.recv(4096)
            assert data, reply
            reply += data
    assert reply.startswith(b"HTTP/1.1 101 ")
    assert reply.partition(b"\r\n\r\n")[2][2] == PacketType.CONNACK << 4


def test_what_is_sent_before_the_answer_came_counts(broker: Broker, name: str) -> None:
    packet = encode(connect_packet(name), MQTT_5)
    frame = bytes((0x82, 0x80 | len(packet))) + bytes(4) + packet
    with Wire(broker.port) as wire:
        wire.send(handshake(broker.port) + frame)
        reply = wire.socket.recv(4096)
        while b"\r\n\r\n\x82" not in reply:
            reply += wire.socket.recv(4096)


@pytest.mark.parametrize("sent", [b"GET", b"GET / HTTP/1.1\r\nHost:", None])
def test_handshake_and_connect_must_come_in_time(tmp_path: Path, sent: bytes | None) -> None:
    with Broker(tmp_path, {"connect_timeout_s": 0.2}) as broker, Wire(broker.port) as slow:
        slow.send(handshake(broker.port) if sent is None else sent)
        while slow.socket.recv(4096):
            pass


@pytest.mark.parametrize(
    ("request_", "status", "says"),
    [
        pytest.param(
            b"GET /mqtt HTTP/1.1\r\nHost: localhost\r\n\r\n",
            b"HTTP/1.1 426 ",
            b"WebSocket",
            id="a browser",
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
            b"HTTP/1.1 426 ",
            b"Connection",
            id="Upgrade without Connection",
        ),
        pytest.param(b"GET / HTTP/1.0\r\n\r\n", b"HTTP/1.1 505 ", b"HTTP", id="HTTP/1.0"),
        pytest.param(
            b"GET / HTTP/1.1\r\nno colon\r\n\r\n", b"HTTP/1.1 400 ", b"colon", id="no HTTP"
        ),
        pytest.param(
            b"GET / HTTP/1.1\r\nCookie: " + b"x" * 20_000, b"HTTP/1.1 431 ", b"", id="long header"
        ),
    ],
)
def test_http_is_answered_in_http(
    broker: Broker, request_: bytes, status: bytes, says: bytes
) -> None:
    with Wire(broker.port) as wire:
        wire.send(request_)
        reply = b""
        while data := wire.socket.recv(4096):
            reply += data
    assert reply.startswith(status)
    assert says in reply
