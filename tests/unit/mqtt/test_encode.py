from __future__ import annotations

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
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
