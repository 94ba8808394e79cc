"""Chapter 1.5 and 2: data types, the fixed header, properties."""

from __future__ import annotations

import pytest

from broker.mqtt.connection import Closed
from broker.mqtt.packets import Ack, PacketType, Publish
from tests.support.wire import Wire


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    "header", ["00", "11", "20", "41", "52", "60", "63", "71", "80", "83", "90", "A0", "B0", "C1",
               "D0", "E1", "F1"],
)  # fmt: skip
def test_a_reserved_type_or_flag_is_malformed(wire: Wire, version: int, header: str) -> None:
    """[MQTT-2.1.3-1, MQTT3-2.2.2-2]"""
    wire.connect(version)
    wire.client(f"{header} 02 0001  30 04 0001 't' 00")
    wire.broker("E0 .. 81 *" if version == 5 else "")
    wire.closed()


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize(
    "packet",
    ["32 (0001 't' 0000 {})", "34 (0001 't' 0000 {})", "82 (0000 {} 0001 't' 00)",
     "A2 (0000 {} 0001 't')", "40 02 0000", "50 02 0000", "62 02 0000", "70 02 0000"],
)  # fmt: skip
def test_packet_identifier_0_is_malformed(wire: Wire, version: int, packet: str) -> None:
    """[MQTT-2.2.1-3, MQTT3-2.3.1-1]"""
    wire.connect(version)
    wire.client(packet.format("00" if version == 5 else ""))
    assert [type(event) for event in wire.took()] == [Closed]
    wire.broker("E0 .. 81 *" if version == 5 else "")
    wire.closed()


def test_acknowledgements_before_packet_identifier_0_count(wire: Wire) -> None:
    wire.connect()
    wire.client("40 02 0001  40 02 0002  40 02 0000  40 02 0003")
    assert wire.took()[:-1] == [Ack(PacketType.PUBACK, [1]), Ack(PacketType.PUBACK, [2])]
    wire.broker("E0 .. 81 *")
    wire.closed()


@pytest.mark.parametrize("text", ["ED A0 80", "C0 80", "FF", "00"])
def test_a_string_that_is_not_utf_8_or_has_nul_is_malformed(wire: Wire, text: str) -> None:
    """[MQTT-1.5.4-1, MQTT-1.5.4-2]"""
    wire.connect()
    wire.client(f"30 (00 ({text}) 00)")
    wire.broker("E0 .. 81 *")
    wire.closed()


@pytest.mark.parametrize("text", ["ED A0 80", "C0 80", "FF", "61 00"])
@pytest.mark.parametrize(
    "packet",
    [
        "10 (0004 'MQTT' 05 02 003C 00  00 ({}))",  # client identifier
        "10 (0004 'MQTT' 05 06 003C 00  0001 'a' 00 00 ({}) 0000)",  # Will Topic
        "10 (0004 'MQTT' 05 06 003C 00  0001 'a' (03 00 ({})) 0001 't' 0000)",  # of a will
        "10 (0004 'MQTT' 05 82 003C 00  0001 'a' 00 ({}))",  # User Name
        "10 (0004 'MQTT' 05 02 003C (26 0001 'k' 00 ({}))  0001 'a')",
        "10 (0004 'MQTT' 05 02 003C (15 00 ({}))  0001 'a')",  # Authentication Method
        "30 (0001 't' (03 00 ({})))",  # Content Type
        "30 (0001 't' (08 00 ({})))",  # Response Topic
        "30 (0001 't' (26 00 ({}) 0001 'v'))",
        "30 (0001 't' (26 0001 'k' 00 ({})))",
        "40 (0001 00 (1F 00 ({})))",  # Reason String
        "82 (0001 00 00 ({}) 00)",  # Topic Filter
        "A2 (0001 00 00 ({}))",
        "E0 (00 (1F 00 ({})))",
    ],
)
def test_every_string_is_utf_8(wire: Wire, packet: str, text: str) -> None:
    """[MQTT-1.5.4-1, 2, MQTT-1.5.7-1, MQTT-3.1.3-4, 11, 12, MQTT-3.3.2-1, 13, 19, MQTT-3.8.3-1,
    MQTT-3.10.3-1]"""
    connects = packet.startswith("10")
    if not connects:
        wire.connect()
    wire.client(packet.format(text))
    wire.broker("20 .. 00 81 *" if connects else "E0 .. 81 *")
    wire.closed()


@pytest.mark.parametrize("text", ["ED A0 80", "C0 80", "FF", "61 00"])
@pytest.mark.parametrize(
    "packet",
    [
        "10 (0004 'MQTT' 04 02 003C  00 ({}))",
        "10 (0004 'MQTT' 04 06 003C  0001 'a' 00 ({}) 0000)",
        "10 (0004 'MQTT' 04 82 003C  0001 'a' 00 ({}))",
        "30 (00 ({}))",
        "82 (0001 00 ({}) 00)",
        "A2 (0001 00 ({}))",
    ],
)
def test_every_string_is_utf_8_in_3_1_1(wire: Wire, packet: str, text: str) -> None:
    """[MQTT3-1.5.3-1, 2, MQTT3-3.1.3-4, 10, 11, MQTT3-3.1.4-1, MQTT3-3.3.2-1, MQTT3-3.8.3-1,
    MQTT3-3.10.3-1] Nothing is said, since there is no word for it."""
    if not packet.startswith("10"):
        wire.connect(4)
    wire.client(packet.format(text))
    wire.closed()


def test_a_byte_order_mark_is_kept(wire: Wire) -> None:
    """[MQTT-1.5.4-3]"""
    wire.connect()
    wire.client("30 06 0003 EF BB BF 00")
    assert wire.took() == [Publish("\ufeff", b"", 0, False, False, 0)]


def test_a_remaining_length_of_five_bytes_is_malformed(wire: Wire) -> None:
    wire.connect()
    wire.client("30 FF FF FF FF 01")
    wire.broker("E0 .. 81 *")
    wire.closed()


@pytest.mark.parametrize("packet", ["C0 80 00", "30 84 00 0001 't' 00", "30 84 80 00 0001 't' 00"])
def test_a_padded_remaining_length_is_malformed_in_5(wire: Wire, packet: str) -> None:
    """[MQTT-1.5.5-1]"""
    wire.connect(5)
    wire.client(packet)
    wire.broker("E0 .. 81 *")
    wire.closed()


def test_a_padded_remaining_length_is_taken_in_3_1_1(wire: Wire) -> None:
    """Small devices write it with a fixed width, and 3.1.1 does not forbid it."""
    wire.connect(4)
    wire.client("C0 80 00  40 82 00 0007  30 83 80 00 0001 't'")
    wire.broker("D0 00")
    assert wire.took() == [
        Ack(PacketType.PUBACK, [7]),
        Publish("t", b"", 0, False, False, 0),
    ]
    wire.open()


@pytest.mark.parametrize("packet", ["30 80 80 00 00", "30 80 80 80 00", "32 81 80 00 00"])
def test_a_padded_remaining_length_may_say_too_little(wire: Wire, packet: str) -> None:
    """More bytes are there than the shortest PUBLISH has, but not in the packet."""
    wire.connect(4)
    wire.client(packet)
    assert wire.took() == [Closed(0x81, "a PUBLISH is shorter than its fields")]
    wire.closed()


def test_a_packet_over_the_limit_is_refused_when_it_is_declared(wire: Wire) -> None:
    """[MQTT-3.2.2-15] The body has not come."""
    wire.limits(packet_bytes_max=300)
    wire.connect()
    wire.client("30 AA 02")
    wire.broker("E0 .. 95 *")
    wire.closed()


def test_the_largest_packet_there_is_costs_no_more_than_its_header(wire: Wire) -> None:
    """256 MB are announced; what comes of them is not kept."""
    wire.limits(packet_bytes_max=2 * 1024 * 1024)
    wire.connect()
    wire.client("30 FF FF FF 7F  00*100")
    wire.broker("E0 .. 95 *")
    wire.closed()


def test_a_packet_over_the_limit_is_refused_when_it_is_whole(wire: Wire) -> None:
    wire.limits(packet_bytes_max=300)
    wire.connect()
    wire.client("30 AA 02 0001 't' 00 41*294")
    wire.broker("E0 .. 95 *")
    wire.closed()


def test_more_properties_than_are_permitted_are_refused(wire: Wire) -> None:
    """Reason Code 0x97: a limit that the implementation sets was exceeded."""
    wire.limits(properties_per_packet_max=2)
    wire.connect()
    wire.client("30 0E 0001 't' (26 0000 0000  26 0000 0000)")
    assert len(wire.took()) == 1
    wire.client("30 10 0001 't' (26 0000 0000  26 0000 0000  01 00)")
    wire.broker("E0 .. 97 *")
    wire.closed()
    wire.limits(properties_per_packet_max=2)
    wire.client("10 1D  0004 'MQTT' 05 02 003C (26 0000 0000  26 0000 0000  26 0000 0000) 0001 'a'")
    wire.broker("20 .. 00 97 *")
    wire.closed()


def test_a_packet_at_the_limit_is_taken(wire: Wire) -> None:
    wire.limits(packet_bytes_max=300)
    wire.connect()
    wire.client("30 A9 02 0001 't' 00 41*293")
    assert wire.took() == [Publish("t", b"A" * 293, 0, False, False, 0)]
    wire.open()


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        ("82 0A 0001 02 7E00 0001 't' 00 00", "81"),  # no such property
        ("82 08 0001 02 0100 0001 't'", "82"),  # Payload Format Indicator in SUBSCRIBE
        ("82 0B 0001 04 0B01 0B02 0001 't' 00", "82"),  # two Subscription Identifiers
        ("82 09 0001 02 0B00 0001 't' 00", "82"),  # Subscription Identifier 0
        ("82 06 0001 7F 0B01 00", "81"),  # longer than the packet
        ("82 09 0001 01 0B01 0001 't' 00", "81"),  # ends in the middle of a property
        ("30 08 0001 't' 04 0100 0100", "82"),  # Payload Format Indicator twice
        ("30 06 0001 't' 02 0102", "82"),  # Payload Format Indicator 2
        ("30 06 0001 't' 02 0B01", "82"),  # Subscription Identifier from a client
    ],
)
def test_bad_properties(wire: Wire, packet: str, code: str) -> None:
    """Section 2.2.2.2. [MQTT-3.3.4-6]"""
    wire.connect()
    wire.client(packet)
    wire.broker(f"E0 .. {code} *")
    wire.closed()


def test_good_packets_before_a_bad_one_count(wire: Wire) -> None:
    wire.connect(4)
    wire.client("30 03 0001 't'  36 05 0001 't' 0001  30 03 0001 't'")
    events = wire.took()
    assert events[0] == Publish("t", b"", 0, False, False, 0)
    assert isinstance(events[1], Closed)
    assert events[1].reason_code == 0x81
    assert len(events) == 2
    wire.closed()
