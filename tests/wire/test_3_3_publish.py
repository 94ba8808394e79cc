"""Chapter 3.3 to 3.7: PUBLISH and its acknowledgements."""

from __future__ import annotations

import pytest

from broker.mqtt.connection import Closed
from broker.mqtt.packets import Ack, PacketType, Publish, RefusedPublish
from tests.support.wire import Wire

RESERVED = (
    0x90,
    "Topic Name begins with $SYS: only the broker publishes there",
    "published to $SYS",
)
HAS_CONTROL_CHARACTER = (
    0x90,
    "Topic Name has a control character or non-character: leave it out",
    "control character in a topic",
)


def text(characters: str) -> str:
    """Their encoding with its length, in a script."""
    encoded = characters.encode()
    return f"{len(encoded):04X} {encoded.hex()}"


def test_publish_5(wire: Wire) -> None:
    wire.connect()
    wire.client("30 06 0001 't' 00 'hi'  33 08 0001 't' 0007 00 'hi'  3C 06 0001 't' FFFF 00")
    assert wire.took() == [
        Publish("t", b"hi", 0, False, False, 0),
        Publish("t", b"hi", 1, True, False, 7),
        Publish("t", b"", 2, False, True, 65_535),
    ]
    wire.open()


def test_publish_3_1_1(wire: Wire) -> None:
    wire.connect(4)
    wire.client("31 05 0001 't' 'hi'  34 07 0001 't' 0007 'hi'")
    assert wire.took() == [
        Publish("t", b"hi", 0, True, False, 0),
        Publish("t", b"hi", 2, False, False, 7),
    ]
    wire.open()


def test_properties_to_forward_stay_as_they_are(wire: Wire) -> None:
    """[MQTT-3.3.2-4, 15, 16, 18, 20] Message Expiry and Topic Alias are taken out."""
    wire.limits(topic_alias_max=1)
    wire.connect()
    wire.client(
        "30 (0001 't' (26 0001 'b' 0001 '1'  02 0000000A  26 0001 'a' 0001 '2'  23 0001"
        " 01 01  08 0001 'r'  09 0002 FF00  03 0001 'c') 'hi')"
    )
    [publish] = wire.took()
    assert isinstance(publish, Publish)
    assert publish.properties == (
        b"\x26\0\x01b\0\x011" b"\x26\0\x01a\0\x012" b"\x01\x01" b"\x08\0\x01r" b"\x09\0\x02\xff\0"
        b"\x03\0\x01c"
    )  # fmt: skip
    assert publish.message_expiry_s == 10
    assert publish.payload == b"hi"


@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("header", ["36", "37", "38", "39", "3E", "3F"])
def test_qos_3_and_dup_without_qos_are_malformed(wire: Wire, version: int, header: str) -> None:
    """[MQTT-3.3.1-2, MQTT-3.3.1-4, MQTT3-3.3.1-2, MQTT3-3.3.1-4]"""
    wire.connect(version)
    wire.client(f"{header} 06 0001 't' 0001 00")
    assert [type(event) for event in wire.took()] == [Closed]
    wire.broker("E0 .. 81 *" if version == 5 else "")
    wire.closed()


@pytest.mark.parametrize(
    ("topic", "code"), [("0001 '#'", "90"), ("0003 'a/+'", "90"), ("0000", "82")]
)
def test_a_wildcard_or_nothing_is_no_topic(wire: Wire, topic: str, code: str) -> None:
    """[MQTT-3.3.2-1, MQTT-3.3.2-2]"""
    wire.connect()
    wire.client(f"30 ({topic} 00)")
    wire.broker(f"E0 .. {code} *")
    wire.closed()


@pytest.mark.parametrize("packet", ["30 02 0000", "30 03 0000 'x'", "32 04 0000 0001"])
def test_an_empty_topic_is_one_mistake_however_it_is_cut(wire: Wire, packet: str) -> None:
    """[MQTT3-4.7.3-1]"""
    wire.connect(4)
    wire.client(packet)
    assert wire.took() == [Closed(0x82, "a message has no Topic Name")]
    wire.closed()


def test_a_bad_topic_is_answered_with_silence_in_3_1_1(wire: Wire) -> None:
    wire.connect(4)
    wire.client("30 03 0001 '#'")
    wire.closed()


def test_a_reserved_topic_refuses_the_packet_and_not_the_connection(wire: Wire) -> None:
    """Section 4.7.2. The others keep their order, and an alias for it is set as any other."""
    wire.limits(topic_alias_max=1)
    wire.connect()
    wire.client(
        "30 05 0001 't' 00 '1'  32 0B 0006 '$SYS/x' 0007 00  34 08 0003 '$SY' 0008 00"
        "  30 (0004 '$SYS' (23 0001) 'x')  30 (0000 (23 0001) 'x')  C0 00"
        "  30 (0005 '$SYSx' 00 '2')"
    )
    assert wire.took() == [
        Publish("t", b"1", 0, False, False, 0),
        RefusedPublish(1, 7, *RESERVED),
        Publish("$SY", b"", 2, False, False, 8),
        RefusedPublish(0, 0, *RESERVED),
        RefusedPublish(0, 0, *RESERVED),
        Publish("$SYSx", b"2", 0, False, False, 0),
    ]
    wire.broker("D0 00")
    wire.open()


@pytest.mark.parametrize("code", [0x01, 0x1F, 0x7F, 0x80, 0x9F, 0xFDD0, 0xFFFE, 0x1FFFF])
@pytest.mark.parametrize("version", [4, 5])
def test_a_control_character_refuses_the_packet_and_not_the_connection(
    wire: Wire, version: int, code: int
) -> None:
    """Section 1.5.4 permits it: some clients close the connection on which they receive one."""
    wire.connect(version)
    topic, none = text(f"a/{chr(code)}"), "00" if version == 5 else ""
    wire.client(
        f"30 ({topic} {none} 'x')  32 ({topic} 0007 {none})  34 ({topic} 0008 {none} 'x')"
        f"32 (0001 't' 0009 {none} '1')"
    )
    assert wire.took() == [
        RefusedPublish(0, 0, *HAS_CONTROL_CHARACTER),
        RefusedPublish(1, 7, *HAS_CONTROL_CHARACTER),
        RefusedPublish(2, 8, *HAS_CONTROL_CHARACTER),
        Publish("t", b"1", 1, False, False, 9),
    ]
    wire.open()


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_a_response_topic_with_a_control_character_refuses_the_packet(wire: Wire, qos: int) -> None:
    wire.limits(topic_alias_max=1)
    wire.connect()
    first, packet_id = f"{0x30 | qos << 1:02X}", "0007" if qos else ""
    for _ in range(2):  # The second is known already.
        wire.client(f"{first} (0001 't' {packet_id} (23 0001 08 0002 'r' 09) 'x')")
    wire.client("30 (0000 (23 0001) '1')")
    code, reason, dropped_as = HAS_CONTROL_CHARACTER
    refused = RefusedPublish(
        qos, 7 if qos else 0, code, reason.replace("Topic Name", "Response Topic"), dropped_as
    )
    assert wire.took() == [refused, refused, Publish("t", b"1", 0, False, False, 0)]
    wire.open()


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize(
    ("name", "encoded"),
    [
        ("Content Type", "03 0002 't' 0A"),
        ("User Property", "26 0001 'k' 0002 'v' 0A"),
        ("User Property", "26 0001 'k' 0003 'v' C285"),
        ("User Property", "26 0002 'k' 1F 0001 'v'"),
        ("User Property", "26 0001 'k' 0001 'v'  26 0001 'k' 0003 EFBFBF"),
    ],
)
def test_a_text_with_a_control_character_refuses_the_packet(
    wire: Wire, name: str, encoded: str, qos: int
) -> None:
    """Section 1.5.4 permits it: mosquitto_sub closes the connection on which it receives one, a
    newline in a User Property included."""
    wire.limits(topic_alias_max=1)
    wire.connect()
    first, packet_id = f"{0x30 | qos << 1:02X}", "0007" if qos else ""
    for _ in range(2):  # The second is known already.
        wire.client(f"{first} (0001 't' {packet_id} (23 0001 {encoded}) 'x')")
    wire.client("30 (0000 (23 0001) '1')")
    refused = RefusedPublish(
        qos,
        7 if qos else 0,
        0x99,
        f"{name} has a control character or non-character: leave it out",
        "control character in a property",
    )
    assert wire.took() == [refused, refused, Publish("t", b"1", 0, False, False, 0)]
    wire.open()


def test_topic_limits(wire: Wire) -> None:
    wire.limits(topic_levels_max=2, topic_bytes_max=4)
    wire.connect()
    wire.client("30 06 0003 'a/b' 00")
    wire.open()
    wire.client("30 08 0005 'a/bcd' 00")
    wire.broker("E0 .. 90 *")
    wire.closed()


def test_the_most_levels_there_can_be(wire: Wire) -> None:
    """65,536 of them: as many as a string can have."""
    wire.connect()
    wire.client(f"30 82 80 04 FFFF {'2F' * 65_535} 00")
    wire.broker("E0 .. 90 *")
    wire.closed()


@pytest.mark.parametrize(
    "packet",
    ["30 00", "30 01 00", "30 02 0001", "30 03 0001 't'", "32 05 0001 't' 0001",
     "30 04 0009 't' 00", "30 04 0001 't' 05", "32 04 0001 't' 00"],
)  # fmt: skip
def test_a_publish_shorter_than_its_fields_is_malformed(wire: Wire, packet: str) -> None:
    wire.connect()
    wire.client(packet + " 30 04 0001 't' 00")
    wire.broker("E0 .. 81 *")
    wire.closed()


def test_a_response_topic_has_no_wildcard(wire: Wire) -> None:
    """[MQTT-3.3.2-14]"""
    wire.connect()
    wire.client("30 08 0001 't' 04 08 0001 '#'")
    wire.broker("E0 .. 82 *")
    wire.closed()


def test_a_response_topic_is_not_empty(wire: Wire) -> None:
    """[MQTT-4.7.3-1] It is a topic that somebody is to publish to."""
    wire.connect()
    wire.client("32 09 0001 't' 0001 03 08 0000")
    wire.broker("E0 .. 82 *")
    wire.closed()


class TestTopicAlias:
    def test_stands_for_the_topic_it_was_set_to(self, wire: Wire) -> None:
        """[MQTT-3.3.2-12]"""
        wire.limits(topic_alias_max=2)
        wire.connect()
        wire.client("30 08 0001 't' 03 23 0002 'a'  30 07 0000 03 23 0002 'b'")
        wire.client("30 08 0001 'u' 03 23 0002 'c'  30 07 0000 03 23 0002 'd'")
        assert wire.took() == [
            Publish("t", b"a", 0, False, False, 0),
            Publish("t", b"b", 0, False, False, 0),
            Publish("u", b"c", 0, False, False, 0),
            Publish("u", b"d", 0, False, False, 0),
        ]

    @pytest.mark.parametrize("qos", [0, 1, 2])
    @pytest.mark.parametrize("moved", [False, True])
    @pytest.mark.parametrize(
        ("topic", "refusal"), [("$SYS/x", RESERVED), ("a/\x1f", HAS_CONTROL_CHARACTER)]
    )
    def test_is_set_by_a_refused_packet_too(
        self, wire: Wire, qos: int, moved: bool, topic: str, refusal: tuple[int, str, str]
    ) -> None:
        """[MQTT-3.3.2-12] The mapping comes with the packet, whatever becomes of the message."""
        wire.limits(topic_alias_max=2)
        wire.connect()
        first, packet_id = f"{0x30 | qos << 1:02X}", "0007" if qos else ""
        if moved:
            wire.client("30 07 0001 't' 03 23 0002")
            assert wire.took() == [Publish("t", b"", 0, False, False, 0)]
        wire.client(f"{first} ({text(topic)} {packet_id} (23 0002) 'a')")
        wire.client(f"{first} (0000 {packet_id} (23 0002) 'b')")
        refused = RefusedPublish(qos, 7 if qos else 0, *refusal)
        assert wire.took() == [refused, refused]
        wire.client("30 08 0001 'u' 03 23 0002 'c'  30 07 0000 03 23 0002 'd'")
        assert [event.topic for event in wire.took() if isinstance(event, Publish)] == ["u", "u"]
        wire.open()

    @pytest.mark.parametrize("alias", ["0000", "0003", "FFFF"])
    def test_is_in_range(self, wire: Wire, alias: str) -> None:
        """[MQTT-3.3.2-8, MQTT-3.3.2-9]"""
        wire.limits(topic_alias_max=2)
        wire.connect()
        wire.client(f"30 07 0001 't' 03 23 {alias}")
        wire.broker("E0 .. 94 *")
        wire.closed()

    def test_was_set_on_this_connection(self, wire: Wire) -> None:
        """[MQTT-3.3.2-7]"""
        wire.limits(topic_alias_max=2)
        wire.connect()
        wire.client("30 06 0000 03 23 0002")
        wire.broker("E0 .. 82 *")
        wire.closed()


def test_runs_of_acknowledgements(wire: Wire) -> None:
    wire.connect()
    wire.client("40 02 0001  40 02 0002  50 02 0003  62 02 0004  62 02 0005  70 02 0006")
    assert wire.took() == [
        Ack(PacketType.PUBACK, [1]),
        Ack(PacketType.PUBACK, [2]),
        Ack(PacketType.PUBREC, [3]),
        Ack(PacketType.PUBREL, [4]),
        Ack(PacketType.PUBREL, [5]),
        Ack(PacketType.PUBCOMP, [6]),
    ]


def test_acknowledgements_that_spell_out_success(wire: Wire) -> None:
    """Some clients write what could be left out."""
    wire.connect()
    wire.client("40 03 0001 00  40 03 0002 00  40 03 0003 10  40 03 0004 00  40 04 0005 00 00")
    wire.client("40 04 0006 00 00  40 04 0007 10 00  40 04 0008 00 00  40 02 0009  C0 00")
    codes = {3: 0x10, 7: 0x10}
    assert wire.took() == [Ack(PacketType.PUBACK, [n], codes.get(n, 0)) for n in range(1, 10)]


def test_acknowledgements_with_reasons(wire: Wire) -> None:
    wire.connect()
    wire.client("40 03 0001 10  50 04 0002 80 00  62 (0003 92 (1F 0001 'r' 26 0001 'k' 0001 'v'))")
    assert wire.took() == [
        Ack(PacketType.PUBACK, [1], 0x10),
        Ack(PacketType.PUBREC, [2], 0x80),
        Ack(PacketType.PUBREL, [3], 0x92, "r", [("k", "v")]),
    ]


@pytest.mark.parametrize("packet", ["40 03 0001 92", "62 03 0001 80", "70 03 0001 10"])
def test_a_reason_code_that_the_packet_does_not_have(wire: Wire, packet: str) -> None:
    """[MQTT-3.4.2-1, MQTT-3.6.2-1, MQTT-3.7.2-1]"""
    wire.connect()
    wire.client(packet)
    wire.broker("E0 .. 82 *")
    wire.closed()


@pytest.mark.parametrize("packet", ["40 01 00", "40 03 0001 00"])
def test_an_acknowledgement_of_3_1_1_has_two_bytes(wire: Wire, packet: str) -> None:
    wire.connect(4)
    wire.client(packet)
    wire.closed()
