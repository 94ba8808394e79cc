"""What `tests/wire` cannot show: who calls what when. Rules in bytes are tested there."""

from __future__ import annotations

import pytest

from broker.config import Config
from broker.counters import Traffic
from broker.message import Grant, Message, Monotonic
from broker.mqtt.connection import Closed, Connection
from broker.mqtt.encode import encode
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    Ack,
    Connack,
    Connect,
    Disconnect,
    PacketType,
    Pingreq,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from tests.support.wire import script_bytes

NOW = Monotonic(0.0)

LIMITS = Limits.of(Config(connect_timeout_s=10.0))


@pytest.fixture
def connection() -> Connection:
    return Connection(now=NOW, limits=LIMITS)


def connect(version: int) -> bytes:
    return encode(Connect(version, "c", True, 60), version)


def test_before_connect_nothing_is_known(connection: Connection) -> None:
    assert connection.version == 0
    assert connection.client_id == ""
    assert connection.data_to_send() == b""
    assert connection.deadline() == 10.0


def test_a_client_need_not_wait_for_connack(connection: Connection) -> None:
    publish = Publish("t", b"", 0, False, False, 0)
    events = connection.receive_data(connect(5) + encode(publish, 5), Monotonic(1.0))
    assert [type(event) for event in events] == [Connect, Publish]
    assert connection.deadline() == 10.0, "not accepted yet"
    connection.accept(Connack(False, 0))
    assert connection.deadline() == 91.0


def test_a_mistake_before_the_acceptance_gets_a_connack(connection: Connection) -> None:
    """[MQTT-3.14.0-1] The server sends no DISCONNECT before its CONNACK."""
    events = connection.receive_data(connect(5) + b"\x3e\x00", NOW)
    assert [type(event) for event in events] == [Connect, Closed]
    connection.accept(Connack(False, 0))
    answer = connection.data_to_send()
    assert (answer[0], answer[3]) == (0x20, 0x81)
    assert connection.closed


@pytest.mark.parametrize(
    ("version", "answer"), [(4, "20 02 00 05"), (5, "20 (00 87 (1F 0007 'go away'))")]
)
def test_refusing_a_client(connection: Connection, version: int, answer: str) -> None:
    connection.receive_data(connect(version), NOW)
    connection.close(0x87, "go away")
    assert connection.data_to_send() == script_bytes(answer)
    assert connection.closed
    assert connection.receive_data(encode(Pingreq(), version), NOW) == []


def test_what_3_1_1_has_no_return_code_for_is_not_answered(connection: Connection) -> None:
    connection.receive_data(connect(4), NOW)
    connection.close(0x8E, "elsewhere")
    assert connection.data_to_send() == b""
    assert connection.closed


def test_a_code_that_the_packet_may_not_carry_is_replaced(connection: Connection) -> None:
    """[MQTT-3.14.2-1]"""
    connection.receive_data(connect(5), NOW)
    connection.accept(Connack(False, 0))
    connection.data_to_send()
    connection.close(0x85)
    assert connection.data_to_send() == script_bytes("E0 01 80")


def test_a_code_that_connack_may_not_carry_is_replaced(connection: Connection) -> None:
    """[MQTT-3.2.2-8]"""
    connection.receive_data(connect(5), NOW)
    connection.close(0x8B)
    assert connection.data_to_send() == script_bytes("20 03 00 88 00")


def test_a_connect_that_nobody_answers_expires(connection: Connection) -> None:
    connection.receive_data(connect(4), NOW)
    assert connection.expire(Monotonic(9.9)) is None
    closed = connection.expire(Monotonic(10.0))
    assert closed is not None
    assert closed.reason_code == 0x88
    assert connection.data_to_send() == script_bytes("20 02 00 03")
    assert connection.expire(Monotonic(11.0)) is None


def test_what_is_queued_is_taken_once_and_in_order(connection: Connection) -> None:
    connection.receive_data(connect(4), NOW)
    connection.accept(Connack(True, 0))
    connection.send(Ack(PacketType.PUBACK, [1, 2]))
    connection.receive_data(encode(Pingreq(), 4), NOW)
    wanted = "20 02 01 00  40 02 0001  40 02 0002  D0 00"
    assert connection.data_to_send() == script_bytes(wanted)
    assert connection.data_to_send() == b""


def test_what_was_queued_before_the_end_is_still_sent(connection: Connection) -> None:
    connection.receive_data(connect(4), NOW)
    connection.accept(Connack(False, 0))
    connection.receive_data(encode(Pingreq(), 4) + encode(Disconnect(), 4), NOW)
    assert connection.closed
    assert connection.data_to_send() == script_bytes("20 02 00 00  D0 00")


def test_every_packet_is_counted_once() -> None:
    traffic = Traffic()
    connection = Connection(now=NOW, limits=LIMITS, traffic=traffic)
    connection.receive_data(connect(4), NOW)
    connection.accept(Connack(False, 0))
    assert (traffic.received, traffic.sent) == (1, 1)
    publish = encode(Publish("t", b"", 0, False, False, 0), 4)
    acks = encode(Ack(PacketType.PUBACK, range(1, 6)), 4)
    connection.receive_data(2 * publish + acks + publish + encode(Pingreq(), 4), NOW)
    assert (traffic.received, traffic.sent) == (1 + 9, 1 + 1)
    connection.send(Ack(PacketType.PUBACK, [1, 2, 3]))
    message = Message("t", b"", 0, False, "", 0)
    connection.send_publishes([(message, Grant(0))] * 4, [0] * 4, now_us=0)
    assert traffic.sent == 2 + 3 + 4
    connection.receive_data(publish[:1], NOW)
    connection.receive_data(publish[1:] + b"\xff\0", NOW)
    assert traffic.received == 10 + 1 + 1


@pytest.mark.parametrize("version", [4, 5])
def test_what_is_wrong_in_the_last_of_many_filters_closes(
    connection: Connection, version: int
) -> None:
    """As in the first: nothing of the packet counts."""
    connection.receive_data(connect(version), NOW)
    connection.accept(Connack(False, 0))
    filters = [*(f"t/{n}" for n in range(1500)), "t/#/x"]
    subscribe = Subscribe(1, [SubscriptionRequest(filter, 1) for filter in filters])
    events = connection.receive_data(encode(subscribe, version), NOW)
    assert events == []
    while connection.has_more:
        events += connection.receive_data(b"", NOW)
    (closed,) = events
    assert isinstance(closed, Closed)
    assert connection.closed
