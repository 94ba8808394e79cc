"""MQTT over WebSocket, as the RFC has its frames; `test_websocket_clients.py` has real clients.

`[MQTT-6.0.0-n]` are the same in 3.1.1 and 5.0; the other numbers are sections of RFC 6455.
"""

from __future__ import annotations

import io
import socket
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import InvalidStatus
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
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import RawClient, connect_packet, publish_many
from tests.support.websocket_client import (
    MQTT,
    TIMEOUT_S,
    Cut,
    WebSocketClient,
    frames_of,
    handshake,
    one_frame,
    one_message_of_frames_of,
    opened,
)

MIB = 1024 * 1024
NORMAL, PROTOCOL_ERROR, UNSUPPORTED, TOO_BIG = 1000, 1002, 1003, 1009
UNMASKED = "00000000"
"""A mask that changes nothing."""


@pytest.fixture
def client(broker: BrokerProcess, name: str) -> Iterator[WebSocketClient]:
    with WebSocketClient(broker.port, one_frame) as client:
        client.connect(connect_packet(name))
        yield client


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
    broker: BrokerProcess, name: str, cut: Cut
) -> None:
    """[MQTT-6.0.0-2]"""
    payloads = [b"%d" % number for number in range(100)]
    with WebSocketClient(broker.port, cut) as client:
        publishes = [
            Publish(name, payload, 1, False, False, packet_id)
            for packet_id, payload in enumerate(payloads, 1)
        ]
        subscribe = Subscribe(1, [SubscriptionRequest(name, 0)])
        client.send(connect_packet(name), subscribe, *publishes, Pingreq())
        packets = [client.receive() for _ in range(203)]
    assert sum(isinstance(packet, Pingresp) for packet in packets) == 1
    assert sum(isinstance(packet, Suback) for packet in packets) == 1
    assert [p.packet_ids[0] for p in packets if isinstance(p, Ack)] == list(range(1, 101))
    assert [p.payload for p in packets if isinstance(p, Publish)] == payloads


@given(
    st.lists(st.binary(max_size=300), min_size=1, max_size=5),
    st.lists(st.lists(st.sampled_from([0, 1, 2, 3, 7, 120, 130]), min_size=1, max_size=5)),
)
@settings(max_examples=25)
def test_any_fragmentation(
    broker: BrokerProcess, payloads: list[bytes], messages: list[list[int]]
) -> None:
    """[MQTT-6.0.0-2] `messages` are the lengths of the fragments of each; the rest is one more."""

    def cut(data: bytes) -> Iterator[list[bytes]]:
        stream = io.BytesIO(data)
        for lengths in messages:
            yield [stream.read(length) for length in lengths]
        yield [stream.read()]

    name = uuid.uuid4().hex
    with WebSocketClient(broker.port, cut) as client:
        publishes = [Publish(name, payload, 0, False, False, 0) for payload in payloads]
        subscribe = Subscribe(1, [SubscriptionRequest(name, 0)])
        client.send(connect_packet(name), subscribe, *publishes)
        client.expect(Connack)
        client.expect(Suback)
        assert [client.expect(Publish).payload for _ in payloads] == payloads


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
    broker: BrokerProcess, client: WebSocketClient, first: str, each: str
) -> None:
    """No more than a packet is kept. These are refused, so that they cost no disk."""
    topic = "$SYS/nobody"
    beside_payload = len(encode(Publish(topic, bytes(MIB // 2), 0, False, False, 0), MQTT_5))
    payload = bytes(MIB + MIB // 2 - beside_payload)
    packet = encode(Publish(topic, payload, 0, False, False, 0), MQTT_5)
    assert len(packet) == MIB
    with closing(client.websocket.socket.dup()) as raw:
        before = broker.resident_bytes()
        raw.sendall(bytes.fromhex(first))
        for _ in range(64):
            raw.sendall(bytes.fromhex(each) + packet)
        pingreq = encode(Pingreq(), MQTT_5)
        raw.sendall((bytes.fromhex(f"00 82 {UNMASKED}") if each else b"") + pingreq)
    client.expect(Pingresp)
    assert broker.resident_bytes() - before < 16 * MIB


def test_no_frame_has_two_to_the_63_bytes(client: WebSocketClient) -> None:
    """5.2"""
    client.websocket.socket.sendall(bytes.fromhex(f"82 FF {2**63:016X} {UNMASKED}"))
    assert closed_with(client) == TOO_BIG


def test_a_packet_that_is_too_large_is_refused_from_its_first_bytes(
    client: WebSocketClient,
) -> None:
    """Though its frame might hold it. [MQTT-3.2.2-15]"""
    too_large = "30 80 80 80 01"  # 2 MiB, and these 5 bytes
    client.websocket.socket.sendall(bytes.fromhex(ENDLESS_FRAME + too_large))
    assert client.expect(Disconnect).reason_code == 0x95
    assert closed_with(client) == NORMAL


def test_a_slow_subscriber_gets_all_in_order(broker: BrokerProcess, name: str) -> None:
    """More than fits into all buffers on the way: live until they are full, then from the log."""
    payloads = [b"%d" % number + bytes(20_000) for number in range(1000)]
    with WebSocketClient(broker.port, one_frame, max_queue=1) as client:
        client.connect(connect_packet(name))
        client.subscribe(name, 0)
        publish_many(broker.port, name, payloads, client_id=f"{name}-pub")
        for payload in payloads:
            assert client.expect(Publish).payload == payload


# Frames that are no binary frames


@pytest.mark.parametrize("text", ["text", ["te", "xt"]])
def test_a_text_frame_ends_the_connection(
    broker: BrokerProcess, name: str, text: str | list[str]
) -> None:
    """[MQTT-6.0.0-1] What came before it counts, what comes after it does not; the will is due."""
    will = Will(name, b"will", 0, False)
    publish = Publish(name, b"before", 0, False, False, 0)
    with RawClient(broker.port) as watcher, WebSocketClient(broker.port, one_frame) as client:
        watcher.connect(connect_packet(f"{name}-watcher"))
        watcher.subscribe(name, 0)
        packet = connect_packet(name)
        packet.will = will
        client.connect(packet)
        client.send(publish)
        client.websocket.send(text)
        client.websocket.send(encode(publish, MQTT_5))
        assert closed_with(client) == UNSUPPORTED
        assert watcher.expect(Publish).payload == b"before"
        assert watcher.expect(Publish).payload == b"will"


@pytest.mark.parametrize(
    "frame",
    [
        pytest.param("82 02 C000", id="unmasked, 5.1"),
        pytest.param(f"C2 82 {UNMASKED} C000", id="compressed, which was not agreed on, 5.2"),
    ],
)
def test_a_protocol_error(client: WebSocketClient, frame: str) -> None:
    client.websocket.socket.sendall(bytes.fromhex(frame))
    assert closed_with(client) == PROTOCOL_ERROR


def test_ping_is_answered_also_between_fragments(client: WebSocketClient) -> None:
    """5.5.2, 5.4"""
    pingreq = encode(Pingreq(), MQTT_5)
    with closing(client.websocket.socket.dup()) as raw:
        raw.sendall(b"\x02\x81\0\0\0\0" + pingreq[:1])
        assert client.websocket.ping(b"now").wait(TIMEOUT_S)
        raw.sendall(b"\x80\x81\0\0\0\0" + pingreq[1:])
    client.expect(Pingresp)


def test_of_the_pings_in_one_read_the_last_is_answered(broker: BrokerProcess) -> None:
    """5.5.3: it need not be all. So a flood of them does not come back as one."""
    pings = [bytes.fromhex(f"89 84 {UNMASKED}") + b"%04d" % number for number in range(10_000)]
    with RawClient(broker.port) as client:
        client.send(handshake(broker.port), *pings)
        reply = b""
        while not reply.endswith(bytes.fromhex("8A 04") + b"9999"):
            reply += client.socket.recv(1 << 16)
    assert reply.count(b"\x8a\x04") < 1000


# The end


def test_the_client_closes_without_disconnect(broker: BrokerProcess, name: str) -> None:
    """7.1.2; for MQTT the connection is lost, so the will is due."""
    with RawClient(broker.port) as watcher, WebSocketClient(broker.port, one_frame) as client:
        watcher.connect(connect_packet(f"{name}-watcher"))
        watcher.subscribe(name, 0)
        packet = connect_packet(name)
        packet.will = Will(name, b"will", 0, False)
        client.connect(packet)
        client.websocket.close(4000, "enough")
        assert client.websocket.close_code == 4000
        assert watcher.expect(Publish).payload == b"will"


def test_disconnect_is_answered_by_a_close_frame(client: WebSocketClient) -> None:
    client.send(Disconnect())
    assert closed_with(client) == NORMAL


def test_the_broker_says_why_before_it_closes(client: WebSocketClient) -> None:
    client.send(bytes.fromhex("00 00"))
    assert client.expect(Disconnect).reason_code == 0x81
    assert closed_with(client) == NORMAL


def test_the_broker_stops(own_broker: BrokerProcess, name: str) -> None:
    with WebSocketClient(own_broker.port, one_frame) as client:
        client.connect(connect_packet(name))
        assert own_broker.stop() == 0
        assert client.expect(Disconnect).reason_code == 0x8B
        assert closed_with(client) == NORMAL


def closed_with(client: WebSocketClient) -> int | None:
    assert client.closed()
    return client.websocket.close_code


# The HTTP request


@pytest.mark.parametrize("path", ["/", "/mqtt", "/mqtt?token=1"])
@pytest.mark.parametrize("offered", [["mqtt"], ["mqttv3.1", "mqtt"]])
def test_where_it_is_and_what_it_is_called(
    broker: BrokerProcess, path: str, offered: list[str]
) -> None:
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
def test_what_is_refused(
    broker: BrokerProcess, options: dict[str, Any], status: int, says: str
) -> None:
    with pytest.raises(InvalidStatus) as refused, opened(broker.port, **options):
        pass
    assert refused.value.response.status_code == status
    assert says in refused.value.response.body.decode()


@pytest.mark.parametrize(
    "origin",
    ["http://localhost:3000", "https://localhost", "http://127.0.0.1:8080", "http://[::1]"],
)
def test_pages_of_this_machine_may_connect(broker: BrokerProcess, origin: str) -> None:
    with opened(broker.port, origin=origin) as websocket:
        assert websocket.subprotocol == MQTT


def test_other_pages_may_connect_where_that_is_set(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, {"websocket_origins": ["https://example.org"]}) as broker:
        for origin in (None, "https://example.org", "http://localhost"):
            with opened(broker.port, origin=origin):
                pass
        origin = "https://example.com"
        with pytest.raises(InvalidStatus), opened(broker.port, origin=origin):
            pass


def test_a_handshake_byte_by_byte(broker: BrokerProcess, name: str) -> None:
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


def test_what_is_sent_before_the_answer_came_counts(broker: BrokerProcess, name: str) -> None:
    packet = encode(connect_packet(name), MQTT_5)
    frame = bytes((0x82, 0x80 | len(packet))) + bytes(4) + packet
    with RawClient(broker.port) as client:
        client.send(handshake(broker.port) + frame)
        reply = client.socket.recv(4096)
        while b"\r\n\r\n\x82" not in reply:
            reply += client.socket.recv(4096)


@pytest.mark.parametrize("sent", [b"GET", b"GET / HTTP/1.1\r\nHost:", None])
def test_handshake_and_connect_must_come_in_time(tmp_path: Path, sent: bytes | None) -> None:
    with (
        BrokerProcess(tmp_path, {"connect_timeout_s": 0.2}) as broker,
        RawClient(broker.port) as slow,
    ):
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
    broker: BrokerProcess, request_: bytes, status: bytes, says: bytes
) -> None:
    with RawClient(broker.port) as client:
        client.send(request_)
        reply = b""
        while data := client.socket.recv(4096):
            reply += data
    assert reply.startswith(status)
    assert says in reply
