"""Bodies field by field, cut off anywhere, and with one thing wrong."""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.config import Config
from broker.errors import (
    MalformedPacket,
    PeerError,
    ProtocolViolation,
    QuotaExceeded,
    TopicNameInvalid,
)
from broker.mqtt.bodies import read_body, read_connect
from broker.mqtt.fields import Reader
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Auth,
    Connect,
    Disconnect,
    FromClient,
    PacketType,
    Pingreq,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from broker.mqtt.publishes import topic_names
from tests.support.wire import script_bytes

LIMITS = replace(Limits.of(Config()), filters_per_packet_max=2, properties_per_packet_max=4)
TOPICS = topic_names(100, 10)
KV = [("k", "v")]


def body(kind: PacketType, script: str, *, version_5: bool = True) -> FromClient:
    data = script_bytes(script)
    reader = Reader(data, 0, len(data))
    packet = read_body(kind, reader, version_5, LIMITS)
    reader.expect_end()
    return packet


def connect(script: str, version: int = MQTT_5) -> Connect:
    data = script_bytes(script)
    reader = Reader(data, 0, len(data))
    packet = read_connect(reader, version, LIMITS, TOPICS)
    reader.expect_end()
    return packet


BODIES_OF_5: list[tuple[PacketType, str, FromClient]] = [
    (PacketType.PUBACK, "0001", Ack(PacketType.PUBACK, (1,))),
    (PacketType.PUBREC, "0001 87", Ack(PacketType.PUBREC, (1,), 0x87)),
    (
        PacketType.PUBREL,
        "0102 92 (1F 0001 'r' 26 0001 'k' 0001 'v')",
        Ack(PacketType.PUBREL, (0x102,), 0x92, "r", KV),
    ),
    (
        PacketType.SUBSCRIBE,
        "0001 (0B 07 26 0001 'k' 0001 'v') 0001 'a' 01  0001 'b' 2C",
        Subscribe(
            1,
            [SubscriptionRequest("a", 1), SubscriptionRequest("b", 0, True, True, 2)],
            7,
            KV,
        ),
    ),
    (
        PacketType.SUBSCRIBE,
        "0001 00 0001 'a' 06  0001 'b' 18",
        Subscribe(
            1,
            [
                SubscriptionRequest("a", 2, no_local=True),
                SubscriptionRequest("b", 0, False, True, 1),
            ],
        ),
    ),
    (
        PacketType.UNSUBSCRIBE,
        "0001 (26 0001 'k' 0001 'v') 0001 'a' 0001 'b'",
        Unsubscribe(1, ["a", "b"], KV),
    ),
    (PacketType.DISCONNECT, "", Disconnect()),
    (PacketType.DISCONNECT, "04", Disconnect(4)),
    (
        PacketType.DISCONNECT,
        "00 (11 00000007 1F 0001 'r' 26 0001 'k' 0001 'v')",
        Disconnect(0, 7, "r", KV),
    ),
    (PacketType.AUTH, "", Auth(0)),
    (
        PacketType.AUTH,
        "18 (15 0001 'm' 16 0001 FF 1F 0001 'r' 26 0001 'k' 0001 'v')",
        Auth(0x18, "m", b"\xff", "r", KV),
    ),
    (PacketType.PINGREQ, "", Pingreq()),
]

BODIES_OF_3_1_1: list[tuple[PacketType, str, FromClient]] = [
    (PacketType.PUBCOMP, "0001", Ack(PacketType.PUBCOMP, (1,))),
    (PacketType.SUBSCRIBE, "0001 0001 'a' 02", Subscribe(1, [SubscriptionRequest("a", 2)])),
    (PacketType.SUBSCRIBE, "0001 0001 'a' 01", Subscribe(1, [SubscriptionRequest("a", 1)])),
    (PacketType.UNSUBSCRIBE, "0001 0001 'a'", Unsubscribe(1, ["a"])),
    (PacketType.DISCONNECT, "", Disconnect()),
]


@pytest.mark.parametrize(("kind", "script", "wanted"), BODIES_OF_5)
def test_of_5(kind: PacketType, script: str, wanted: FromClient) -> None:
    assert body(kind, script) == wanted


@pytest.mark.parametrize(("kind", "script", "wanted"), BODIES_OF_3_1_1)
def test_of_3_1_1(kind: PacketType, script: str, wanted: FromClient) -> None:
    assert body(kind, script, version_5=False) == wanted


@pytest.mark.parametrize(("kind", "script", "wanted"), BODIES_OF_5)
def test_cut_off_it_is_another_packet_or_malformed(
    kind: PacketType, script: str, wanted: FromClient
) -> None:
    data = script_bytes(script)
    for end in range(len(data)):
        reader = Reader(data, 0, end)
        try:
            packet = read_body(kind, reader, True, LIMITS)
        except MalformedPacket:
            continue
        assert reader.at_end()
        assert packet != wanted


@pytest.mark.parametrize(
    ("kind", "script", "error"),
    [
        (PacketType.PUBACK, "0000", MalformedPacket),
        (PacketType.PUBACK, "0001 92", ProtocolViolation),
        (PacketType.PUBREL, "0001 87", ProtocolViolation),
        (PacketType.DISCONNECT, "8B", ProtocolViolation),
        (PacketType.AUTH, "00 00", ProtocolViolation),
        (PacketType.SUBSCRIBE, "0000 00 0001 'a' 00", MalformedPacket),
        (PacketType.SUBSCRIBE, "0001 00 0001 'a' 40", MalformedPacket),
        (PacketType.SUBSCRIBE, "0001 00 0001 'a' 80", MalformedPacket),
        (PacketType.SUBSCRIBE, "0001 00 0001 'a' 03", ProtocolViolation),
        (PacketType.SUBSCRIBE, "0001 00 0001 'a' 30", ProtocolViolation),
        (PacketType.SUBSCRIBE, "0001 00" + 3 * " 0001 'a' 00", QuotaExceeded),
        (PacketType.UNSUBSCRIBE, "0000 00 0001 'a'", MalformedPacket),
        (PacketType.UNSUBSCRIBE, "0001 00" + 3 * " 0001 'a'", QuotaExceeded),
        (PacketType.UNSUBSCRIBE, "0001 (" + 5 * "26 0000 0000" + ") 0001 'a'", QuotaExceeded),
        (PacketType.PUBLISH, "0000 00", MalformedPacket),
    ],
)
def test_one_thing_wrong(kind: PacketType, script: str, error: type[PeerError]) -> None:
    with pytest.raises(error):
        body(kind, script)


@pytest.mark.parametrize("options", ["04", "08", "10", "20", "40", "80"])
def test_subscription_options_of_5_are_reserved_in_3_1_1(options: str) -> None:
    with pytest.raises(MalformedPacket):
        body(PacketType.SUBSCRIBE, f"0001 0001 'a' {options}", version_5=False)


class TestConnect:
    @pytest.mark.parametrize(
        ("script", "wanted"),
        [
            ("00 0102 0001 'c'", Connect(4, "c", False, 0x102)),
            ("02 0000 0000", Connect(4, "", True, 0)),
            (
                "04 0000 0001 'c' 0001 'w' 0001 FF",
                Connect(4, "c", False, 0, Will("w", b"\xff", 0, False)),
            ),
            (
                "34 0000 0001 'c' 0001 'w' 0000",
                Connect(4, "c", False, 0, Will("w", b"", 2, True)),
            ),
            (
                "EC 0000 0001 'c' 0001 'w' 0000 0001 'u' 0001 'p'",
                Connect(4, "c", False, 0, Will("w", b"", 1, True), "u", b"p"),
            ),
            ("80 0000 0001 'c' 0001 'u'", Connect(4, "c", False, 0, None, "u")),
        ],
    )
    def test_flags_say_which_fields_follow(self, script: str, wanted: Connect) -> None:
        assert connect(script, MQTT_3_1_1) == wanted

    @pytest.mark.parametrize(
        ("property", "name", "value"),
        [
            ("11 00000005", "session_expiry_s", 5),
            ("21 0005", "receive_maximum", 5),
            ("27 00000005", "packet_bytes_max", 5),
            ("22 0005", "topic_alias_maximum", 5),
            ("19 01", "request_response_information", True),
            ("17 00", "request_problem_information", False),
            ("15 0001 'm'", "authentication_method", "m"),
            ("26 0001 'k' 0001 'v'", "user_properties", KV),
        ],
    )
    def test_each_property(self, property: str, name: str, value: object) -> None:
        changed = connect(f"02 0000 ({property}) 0001 'c'")
        plain = Connect(MQTT_5, "c", True, 0)
        assert getattr(plain, name) != value
        setattr(plain, name, value)
        assert changed == plain

    def test_a_will_has_a_delay_of_its_own(self) -> None:
        with pytest.raises(TopicNameInvalid, match="Will Delay Interval"):
            connect("06 0000 00 0001 'c' 00 000C '$delayed/5/t' 0000")

    def test_properties_of_the_will(self) -> None:
        will = connect("06 0000 00 0001 'c' (18 00000003 02 00000004 01 01) 0001 'w' 0000").will
        assert will == Will("w", b"", 0, False, b"\1\1", 4, 3)

    @pytest.mark.parametrize(
        ("script", "error"),
        [
            ("03 0000 00 0001 'c'", MalformedPacket),
            ("08 0000 00 0001 'c'", MalformedPacket),
            ("20 0000 00 0001 'c'", MalformedPacket),
            ("1C 0000 00 0001 'c' 00 0001 'w' 0000", MalformedPacket),
            ("02 0000 (16 0001 00) 0001 'c'", ProtocolViolation),
            ("06 0000 00 0001 'c' 00 0000 0000", ProtocolViolation),
        ],
    )
    def test_one_thing_wrong(self, script: str, error: type[PeerError]) -> None:
        with pytest.raises(error):
            connect(script)

    def test_a_password_alone_is_for_5(self) -> None:
        """[MQTT3-3.1.2-22]"""
        assert connect("40 0000 00 0001 'c' 0001 'p'").password == b"p"
        with pytest.raises(MalformedPacket):
            connect("40 0000 0001 'c' 0001 'p'", MQTT_3_1_1)
