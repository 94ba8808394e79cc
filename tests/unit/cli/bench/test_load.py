"""The load generator sees every message, wherever reads split the bytes, and every wrong one."""

from __future__ import annotations

import struct
from functools import partial

import pytest

from cli.bench.connection import LoadError, Loop
from cli.bench.histogram import Histogram
from cli.bench.load import Publisher, Subscriber, follow
from cli.bench.packets import Shape, answers, packet, text
from tests.support.scripted_broker import ScriptedBroker

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


def subscriber(loop: Loop, broker: ScriptedBroker, shape: Shape, publishers: int = 1) -> Subscriber:
    broker.expect(CONNACK + packet(0x90, bytes((0, 1, shape.qos))))
    client = Subscriber(loop, broker.address, "sub", shape, publishers=publishers)
    subscribe = packet(0x82, b"\0\x01" + text(shape.topic) + bytes((shape.qos,)))
    assert broker.heard(CONNECT_BYTES + len(subscribe))[CONNECT_BYTES:] == subscribe
    return client


def publisher(loop: Loop, broker: ScriptedBroker, shape: Shape, window: int = 1000) -> Publisher:
    broker.expect(CONNACK)
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


def say(loop: Loop, broker: ScriptedBroker, client: Publisher | Subscriber, data: bytes) -> None:
    """The client reads exactly this."""
    broker.socket.sendall(data)
    client.socket.setblocking(True)
    client.readable()
    client.socket.setblocking(False)


@pytest.mark.parametrize("shape", [QOS0, QOS1, QOS2])
def test_messages_are_counted_wherever_reads_split_them(
    loop: Loop, broker: ScriptedBroker, shape: Shape
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


def test_qos_2_is_finished_when_it_is_released(loop: Loop, broker: ScriptedBroker) -> None:
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
    loop: Loop, broker: ScriptedBroker, sequences: list[int]
) -> None:
    client = subscriber(loop, broker, QOS1)
    data = b"".join(message(QOS1, sequence) for sequence in sequences)
    with pytest.raises(LoadError, match="lost, repeated or out of order"):
        say(loop, broker, client, data)


def test_the_order_of_each_publisher_counts_and_not_the_order_between_them(
    loop: Loop, broker: ScriptedBroker
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
def test_any_other_packet_is_no_result(loop: Loop, broker: ScriptedBroker, foreign: bytes) -> None:
    client = subscriber(loop, broker, QOS1)
    with pytest.raises(LoadError, match="unexpected packet"):
        say(loop, broker, client, message(QOS1, 0) + foreign)


def test_acknowledgements_are_counted_wherever_reads_split_them(
    loop: Loop, broker: ScriptedBroker
) -> None:
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
def test_a_wrong_acknowledgement_is_no_result(
    loop: Loop, broker: ScriptedBroker, wrong: bytes
) -> None:
    client = publisher(loop, broker, QOS1)
    client.allow(2)
    with pytest.raises(LoadError, match=r"acknowledgements|unexpected packet"):
        say(loop, broker, client, wrong)


def test_the_window_holds_back_until_acknowledged(loop: Loop, broker: ScriptedBroker) -> None:
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
    loop: Loop, broker: ScriptedBroker, clock: Clock
) -> None:
    """The ring of 1280 does not end at 65,536."""
    client = publisher(loop, broker, QOS0, window=1280)
    batch = 500
    for first in range(0, 70_000, batch):
        clock.now = first
        client.allow(batch)
        sent = broker.heard(batch * QOS0.length)
        assert sent == b"".join(message(QOS0, first + n, stamp=first) for n in range(batch))


def test_a_subscriber_follows_the_numbers_through_a_carry(
    loop: Loop, broker: ScriptedBroker
) -> None:
    client = subscriber(loop, broker, QOS0)
    batch = 1000
    for first in range(0, 70_000, batch):
        broker.socket.sendall(b"".join(message(QOS0, first + n) for n in range(batch)))
        loop.run(partial(client.idle, [first + batch]), timeout_s=10)


def test_latency_is_counted_for_each_message_from_when_it_was_sent(
    loop: Loop, broker: ScriptedBroker, clock: Clock
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
    loop: Loop, broker: ScriptedBroker, clock: Clock
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


def test_a_publisher_waits_for_its_slowest_subscriber(loop: Loop, broker: ScriptedBroker) -> None:
    client = publisher(loop, broker, QOS0)
    client.lead = 4
    client.allow(10)
    assert client.sent == 4
    received = subscriber(loop, other := ScriptedBroker(), QOS0)
    say(loop, other, received, b"".join(message(QOS0, n) for n in range(3)))
    follow([client], [received])
    assert client.sent == 7
    other.close()


def test_a_publisher_is_synchronized_when_the_broker_has_read_everything(
    loop: Loop, broker: ScriptedBroker
) -> None:
    client = publisher(loop, broker, QOS0)
    client.allow(1)
    broker.socket.sendall(b"\xd0\0")
    client.synchronize()
    assert broker.heard(QOS0.length + 2)[-2:] == b"\xc0\0"
