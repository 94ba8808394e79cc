from __future__ import annotations

from dataclasses import replace

import pytest

from broker.config import Config
from broker.errors import (
    MalformedPacket,
    ReceiveMaximumExceeded,
    TopicNameInvalid,
    TopicNameRefused,
)
from broker.mqtt.encode import encode
from broker.mqtt.fields import binary, varint
from broker.mqtt.limits import Limits
from broker.mqtt.packets import MQTT_5, Publish, RefusedPublish
from broker.mqtt.publishes import PublishReader, TopicNames, topic_names
from tests.support.wire import script_bytes

LIMITS = replace(Limits.of(Config()), receive_max=3, packet_bytes_max=20_000)


@pytest.fixture
def reader() -> PublishReader:
    return PublishReader(LIMITS)


def publish(packet_id: int, topic: str = "t") -> Publish:
    return Publish(topic, b"x", 1, False, False, packet_id)


def encoded(*publishes: Publish) -> bytes:
    return b"".join(encode(each, MQTT_5) for each in publishes)


@pytest.mark.parametrize(
    "after",
    ["", "C0 00", "36 00", "32", "32 06", "32 06 0001", "32 80 01 00"],
)
def test_a_run_ends_where_a_packet_is_none_or_is_not_whole(
    reader: PublishReader, after: str
) -> None:
    wanted = [publish(1), publish(2, "u")]
    run = encoded(*wanted)
    before = b"\xc0\0"
    found: list[Publish] = []
    data = before + run + bytes.fromhex(after)
    assert reader.read(data, len(before), found, True) == (len(before) + len(run), None)
    assert found == wanted


@pytest.mark.parametrize("size", [0, 1, 120, 121, 122, 127, 128, 16_371, 16_372, 16_373, 19_000])
def test_any_length(reader: PublishReader, size: int) -> None:
    """Its length takes one byte, two or three, and another packet follows."""
    long = Publish("t", bytes(size), 1, True, False, 1)
    data = encoded(long, publish(2))
    found: list[Publish] = []
    assert reader.read(data, 0, found, True) == (len(data), None)
    assert found == [long, publish(2)]


def test_a_reserved_topic_ends_the_run_behind_its_packet(reader: PublishReader) -> None:
    reader.hold_to_receive_maximum()
    refused = encoded(publish(1), publish(2, "$SYS/x"))
    found: list[Publish] = []
    position, refusal = reader.read(refused + encoded(publish(3)), 0, found, True)
    assert found == [publish(1)]
    assert position == len(refused)
    assert isinstance(refusal, RefusedPublish)
    assert (refusal.qos, refusal.packet_id, refusal.reason_code) == (1, 2, 0x90)
    assert reader.read(encoded(publish(3)), 0, found, True)[1] is None
    with pytest.raises(ReceiveMaximumExceeded):  # The refused one counts until it is acknowledged.
        reader.read(encoded(publish(4)), 0, found, True)


def test_receive_maximum_counts_over_reads(reader: PublishReader) -> None:
    """[MQTT-4.9.0-1, 2]"""
    reader.hold_to_receive_maximum()
    found: list[Publish] = []
    qos_0 = Publish("t", b"", 0, False, False, 0)
    reader.read(encoded(publish(1), publish(2), qos_0), 0, found, True)
    reader.acknowledged(1)
    with pytest.raises(ReceiveMaximumExceeded):
        reader.read(encoded(publish(3), qos_0, publish(4), publish(5)), 0, found, True)
    assert [each.packet_id for each in found] == [1, 2, 0, 3, 0, 4]
    reader.acknowledged(1_000)
    with pytest.raises(ReceiveMaximumExceeded):
        reader.read(encoded(*(publish(number) for number in range(10, 14))), 0, found, True)
    assert [each.packet_id for each in found[6:]] == [10, 11, 12]


def test_without_receive_maximum_any_number_may_come(reader: PublishReader) -> None:
    found: list[Publish] = []
    reader.read(encoded(*(publish(number) for number in range(1, 1000))), 0, found, True)
    assert len(found) == 999


def test_a_topic_alias_is_set_anew_and_is_of_one_connection(reader: PublishReader) -> None:
    """[MQTT-3.3.2-12]"""
    found: list[Publish] = []
    script = (
        "30 (0001 'a' (23 0001))  30 (0000 (23 0001))  30 (0001 'b' (23 0002))"
        "30 (0001 'c' (23 0001))  30 (0000 (23 0001))  30 (0000 (23 0002))"
    )
    reader.read(script_bytes(script), 0, found, True)
    assert [each.topic for each in found] == ["a", "a", "b", "c", "c", "b"]
    with pytest.raises(MalformedPacket):
        PublishReader(LIMITS).read(b"\x30\x01\0\0", 0, found, True)


@pytest.mark.parametrize("size", [1, 119, 120, 130])
def test_properties_are_passed_on_and_expiry_is_told(reader: PublishReader, size: int) -> None:
    """Whether their length takes one byte or two. [MQTT-3.3.2-4, 6]"""
    content_type = b"\x03" + binary(b"c" * size)
    section = b"\x02\0\0\0\x05" + content_type
    body = b"\0\1t" + varint(len(section)) + section + b"x"
    found: list[Publish] = []
    reader.read(b"\x30" + varint(len(body)) + body, 0, found, True)
    assert found == [Publish("t", b"x", 0, False, False, 0, content_type, 5)]


def test_what_looks_like_properties_is_payload_in_3_1_1(reader: PublishReader) -> None:
    found: list[Publish] = []
    reader.read(script_bytes("30 (0001 't' 03 23 0001)"), 0, found, False)
    assert found == [Publish("t", b"\x03\x23\0\1", 0, False, False, 0)]


@pytest.mark.parametrize(
    ("script", "version_5"),
    [
        ("30 02 0000", True),
        ("32 (0001 't' 0001)", True),
        ("32 (0001 't' 00)", False),
        ("32 (0001 't' 0000)", False),
        ("30 (0002 't')", False),
        ("30 (0001 't' 02 01)", True),
        ("30 (0001 't' 81 01 01)", True),
    ],
)
def test_shorter_than_its_fields(reader: PublishReader, script: str, version_5: bool) -> None:
    """Also where another packet follows, whose bytes it would take."""
    found: list[Publish] = []
    with pytest.raises(MalformedPacket):
        reader.read(script_bytes(script) + encoded(publish(1)), 0, found, version_5)
    assert found == []


class TestTopicNames:
    def test_are_bounded(self) -> None:
        names = TopicNames(4096, 128)
        for number in range(TopicNames.NAMES_MAX + 10):
            assert names[f"a/{number}".encode()] == f"a/{number}"
        assert len(names) <= TopicNames.NAMES_MAX

    def test_are_remembered(self) -> None:
        names = TopicNames(4096, 128)
        assert names[b"a/b"] is names[b"a/b"]

    def test_long_and_bad_ones_are_not_kept(self) -> None:
        names = TopicNames(4096, 128)
        assert names[b"x" * 4096] == "x" * 4096
        for bad, error in (
            (b"#", TopicNameInvalid),
            (b"\xff", MalformedPacket),
            (b"$SYS/x", TopicNameRefused),
        ):
            with pytest.raises(error):
                names[bad]
        assert not names

    def test_are_shared_by_connections_with_the_same_limits(self) -> None:
        assert topic_names(100, 10) is topic_names(100, 10)
        with pytest.raises(TopicNameInvalid):
            topic_names(100, 2)[b"a/b/c"]
        assert topic_names(100, 10)[b"a/b/c"] == "a/b/c"


NEIGHBOURS = [
    publish(2),
    publish(2, "u"),
    replace(publish(2), qos=2),
    replace(publish(2), qos=0, packet_id=0),
    replace(publish(2), retain=True),
    replace(publish(2), dup=True),
    replace(publish(2), payload=b"y"),
    replace(publish(2), payload=b"xy"),
    replace(publish(2), payload=b"", properties=b"\x01\x01"),  # of a length with "xy" and no others
    replace(publish(2), topic="tx", payload=b""),
]


@pytest.mark.parametrize("second", NEIGHBOURS)
@pytest.mark.parametrize("first", NEIGHBOURS)
def test_a_neighbour_is_like_the_one_before_it_only_in_what_both_have(
    reader: PublishReader, first: Publish, second: Publish
) -> None:
    """What one PUBLISH has in common with the next is not read twice."""
    wanted = [first, second, first, first, second, second]
    found: list[Publish] = []
    data = encoded(*wanted)
    assert reader.read(data, 0, found, True) == (len(data), None)
    assert found == wanted


@pytest.mark.parametrize("version_5", [False, True])
def test_a_neighbour_that_breaks_a_rule_comes_after_the_others(
    reader: PublishReader, version_5: bool
) -> None:
    tail = "00" if version_5 else ""
    size = f"{6 if version_5 else 5:02X}"
    good, bad = f"32 {size} 0001 't' 0001 {tail}", f"32 {size} 0001 't' 0000 {tail}"
    found: list[Publish] = []
    with pytest.raises(MalformedPacket, match="Packet Identifier 0"):
        reader.read(script_bytes(f"{good} {good} {bad}"), 0, found, version_5)
    assert [packet.packet_id for packet in found] == [1, 1]
    whole = script_bytes(good)
    cut_off = (3 * whole)[:-1]
    assert reader.read(cut_off, 0, found, version_5) == (2 * len(whole), None)


def test_receive_maximum_counts_neighbours(reader: PublishReader) -> None:
    """[MQTT-4.9.0-1, 2]"""
    reader.hold_to_receive_maximum()
    found: list[Publish] = []
    with pytest.raises(ReceiveMaximumExceeded):
        reader.read(encoded(*[publish(n) for n in range(1, 5)]), 0, found, True)
    assert [packet.packet_id for packet in found] == [1, 2, 3]
