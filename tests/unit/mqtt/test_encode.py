from __future__ import annotations

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.mqtt.properties import Property
from tests.support.wire import script_bytes

REQUEST = SubscriptionRequest("b", 2, False, True, 2)


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
        (Disconnect(0, 7), 5, "E0 (00 (11 00000007))"),
        (Disconnect(0x8E, 7, "r"), 4, "E0 00"),
        (Auth(0x18, "m", b"\xff"), 5, "F0 (18 (15 0001 'm' 16 0001 FF))"),
        (Auth(0), 5, "F0 02 00 00"),
        (Pingreq(), 4, "C0 00"),
        (Publish("t", b"x", 0, True, False, 0), 4, "31 (0001 't' 'x')"),
        (Publish("t", b"x", 2, False, True, 258), 4, "3C (0001 't' 0102 'x')"),
        (Publish("t", b"x", 1, False, False, 1, b"\1\1"), 5, "32 (0001 't' 0001 (01 01) 'x')"),
        (Publish("t", b"", 0, False, False, 0, b"\1\1", 5), 5, "30 (0001 't' (02 00000005 0101))"),
        (
            Subscribe(1, [SubscriptionRequest("a", 1, True), REQUEST], 7, [("k", "v")]),
            5,
            "82 (0001 (26 0001 'k' 0001 'v' 0B 07) 0001 'a' 05 0001 'b' 2A)",
        ),
        (
            Subscribe(1, [SubscriptionRequest("a", 1, True), REQUEST], 7, [("k", "v")]),
            4,
            "82 (0001 0001 'a' 01 0001 'b' 02)",
        ),
        (
            Unsubscribe(1, ["a", "b"], [("k", "v")]),
            5,
            "A2 (0001 (26 0001 'k' 0001 'v') 0001 'a' 0001 'b')",
        ),
        (Unsubscribe(1, ["a"], [("k", "v")]), 4, "A2 (0001 0001 'a')"),
        (Connect(4, "c", False, 258), 4, "10 (0004 'MQTT' 04 00 0102 0001 'c')"),
        (
            Connect(4, "c", True, 0, Will("w", b"\xff", 1, True), "u", b"p"),
            4,
            "10 (0004 'MQTT' 04 EE 0000 0001 'c' 0001 'w' 0001 FF 0001 'u' 0001 'p')",
        ),
        (
            Connect(5, "c", False, 0, Will("w", b"", 2, False, b"\1\1", 5, 6)),
            5,
            "10 (0004 'MQTT' 05 14 0000 00 0001 'c' (18 00000006 02 00000005 0101) 0001 'w' 0000)",
        ),
        (
            Connect(
                *(5, "c", True, 0, None, None, b"p"),
                session_expiry_s=1,
                receive_maximum=2,
                packet_bytes_max=3,
                topic_alias_maximum=4,
                request_response_information=True,
                request_problem_information=False,
                authentication_method="m",
                authentication_data=b"\xff",
                user_properties=[("k", "v")],
            ),
            5,
            "10 (0004 'MQTT' 05 42 0000 (11 00000001 21 0002 27 00000003 22 0004 19 01 17 00"
            " 15 0001 'm' 16 0001 FF 26 0001 'k' 0001 'v') 0001 'c' 0001 'p')",
        ),
    ],
)
def test_packets(packet: Packet, version: int, wanted: str) -> None:
    assert encode(packet, version) == script_bytes(wanted)
