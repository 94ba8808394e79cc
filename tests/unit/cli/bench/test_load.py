"""The load generator sees every message, wherever reads split the bytes, and every wrong one."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from cli.address import Address
from cli.bench.histogram import Histogram
from cli.bench.load import (
    Connection,
    ConnectionRefused,
    LoadError,
    Loop,
    Publisher,
    Shape,
    Subscriber,
    answers,
    follow,
    leading_run,
    packet,
    text,
)

QOS0, QOS1, QOS2 = (Shape("t/x", qos, 20) for qos in (0, 1, 2))
CONNACK = b"\x20\x02\0\0"


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr("cli.bench.load.now_us", clock)
    return clock


class Clock:
    """Microseconds, as the test sets them."""

    now = 0

    def __call__(self) -> int:
        return self.now


@pytest.fixture
def loop() -> Iterator[Loop]:
    loop = Loop()
    yield loop
    loop.close()


class Broker:
    """A socket that says what the test says: `say` answers, `heard` is what the client wrote."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = Address(port=self._listener.getsockname()[1])
        self._socket: socket.socket | None = None

    def expect(self, handshake: bytes) -> None:
        """Let the next client connect, with answers written in advance."""
        self._thread = threading.Thread(target=self._accept, args=(handshake,))
        self._thread.start()

    def _accept(self, handshake: bytes) -> None:
        self._socket, _ = self._listener.accept()
        self._socket.settimeout(10)
        self._socket.sendall(handshake)

    @property
    def socket(self) -> socket.socket:
        self._thread.join()
        assert self._socket is not None
        return self._socket

    def heard(self, count: int) -> bytes:
        data = b""
        while len(data) < count:
            data += self.socket.recv(count - len(data))
        return data

    def close(self) -> None:
        self._listener.close()
        if self._socket is not None:
            self._socket.close()


@pytest.fixture
def broker() -> Iterator[Broker]:
    broker = Broker()
    yield broker
    broker.close()


def subscriber(loop: Loop, broker: Broker, shape: Shape, publishers: int = 1) -> Subscriber:
    broker.expect(CONNACK + packet(0x90, bytes((0, 1, shape.qos))))
    client = Subscriber(loop, broker.address, "sub", shape, publishers=publishers)
    subscribe = packet(0x82, b"\0\x01" + text(shape.topic) + bytes((shape.qos,)))
    assert broker.heard(CONNECT_BYTES + len(subscribe))[CONNECT_BYTES:] == subscribe
    return client


def publisher(
    loop: Loop, broker: Broker, shape: Shape, window: int = 1000, connack: bytes = CONNACK
) -> Publisher:
    broker.expect(connack)
    client = Publisher(loop, broker.address, "pub", shape, window=window)
    broker.heard(CONNECT_BYTES)
    return client


CONNECT_BYTES = len(packet(0x10, text("MQTT") + bytes(4) + text("sub")))


def message(
    shape: Shape, sequence: int, identifier: int = 1, publisher: int = 0, stamp: int = 0
) -> bytes:
    """A PUBLISH, written out the long way."""
    body = text(shape.topic)
    if shape.qos:
        body += struct.pack(">H", identifier)
    body += struct.pack(">HII", publisher, sequence, stamp)
    body += b"x" * (shape.payload_bytes - 10)
    return packet(0x30 | shape.qos << 1, body)


def say(loop: Loop, broker: Broker, client: Publisher | Subscriber, data: bytes) -> None:
    """The client reads exactly this."""
    broker.socket.sendall(data)
    client.socket.setblocking(True)
    client.readable()
    client.socket.setblocking(False)


def test_a_run_ends_where_the_fixed_header_differs_or_the_packet_is_not_whole() -> None:
    same, other_length, other_kind = b"\x32\x02\x32\x02", b"\x32\x03\x32\x02\x32", b"\x62\x02\0\0"
    for count in (0, 1, 7, 8, 9, 128, 129, 1000):
        for rest in (b"", b"\x32", same[:3], other_length, other_kind):
            data = bytearray(b"\x32" + same * count + rest)
            assert leading_run(data, 1, len(data), same[:2], 4) == count


@pytest.mark.parametrize("shape", [QOS0, QOS1, QOS2])
def test_messages_are_counted_wherever_reads_split_them(
    loop: Loop, broker: Broker, shape: Shape
) -> None:
    client = subscriber(loop, broker, shape)
    length = 3 * shape.length
    for split in range(1, length):
        first = 3 * (split - 1)
        data = b"".join(message(shape, first + n, first + n + 1) for n in range(3))
        say(loop, broker, client, data[:split])
        assert client.received_count == first + split // shape.length
        say(loop, broker, client, data[split:])
        assert client.received_count == first + 3
        if shape.qos:
            header = 0x40 if shape.qos == 1 else 0x50
            assert broker.heard(12) == b"".join(
                struct.pack(">BBH", header, 2, first + n + 1) for n in range(3)
            )
    if shape.qos < 2:
        assert client.idle([client.received_count])


def test_qos_2_is_finished_when_it_is_released(loop: Loop, broker: Broker) -> None:
    client = subscriber(loop, broker, QOS2)
    data = message(QOS2, 0, 7) + b"\x62\x02\0\x07" + message(QOS2, 1, 9)
    say(loop, broker, client, data)
    assert broker.heard(12) == b"\x50\x02\0\x07\x70\x02\0\x07\x50\x02\0\x09"
    assert not client.idle([2])
    say(loop, broker, client, b"\x62\x02\0\x09")
    assert broker.heard(4) == b"\x70\x02\0\x09"
    assert client.idle([2])


@pytest.mark.parametrize(
    "sequences",
    [
        pytest.param([1, 2, 3], id="the first lost"),
        pytest.param([0, 2, 3], id="one lost"),
        pytest.param([0, 1, 1], id="one repeated"),
        pytest.param([0, 2, 1], id="two exchanged"),
        pytest.param([0, 2, 1, 3], id="two exchanged between right ones"),
        pytest.param([0, 257, 2, 3], id="one from elsewhere between right ones"),
        pytest.param([0, 1, 2 + 65_536], id="65,536 lost"),
        pytest.param([65_536, 65_537, 65_538], id="65,536 lost before"),
    ],
)
def test_what_is_lost_repeated_or_out_of_order_is_no_result(
    loop: Loop, broker: Broker, sequences: list[int]
) -> None:
    client = subscriber(loop, broker, QOS1)
    data = b"".join(message(QOS1, sequence) for sequence in sequences)
    with pytest.raises(LoadError, match="lost, repeated or out of order"):
        say(loop, broker, client, data)


def test_the_order_of_each_publisher_counts_and_not_the_order_between_them(
    loop: Loop, broker: Broker
) -> None:
    client = subscriber(loop, broker, QOS1, publishers=300)
    order = [(0, 0), (299, 0), (299, 1), (0, 1), (255, 0)]
    data = b"".join(message(QOS1, sequence, publisher=number) for number, sequence in order)
    say(loop, broker, client, data)
    assert client.idle([2, *[0] * 254, 1, *[0] * 43, 2])
    with pytest.raises(LoadError, match="message 3 of publisher 299, not 2"):
        say(loop, broker, client, message(QOS1, 3, publisher=299))


@pytest.mark.parametrize(
    "foreign",
    [
        pytest.param(b"\xe0\x02\x8b\0", id="DISCONNECT"),
        pytest.param(b"\x3a" + message(QOS1, 1)[1:], id="DUP"),
        pytest.param(b"\x32\x05", id="another length"),
        pytest.param(b"\x62\x02\0\x01", id="PUBREL at QoS 1"),
    ],
)
def test_any_other_packet_is_no_result(loop: Loop, broker: Broker, foreign: bytes) -> None:
    client = subscriber(loop, broker, QOS1)
    with pytest.raises(LoadError, match="unexpected packet"):
        say(loop, broker, client, message(QOS1, 0) + foreign)


def test_a_closed_connection_is_no_result(loop: Loop, broker: Broker) -> None:
    client = subscriber(loop, broker, QOS1)
    broker.socket.shutdown(socket.SHUT_WR)
    client.socket.setblocking(True)
    with pytest.raises(LoadError, match="closed the connection"):
        client.readable()


def test_acknowledgements_are_counted_wherever_reads_split_them(loop: Loop, broker: Broker) -> None:
    client = publisher(loop, broker, QOS1)
    for split in range(1, 12):
        client.allow(3)
        sent = broker.heard(3 * QOS1.length)
        identifiers = [
            sent[at + QOS1.payload_at - 2 :][:2] for at in range(0, len(sent), QOS1.length)
        ]
        acknowledgements = b"".join(b"\x40\x02" + identifier for identifier in identifiers)
        say(loop, broker, client, acknowledgements[:split])
        assert client.acked == client.sent - 3 + split // 4
        say(loop, broker, client, acknowledgements[split:])
        assert client.idle


@pytest.mark.parametrize(
    "wrong",
    [
        pytest.param(bytes(answers(0x40, 2)[4:]), id="out of order"),
        pytest.param(bytes(answers(0x40, 3)), id="one not sent"),
        pytest.param(bytes(answers(0x50, 1)), id="of another QoS"),
    ],
)
def test_a_wrong_acknowledgement_is_no_result(loop: Loop, broker: Broker, wrong: bytes) -> None:
    client = publisher(loop, broker, QOS1)
    client.allow(2)
    with pytest.raises(LoadError, match=r"acknowledgements|unexpected packet"):
        say(loop, broker, client, wrong)


def test_the_window_holds_back_until_acknowledged(loop: Loop, broker: Broker) -> None:
    client = publisher(loop, broker, QOS2, window=2)
    client.allow(5)
    assert client.sent == 2
    say(loop, broker, client, bytes(answers(0x50, 2)))
    assert client.sent == 2
    broker.heard(2 * QOS2.length)
    assert broker.heard(8) == bytes(answers(0x62, 2))
    say(loop, broker, client, bytes(answers(0x70, 1)))
    assert (client.acked, client.sent) == (1, 3)


def test_every_number_is_right_when_the_ring_goes_round_and_bytes_carry(
    loop: Loop, broker: Broker, clock: Clock
) -> None:
    """The ring of 1280 does not end at 65,536."""
    client = publisher(loop, broker, QOS0, window=1280)
    batch = 500
    for first in range(0, 70_000, batch):
        clock.now = first
        client.allow(batch)
        sent = broker.heard(batch * QOS0.length)
        assert sent == b"".join(message(QOS0, first + n, stamp=first) for n in range(batch))


def test_a_subscriber_follows_the_numbers_through_a_carry(loop: Loop, broker: Broker) -> None:
    client = subscriber(loop, broker, QOS0)
    batch = 1000
    for first in range(0, 70_000, batch):
        broker.socket.sendall(b"".join(message(QOS0, first + n) for n in range(batch)))
        loop.run(partial(client.idle, [first + batch]), timeout_s=10)


def test_latency_is_counted_for_each_message_from_when_it_was_sent(
    loop: Loop, broker: Broker, clock: Clock
) -> None:
    client = subscriber(loop, broker, QOS1)
    latency = client.latency = Histogram()
    clock.now = 50  # the clock has gone round since the first of them was sent
    stamps = (2**32 - 50, 0, 0, 40)
    data = b"".join(message(QOS1, n, stamp=stamp) for n, stamp in enumerate(stamps))
    say(loop, broker, client, data)
    assert latency.count == 4
    assert [latency.quantile_us(part) for part in (0.25, 0.5, 0.75, 1)] == [10, 50, 50, 100]


def test_what_is_held_back_by_the_window_waits_from_when_it_was_offered(
    loop: Loop, broker: Broker, clock: Clock
) -> None:
    client = publisher(loop, broker, QOS1, window=1)
    clock.now = 100
    client.offer(2)
    assert broker.heard(QOS1.length) == message(QOS1, 0, 1, stamp=100)
    clock.now = 130
    client.stop()  # what was offered is sent
    say(loop, broker, client, bytes(answers(0x40, 1)))
    assert broker.heard(QOS1.length) == message(QOS1, 1, 2, stamp=100)
    clock.now = 170
    say(loop, broker, client, bytes(answers(0x40, 2)[4:]))
    assert client.idle
    assert [client.ack_latency.quantile_us(part) for part in (0.5, 1)] == [30, 70]


def test_a_publisher_waits_for_its_slowest_subscriber(loop: Loop, broker: Broker) -> None:
    client = publisher(loop, broker, QOS0)
    client.lead = 4
    client.allow(10)
    assert client.sent == 4
    received = subscriber(loop, other := Broker(), QOS0)
    say(loop, other, received, b"".join(message(QOS0, n) for n in range(3)))
    follow([client], [received])
    assert client.sent == 7
    other.close()


def test_a_publisher_is_synchronized_when_the_broker_has_read_everything(
    loop: Loop, broker: Broker
) -> None:
    client = publisher(loop, broker, QOS0)
    client.allow(1)
    broker.socket.sendall(b"\xd0\0")
    client.synchronize()
    assert broker.heard(QOS0.length + 2)[-2:] == b"\xc0\0"


def test_a_refused_connection_says_with_which_code(loop: Loop, broker: Broker) -> None:
    with pytest.raises(ConnectionRefused) as refused:
        publisher(loop, broker, QOS0, connack=b"\x20\x02\0\x05")
    assert refused.value.return_code == 5


def test_name_and_password_are_in_the_connect(loop: Loop, broker: Broker) -> None:
    address = Address(port=broker.address.port, username="u", password="p")
    broker.expect(CONNACK)
    Connection(loop, address, "a").connect()
    assert broker.heard(21) == packet(
        0x10, text("MQTT") + b"\x04\xc2\0\0" + text("a") + text("u") + text("p")
    )
