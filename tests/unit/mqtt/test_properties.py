from __future__ import annotations

from typing import Any

import pytest

from broker.config import Config
from broker.errors import ProtocolViolation, QuotaExceeded
from broker.mqtt import fields
from broker.mqtt import properties as module
from broker.mqtt.decode import Decoder
from broker.mqtt.fields import VARINT_MAX, Reader
from broker.mqtt.limits import Limits
from broker.mqtt.packets import MQTT_5, PacketType
from broker.mqtt.properties import (
    TABLE,
    WILL,
    Kind,
    Property,
    has_user_property,
    message_properties,
    property_section,
    read_properties,
    user_properties,
    write_properties,
)

EXAMPLES = {
    Kind.BYTE: 1,
    Kind.U16: 0x0102,
    Kind.U32: 0x01020304,
    Kind.VARINT: VARINT_MAX,
    Kind.STRING: "é",
    Kind.BINARY: b"\0\xff",
    Kind.PAIR: ("k", "v"),
}


@pytest.mark.parametrize("property", Property)
@pytest.mark.parametrize("carrier", [WILL, *PacketType])
def test_each_property_is_read_where_it_may_stand_and_refused_elsewhere(
    property: Property, carrier: int
) -> None:
    row = TABLE[property]
    example = EXAMPLES[row.kind]
    value = [example] if carrier in row.repeats else example
    section = write_properties({property: value})
    reader = Reader(section, 0, len(section))
    if carrier in row.carriers:
        assert read_properties(reader, carrier) == {property: value}
        assert reader.at_end()
    else:
        with pytest.raises(ProtocolViolation):
            read_properties(reader, carrier)


@pytest.mark.parametrize("property", Property)
def test_each_property_may_repeat_only_where_the_table_says(property: Property) -> None:
    row = TABLE[property]
    example = EXAMPLES[row.kind]
    section = write_properties({property: [example, example]})
    for carrier in row.carriers:
        reader = Reader(section, 0, len(section))
        if carrier in row.repeats:
            assert read_properties(reader, carrier) == {property: [example, example]}
        else:
            with pytest.raises(ProtocolViolation, match="twice"):
                read_properties(reader, carrier)


def test_the_properties_of_connack() -> None:
    """Those that section 3.2.2.3 lists."""
    of_connack = {row for row in TABLE if PacketType.CONNACK in TABLE[row].carriers}
    assert of_connack == {
        0x11, 0x12, 0x13, 0x15, 0x16, 0x1A, 0x1C, 0x1F, 0x21, 0x22, 0x24, 0x25, 0x26, 0x27, 0x28,
        0x29, 0x2A,
    }  # fmt: skip


@pytest.mark.parametrize("size", [10, 200])
def test_a_message_keeps_what_is_for_its_subscribers(size: int) -> None:
    """Short sections are remembered, long ones are not; twice, since memory must not change it."""
    content_type = "c" * size
    section = (
        property_section({Property.WILL_DELAY_INTERVAL: 7}, b"")[1:]
        + property_section({Property.CONTENT_TYPE: content_type}, b"")[1 if size < 100 else 2 :]
        + property_section({Property.MESSAGE_EXPIRY_INTERVAL: 9}, b"")[1:]
        + property_section({Property.USER_PROPERTY: ("k", "v")}, b"")[1:]
    )
    for _ in range(2):
        properties = message_properties(section, WILL)
        assert properties.delay_s == 7
        assert properties.message_expiry_s == 9
        assert properties.topic_alias is None
        assert user_properties(properties.forwarded) == [("k", "v")]
        assert len(properties.forwarded) == len(section) - 10
        with pytest.raises(ProtocolViolation):
            message_properties(section, PacketType.PUBLISH)


def test_no_user_properties() -> None:
    assert user_properties(b"") == []
    assert user_properties(b"\x01\x01") == []
    assert user_properties(b"\x03\x00\x01\x26") == []


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[Kind]:
    """The kind of each property that was decoded: the work that they cost."""
    decoded: list[Kind] = []
    read_value = module._read_value

    def counted(kind: Kind, reader: Reader) -> Any:
        decoded.append(kind)
        return read_value(kind, reader)

    monkeypatch.setattr(module, "_read_value", counted)
    return decoded


EMPTY = b"\x26\0\0\0\0"
MANY = fields.varint(400_000 * len(EMPTY)) + 400_000 * EMPTY


@pytest.mark.parametrize(
    ("header", "before", "after"),
    [
        pytest.param(0x10, b"\0\x04MQTT\x05\x02\0\0", b"\0\0", id="CONNECT"),
        pytest.param(0x10, b"\0\x04MQTT\x05\x06\0\0\0\0\0", b"\0\1t\0\0", id="Will"),
        pytest.param(0x30, b"\0\1t", b"", id="PUBLISH"),
        pytest.param(0x40, b"\0\1\0", b"", id="PUBACK"),
        pytest.param(0x82, b"\0\1", b"\0\1t\0", id="SUBSCRIBE"),
        pytest.param(0xA2, b"\0\1", b"\0\1t", id="UNSUBSCRIBE"),
        pytest.param(0xE0, b"\0", b"", id="DISCONNECT"),
        pytest.param(0xF0, b"\x18", b"", id="AUTH"),
    ],
)
def test_a_packet_of_empty_properties_costs_no_more_than_are_permitted(
    decoded: list[Kind], header: int, before: bytes, after: bytes
) -> None:
    """2 MB hold 400,000 of them."""
    decoder = Decoder(Limits.of(Config(packet_bytes_max=4 << 20)))
    if header != 0x10:
        decoder.version = MQTT_5
    body = before + MANY + after
    decoder.feed(bytes((header,)) + fields.varint(len(body)) + body)
    with pytest.raises(QuotaExceeded):
        decoder.next([])
    assert len(decoded) == 1000


@pytest.mark.parametrize("size", [0, 100])
def test_as_many_properties_as_are_permitted(size: int) -> None:
    """Of any kind, in a section that is remembered and in one that is not."""
    section = b"\x01\1\x02\0\0\0\1\x26\0\0" + fields.string("v" * size)
    assert message_properties(section, PacketType.PUBLISH, 3).message_expiry_s == 1
    with pytest.raises(QuotaExceeded):
        message_properties(section, PacketType.PUBLISH, 2)


def test_a_user_property_is_looked_for_without_decoding_the_others(decoded: list[Kind]) -> None:
    pair = ("receipt", "true")
    others = write_properties({Property.USER_PROPERTY: [("receipt", "false")] * 5})[1:]
    assert not has_user_property(b"", pair)
    assert not has_user_property(others, pair)
    assert decoded == []
    asked = write_properties({Property.USER_PROPERTY: [pair]})[1:]
    assert has_user_property(others + asked, pair)
    within = write_properties({Property.CORRELATION_DATA: asked})[1:]
    assert not has_user_property(within, pair)
