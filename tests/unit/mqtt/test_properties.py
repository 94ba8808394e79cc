from __future__ import annotations

import pytest

from broker.errors import ProtocolViolation
from broker.mqtt.fields import VARINT_MAX, Reader
from broker.mqtt.packets import PacketType
from broker.mqtt.properties import (
    TABLE,
    WILL,
    Kind,
    Property,
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
