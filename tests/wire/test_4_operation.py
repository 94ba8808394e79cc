"""Chapter 4: flow control, keep alive, errors, and what a client did not want to read."""

from __future__ import annotations

import pytest

from broker.message import Grant, Message, Monotonic
from broker.mqtt.connection import Closed
from broker.mqtt.packets import (
    Ack,
    Auth,
    FromServer,
    PacketType,
    Properties,
    Publish,
    Suback,
    Unsuback,
)
from broker.mqtt.properties import Property
from tests.support.wire import Wire

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP


class TestReceiveMaximum:
    """[MQTT-3.3.4-7, MQTT-4.9.0-1, MQTT-4.9.0-2]"""

    def test_one_too_many_ends_the_connection_after_the_others(self, wire: Wire) -> None:
        wire.limits(receive_max=2)
        wire.connect()
        wire.client("32 06 0001 't' 0001 00  30 04 0001 't' 00  34 06 0001 't' 0002 00")
        wire.open()
        wire.client("32 06 0001 't' 0003 00")
        events = wire.took()
        assert [event.packet_id for event in events if isinstance(event, Publish)] == [1, 0, 2]
        assert isinstance(events[-1], Closed)
        wire.broker("E0 .. 93 *")
        wire.closed()

    @pytest.mark.parametrize(
        "ack", [Ack(PUBACK, [1]), Ack(PUBCOMP, [1]), Ack(PUBREC, [1], reason_code=0x87)]
    )
    def test_is_restored_when_the_exchange_ends(self, wire: Wire, ack: Ack) -> None:
        wire.limits(receive_max=1)
        wire.connect()
        for _ in range(3):
            wire.client("34 06 0001 't' 0001 00")
            wire.send(ack)
            wire.broker("*")
            wire.open()

    @pytest.mark.parametrize("ack", [Ack(PUBREC, [1]), Ack(PUBREL, [1])])
    def test_is_not_restored_before(self, wire: Wire, ack: Ack) -> None:
        wire.limits(receive_max=1)
        wire.connect()
        wire.client("34 06 0001 't' 0001 00")
        wire.send(ack)
        wire.broker("*")
        wire.client("34 06 0001 't' 0002 00")
        wire.broker("E0 .. 93 *")
        wire.closed()

    def test_never_exceeds_what_was_told(self, wire: Wire) -> None:
        wire.limits(receive_max=1)
        wire.connect()
        wire.send(Ack(PUBCOMP, [1, 2, 3]))  # left from another connection
        wire.broker("*")
        wire.client("32 06 0001 't' 0001 00  32 06 0001 't' 0002 00")
        wire.broker("E0 .. 93 *")
        wire.closed()

    def test_is_not_in_3_1_1(self, wire: Wire) -> None:
        wire.limits(receive_max=1)
        wire.connect(4)
        wire.client("32 05 0001 't' 0001  32 05 0001 't' 0002")
        wire.send(Ack(PUBACK, [1]))
        wire.broker("40 02 0001")
        wire.client("32 05 0001 't' 0003  32 05 0001 't' 0004")
        assert len(wire.took()) == 4
        wire.open()


class TestKeepAlive:
    def test_is_one_and_a_half_times_what_connect_says(self, wire: Wire) -> None:
        """[MQTT-3.1.2-22]"""
        wire.now = Monotonic(100.0)
        wire.connect()
        assert wire.connection.deadline() == 190.0
        wire.now = Monotonic(150.0)
        wire.client("C0 00")
        wire.broker("D0 00")
        assert wire.connection.deadline() == 240.0
        assert wire.connection.expire(Monotonic(239.9)) is None
        wire.open()
        closed = wire.connection.expire(Monotonic(240.0))
        assert closed is not None
        assert closed.reason_code == 0x8D
        wire.broker("E0 .. 8D *")
        wire.closed()

    @pytest.mark.parametrize("packet", ["30 04 0001 't' 00", "40 02 0001", "C0 00"])
    def test_counts_from_any_packet(self, wire: Wire, packet: str) -> None:
        wire.connect()
        wire.now = Monotonic(80.0)
        wire.client(packet)
        assert wire.connection.deadline() == 170.0

    @pytest.mark.parametrize("begun", ["82 09 0001 00", "E0", "C0"])
    def test_counts_from_a_whole_packet(self, wire: Wire, begun: str) -> None:
        wire.connect()
        wire.now = Monotonic(80.0)
        wire.client(begun)
        assert wire.connection.deadline() == 90.0

    @pytest.mark.parametrize("version", [4, 5])
    @pytest.mark.parametrize("begun", ["30", "32 FF", "34 FF 01 0001 't'", "C0 00 3B 20 0001"])
    def test_counts_from_what_arrives_of_a_publish(
        self, wire: Wire, version: int, begun: str
    ) -> None:
        wire.connect(version)
        wire.now = Monotonic(80.0)
        wire.client(begun)
        assert wire.connection.deadline() == 170.0
        wire.now = Monotonic(165.0)
        wire.client("01")
        assert wire.connection.deadline() == 255.0
        assert not wire.connection.closed

    def test_gives_one_publish_ten_times_what_connect_says(self, wire: Wire) -> None:
        wire.connect()
        wire.client("32 C8 01 0001 't' 0001 00")
        for second in range(50, 600, 50):
            wire.now = Monotonic(float(second))
            wire.client("00")
        assert wire.connection.deadline() == 600.0
        assert wire.connection.expire(Monotonic(600.0)) is not None

    def test_gives_the_next_publish_as_long_again(self, wire: Wire) -> None:
        wire.connect()
        for begun_at in (0.0, 500.0):
            wire.now = Monotonic(begun_at)
            wire.client("32 0E 0001 't' 0001 00")
            for i in range(8):
                wire.now = Monotonic(begun_at + 60 * i)
                wire.client("00")
        assert wire.connection.deadline() == 1010.0

    def test_does_not_count_while_nothing_was_read(self, wire: Wire) -> None:
        wire.connect()
        wire.client("32 20 0001 't' 0001 00")
        wire.connection.keep_alive.read_again(Monotonic(5000.0))
        assert wire.connection.deadline() == 5090.0
        wire.now = Monotonic(5050.0)
        wire.client("00")
        assert wire.connection.deadline() == 5140.0

    def test_is_silent_in_3_1_1(self, wire: Wire) -> None:
        wire.connect(4)
        assert wire.connection.expire(Monotonic(90.0))
        wire.closed()

    def test_0_is_none(self, wire: Wire) -> None:
        wire.client("10 0E  0004 'MQTT' 05 02 0000 00  0001 'a'")
        wire.broker("20 03 00 00 00")
        assert wire.connection.deadline() is None
        assert wire.connection.expire(Monotonic(1e9)) is None

    def test_of_the_server_wins(self, wire: Wire) -> None:
        """[MQTT-3.2.2-21, 22]"""
        wire.connack = {Property.SERVER_KEEP_ALIVE: 10}
        wire.client("10 0E  0004 'MQTT' 05 02 0000 00  0001 'a'")
        wire.broker("20 06 00 00 03 13 000A")
        assert wire.connection.deadline() == 15.0


class TestConnectTimeout:
    def test_runs_until_connect_is_whole(self, wire: Wire) -> None:
        """Section 3.1.4: "within a reasonable amount of time"."""
        wire.now = Monotonic(5.0)
        wire.client("10 0E  0004 'MQTT'")
        assert wire.connection.deadline() == 10.0
        closed = wire.connection.expire(Monotonic(10.0))
        assert closed is not None
        wire.closed()
        assert wire.connection.deadline() is None


class TestMaximumPacketSize:
    """The client of these accepts 20 bytes."""

    @pytest.fixture
    def small(self, wire: Wire) -> Wire:
        wire.client("10 13  0004 'MQTT' 05 02 003C 05 27 00000014  0001 'a'")
        wire.broker("20 03 00 00 00")
        return wire

    def test_a_reason_string_that_fits_is_sent(self, small: Wire) -> None:
        small.send(Ack(PUBACK, [1], 0x87, "sorry"))
        small.broker("40 0C 0001 87 08 1F 0005 'sorry'")

    def test_one_that_does_not_is_left_out(self, small: Wire) -> None:
        """[MQTT-3.4.2-2, MQTT-3.4.2-3, MQTT-3.9.2-2]"""
        small.send(Ack(PUBACK, [1, 2], 0x87, "sorry" * 3))
        small.broker("40 03 0001 87 40 03 0002 87")
        small.send(Suback(1, [0], {Property.USER_PROPERTY: [("k" * 10, "v" * 10)]}))
        small.broker("90 04 0001 00 00")
        small.connection.close(0x98, "because the operator said so")
        small.broker("E0 01 98")
        small.closed()

    @pytest.mark.parametrize(
        ("kind", "code", "answer"),
        [
            (PUBACK, 0x87, "40 03 0001 87"),
            (PUBREC, 0x97, "50 03 0001 97"),
            (PUBREL, 0x92, "62 03 0001 92"),
            (PUBCOMP, 0x92, "70 03 0001 92"),
        ],
    )
    @pytest.mark.parametrize("what", ["reason", "user"])
    def test_every_acknowledgement_leaves_out_what_is_too_long(
        self, small: Wire, kind: PacketType, code: int, answer: str, what: str
    ) -> None:
        """[MQTT-3.4.2-2, 3, MQTT-3.5.2-2, 3, MQTT-3.6.2-2, 3, MQTT-3.7.2-2, 3]"""
        reason, pairs = ("r" * 20, []) if what == "reason" else (None, [("k" * 9, "v" * 9)])
        small.send(Ack(kind, [1], code, reason, pairs))
        small.broker(answer)
        small.open()

    @pytest.mark.parametrize(
        "properties",
        [{Property.REASON_STRING: "r" * 20}, {Property.USER_PROPERTY: [("k" * 9, "v" * 9)]}],
    )
    def test_so_do_suback_and_unsuback(self, small: Wire, properties: Properties) -> None:
        """[MQTT-3.9.2-1, 2, MQTT-3.11.2-1, 2]"""
        small.send(Suback(1, [0, 0x8F], dict(properties)))
        small.send(Unsuback(1, [0, 0x11], dict(properties)))
        small.broker("90 05 0001 00 00 8F   B0 05 0001 00 00 11")

    def test_so_does_auth(self, small: Wire) -> None:
        """[MQTT-3.15.2-2, 3]"""
        small.send(Auth(0x18, "m", b"", "r" * 20))
        small.send(Auth(0x18, "m", b"", None, [("k" * 9, "v" * 9)]))
        small.broker("F0 09 18 07 15 0001 'm' 16 0000" * 2)

    def test_so_does_disconnect(self, small: Wire) -> None:
        """[MQTT-3.14.2-3, 4, MQTT-4.13.2-1]"""
        small.connection.close(0x98, "because the operator said so")
        small.broker("E0 01 98")
        small.closed()

    def test_a_run_of_acknowledgements_is_many_packets(self, small: Wire) -> None:
        small.send(Ack(PUBACK, list(range(1, 101))))
        assert len(small.connection.data_to_send()) == 400

    def test_a_message_that_does_not_fit_is_not_sent(self, small: Wire) -> None:
        """[MQTT-3.1.2-24, MQTT-3.1.2-25]"""
        messages = [Message("t", b"x" * size, 1, False, "p", 0) for size in (12, 13, 12)]
        left_out = small.connection.send_publishes(
            [(message, Grant(1)) for message in messages], [1, 2, 3], now_us=0
        )
        assert left_out == [1]
        small.broker("32 12 0001 't' 0001 00 78*12   32 12 0001 't' 0003 00 78*12")

    def test_an_answer_that_cannot_be_left_out_ends_the_connection(self, small: Wire) -> None:
        small.send(Suback(1, [0] * 100))
        small.closed()


TOLD: Properties = {Property.REASON_STRING: "sorry", Property.USER_PROPERTY: [("k", "v")]}


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        (Ack(PUBACK, [1], 0x87, "sorry", [("k", "v")]), "40 03 0001 87"),
        (Ack(PUBREC, [1], 0x97, "sorry", [("k", "v")]), "50 03 0001 97"),
        (Ack(PUBREL, [1], 0x92, "sorry", [("k", "v")]), "62 03 0001 92"),
        (Ack(PUBCOMP, [1], 0x92, "sorry", [("k", "v")]), "70 03 0001 92"),
        (Suback(1, [0x87], TOLD), "90 04 0001 00 87"),
        (Unsuback(1, [0x87], TOLD), "B0 04 0001 00 87"),
        (Auth(0x18, "m", None, "sorry", [("k", "v")]), "F0 06 18 04 15 0001 'm'"),
    ],
)
def test_problem_information_is_only_sent_to_who_wants_it(
    wire: Wire, packet: FromServer, answer: str
) -> None:
    """[MQTT-3.1.2-29] Only CONNACK, PUBLISH and DISCONNECT may have it all the same."""
    wire.connack = dict(TOLD)
    wire.client("10 10  0004 'MQTT' 05 02 003C 02 17 00  0001 'a'")
    wire.broker("20 12 00 00 0F 1F 0005 'sorry' 26 0001 'k' 0001 'v'")
    wire.send(packet)
    wire.broker(answer)
    wire.connection.close(0x8E, "elsewhere")
    wire.broker("E0 0E 8E 0C 1F 0009 'elsewhere'")


@pytest.mark.parametrize(
    ("version", "answer"),
    [
        (4, "30 04 0001 't' 'x'   32 06 0001 't' 0002 'x'   34 06 0001 't' 0003 'x'"),
        (5, "30 05 0001 't' 00 'x'  32 07 0001 't' 0002 00 'x'  34 07 0001 't' 0003 00 'x'"),
    ],
)
def test_messages_towards_the_client(wire: Wire, version: int, answer: str) -> None:
    """[MQTT-2.2.1-2, MQTT-2.2.2-1, MQTT-4.3.1-1, MQTT3-2.3.1-5, MQTT3-4.3.1-1] No Topic Alias goes
    to a client that takes none. [MQTT-3.1.2-26, 27]"""
    wire.connect(version)
    outgoing = [(Message("t", b"x", qos, True, "p", 0), Grant(2)) for qos in (0, 1, 2)]
    assert wire.connection.send_publishes(outgoing, [0, 2, 3], now_us=0) == []
    wire.broker(answer)


@pytest.mark.parametrize(("version", "answer"), [(4, ""), (5, "E0 01 8B")])
def test_closing_from_our_side(wire: Wire, version: int, answer: str) -> None:
    """[MQTT-3.14.2-2, MQTT-3.14.4-1, 2] and once only."""
    wire.connect(version)
    wire.connection.close(0x8B)
    wire.connection.close(0x8E)
    wire.send(Ack(PUBACK, [1]))
    wire.broker(answer)
    wire.client("C0 00")
    wire.closed()
    assert wire.took() == []
