from __future__ import annotations

import pytest

from broker.message import Grant, Message, Outgoing
from broker.mqtt import encode as encode_module
from broker.mqtt.encode import encode, encode_publishes
from broker.mqtt.fields import PACKET_BYTES_MAX, Reader
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    Disconnect,
    PacketType,
    Pingresp,
    Suback,
    Unsuback,
)
from broker.mqtt.properties import Property
from tests.support.wire import script_bytes

NOW_US = 1_000_000_000


def message(qos: int = 1, *, retain: bool = False, topic: str = "t") -> Message:
    return Message(topic, b"hi", qos, retain, "publisher", NOW_US)


def written(
    *outgoing: Outgoing, version: int = MQTT_5, dup: bool = False, first_id: int = 1
) -> bytes:
    data, left_out = encode_publishes(
        version,
        outgoing,
        range(first_id, first_id + len(outgoing)),
        dup=dup,
        now_us=NOW_US,
        packet_bytes_max=PACKET_BYTES_MAX,
    )
    assert left_out == []
    return data


class TestPublishes:
    @pytest.mark.parametrize("granted", [0, 1, 2])
    @pytest.mark.parametrize("published", [0, 1, 2])
    def test_qos_is_the_lower_one(self, published: int, granted: int) -> None:
        """[MQTT-3.8.4-8]"""
        data = written((message(published), Grant(granted)), version=MQTT_3_1_1)
        qos = min(published, granted)
        wanted = f"{0x30 | qos << 1:02X} (0001 't' {'0001' if qos else ''} 'hi')"
        assert data == script_bytes(wanted)

    @pytest.mark.parametrize(
        ("retain", "grant", "flag"),
        [
            (True, Grant(0), 0),  # [MQTT-3.3.1-12]
            (True, Grant(0, retain_as_published=True), 1),  # [MQTT-3.3.1-13]
            (False, Grant(0, retain_as_published=True), 0),
            (True, Grant(0, retained=True), 1),  # [MQTT3-3.3.1-8]
        ],
    )
    def test_retain(self, retain: bool, grant: Grant, flag: int) -> None:
        assert written((message(0, retain=retain), grant))[0] == 0x30 | flag

    def test_dup_is_for_messages_with_a_qos(self) -> None:
        """[MQTT-3.3.1-2]"""
        data = written((message(0), Grant(1)), (message(1), Grant(1)), dup=True)
        assert data == script_bytes("30 (0001 't' 00 'hi')  3A (0001 't' 0002 00 'hi')")

    def test_neighbours_that_differ_in_one_thing_only(self) -> None:
        """What is remembered of one message is not used for another."""
        longer = message()
        longer.payload = b"hey"
        data = written(
            (message(), Grant(2)),
            (message(2), Grant(2)),
            (message(2, topic="u"), Grant(2)),
            (longer, Grant(2)),
            (message(), Grant(0)),
        )
        assert data == script_bytes(
            "32 (0001 't' 0001 00 'hi')  34 (0001 't' 0002 00 'hi')  34 (0001 'u' 0003 00 'hi')"
            "32 (0001 't' 0004 00 'hey')  30 (0001 't' 00 'hi')"
        )

    def test_properties_of_5(self) -> None:
        """[MQTT-3.3.4-3] and the rest of the Message Expiry Interval. [MQTT-3.3.2-6]"""
        full = message(0)
        full.properties = b"\x01\x01\x03\x00\x01c"
        full.expires_at_us = NOW_US + 9_500_000
        grant = Grant(0, subscription_ids=(7, 200))
        assert written((full, grant)) == script_bytes(
            "30 (0001 't' (02 0000000A  0B 07  0B C801  0101 03 0001 'c') 'hi')"
        )
        assert written((full, grant), version=MQTT_3_1_1) == script_bytes("30 (0001 't' 'hi')")

    def test_an_interval_that_just_ran_out_is_not_negative(self) -> None:
        late = message(0)
        late.expires_at_us = NOW_US - 5_000_000
        assert written((late, Grant(0))) == script_bytes("30 (0001 't' (02 00000000) 'hi')")

    def test_the_highest_packet_identifier(self) -> None:
        assert b"\xff\xff" in written((message(), Grant(1)), first_id=65_535)

    def test_what_is_remembered_is_bounded(self) -> None:
        for number in range(10_000):
            sized = message(0, topic=f"a/{number}")
            sized.payload = bytes(number)
            written((sized, Grant(0)))
        assert len(encode_module._headers) <= encode_module._Headers.HEADERS_MAX
        assert len(encode_module._topic_prefixes) <= encode_module._TopicPrefixes.TOPICS_MAX

    @pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
    def test_any_length(self, size: int) -> None:
        long = message(0)
        long.payload = b"x" * size
        data = written((long, Grant(0)), version=MQTT_3_1_1)
        reader = Reader(data, 1, len(data))
        assert reader.varint() == len(data) - reader.position == size + 3


@pytest.mark.parametrize(
    ("packet", "version", "wanted"),
    [
        (Ack(PacketType.PUBACK, [1, 0xFFFF]), 5, "40 02 0001  40 02 FFFF"),
        (Ack(PacketType.PUBREL, (258,)), 4, "62 02 0102"),
        (Ack(PacketType.PUBREC, [1, 2], 0x87), 5, "50 03 0001 87  50 03 0002 87"),
        (Ack(PacketType.PUBREC, [1, 2], 0x87, "no"), 4, "50 02 0001  50 02 0002"),
        (Ack(PacketType.PUBCOMP, [1], 0x92, "no"), 5, "70 (0001 92 (1F 0002 'no'))"),
        (
            Ack(PacketType.PUBACK, [1], user_properties=[("offset", "7")]),
            5,
            "40 (0001 00 (26 0006 'offset' 0001 '7'))",
        ),
        (Pingresp(), 5, "D0 00"),
        (Connack(True, 0), 4, "20 02 01 00"),
        (Connack(False, 0x85), 4, "20 02 00 02"),
        (Connack(False, 0, {Property.SERVER_KEEP_ALIVE: 60}), 5, "20 (00 00 (13 003C))"),
        (Suback(1, [0, 1, 0x97]), 4, "90 05 0001 00 01 80"),
        (Unsuback(1, [0, 0x11], {Property.REASON_STRING: "r"}), 5, "B0 (0001 (1F 0001'r') 0011)"),
        (Disconnect(), 5, "E0 00"),
        (Disconnect(0x8E), 5, "E0 01 8E"),
        (Disconnect(0x8E, reason_string="r"), 5, "E0 (8E (1F 0001 'r'))"),
    ],
)
def test_packets(packet: Ack, version: int, wanted: str) -> None:
    assert encode(packet, version) == script_bytes(wanted)
