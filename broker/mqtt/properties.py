"""The properties of MQTT 5 (section 2.2.2): one table drives the decoding and the encoding of all.

- A property in a packet that may not carry it, twice where it may stand once, or with a value out
  of its range is a Protocol Error. An identifier that MQTT does not know, and a section that does
  not end where it says, is a Malformed Packet. (MQTT 5, section 2.2.2.2)
- A section has at most `count_max` properties: each costs about 3 µs (`python -m benchmarks.codec`,
  *a User Property*), and a packet that is within its limit of bytes could have 400,000 empty ones.
- The properties of a message that go on to subscribers stay encoded, byte for byte and in order:
  `MessageProperties.forwarded`. [MQTT-3.3.2-4, 15, 16, 17, 18, 20]
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, IntEnum, auto
from functools import lru_cache
from typing import Any

from broker.errors import (
    MalformedPacket,
    PropertyRefused,
    ProtocolViolation,
    QuotaExceeded,
    TopicNameRefused,
)
from broker.mqtt import fields
from broker.mqtt.fields import VARINT_MAX, Reader
from broker.mqtt.packets import ACK_TYPES, PacketType, Properties, UserProperties
from broker.topics import (
    CONTROL_CHARACTER,
    CONTROL_CHARACTER_IN_PROPERTY,
    has_control_character,
)

COUNT_MAX = VARINT_MAX
"""As many properties as a section can have bytes: no limit."""
WILL = 0
"""Stands for the Will Properties among the packet types that carry properties."""


class Property(IntEnum):
    PAYLOAD_FORMAT_INDICATOR = 0x01
    MESSAGE_EXPIRY_INTERVAL = 0x02
    CONTENT_TYPE = 0x03
    RESPONSE_TOPIC = 0x08
    CORRELATION_DATA = 0x09
    SUBSCRIPTION_IDENTIFIER = 0x0B
    SESSION_EXPIRY_INTERVAL = 0x11
    ASSIGNED_CLIENT_IDENTIFIER = 0x12
    SERVER_KEEP_ALIVE = 0x13
    AUTHENTICATION_METHOD = 0x15
    AUTHENTICATION_DATA = 0x16
    REQUEST_PROBLEM_INFORMATION = 0x17
    WILL_DELAY_INTERVAL = 0x18
    REQUEST_RESPONSE_INFORMATION = 0x19
    RESPONSE_INFORMATION = 0x1A
    SERVER_REFERENCE = 0x1C
    REASON_STRING = 0x1F
    RECEIVE_MAXIMUM = 0x21
    TOPIC_ALIAS_MAXIMUM = 0x22
    TOPIC_ALIAS = 0x23
    MAXIMUM_QOS = 0x24
    RETAIN_AVAILABLE = 0x25
    USER_PROPERTY = 0x26
    MAXIMUM_PACKET_SIZE = 0x27
    WILDCARD_SUBSCRIPTION_AVAILABLE = 0x28
    SUBSCRIPTION_IDENTIFIER_AVAILABLE = 0x29
    SHARED_SUBSCRIPTION_AVAILABLE = 0x2A


class Kind(Enum):
    BYTE = auto()
    U16 = auto()
    U32 = auto()
    VARINT = auto()
    STRING = auto()
    BINARY = auto()
    PAIR = auto()


@dataclass(frozen=True, slots=True)
class Row:
    """`carriers` may have it, `repeats` more than once; both are packet types, and WILL.

    `low`..`high` are the legal values of a number.
    """

    kind: Kind
    carriers: frozenset[int]
    repeats: frozenset[int] = frozenset()
    low: int = 0
    high: int = 0xFFFF_FFFF


def _in(*carriers: int) -> frozenset[int]:
    return frozenset(carriers)


_CONNECT, _CONNACK, _PUBLISH = PacketType.CONNECT, PacketType.CONNACK, PacketType.PUBLISH
_SUBSCRIBE, _DISCONNECT, _AUTH = PacketType.SUBSCRIBE, PacketType.DISCONNECT, PacketType.AUTH
_ANSWERS = (*ACK_TYPES, PacketType.SUBACK, PacketType.UNSUBACK)
_EVERYWHERE = _in(
    WILL, _CONNECT, _CONNACK, _PUBLISH, _SUBSCRIBE, PacketType.UNSUBSCRIBE, *_ANSWERS,
    _DISCONNECT, _AUTH,
)  # fmt: skip

# Table 2-4, one line a property.
TABLE: dict[int, Row] = {
    Property.PAYLOAD_FORMAT_INDICATOR: Row(Kind.BYTE, _in(_PUBLISH, WILL), high=1),
    Property.MESSAGE_EXPIRY_INTERVAL: Row(Kind.U32, _in(_PUBLISH, WILL)),
    Property.CONTENT_TYPE: Row(Kind.STRING, _in(_PUBLISH, WILL)),
    Property.RESPONSE_TOPIC: Row(Kind.STRING, _in(_PUBLISH, WILL)),
    Property.CORRELATION_DATA: Row(Kind.BINARY, _in(_PUBLISH, WILL)),
    Property.SUBSCRIPTION_IDENTIFIER: Row(
        Kind.VARINT, _in(_PUBLISH, _SUBSCRIBE), repeats=_in(_PUBLISH), low=1, high=VARINT_MAX
    ),
    Property.SESSION_EXPIRY_INTERVAL: Row(Kind.U32, _in(_CONNECT, _CONNACK, _DISCONNECT)),
    Property.ASSIGNED_CLIENT_IDENTIFIER: Row(Kind.STRING, _in(_CONNACK)),
    Property.SERVER_KEEP_ALIVE: Row(Kind.U16, _in(_CONNACK)),
    Property.AUTHENTICATION_METHOD: Row(Kind.STRING, _in(_CONNECT, _CONNACK, _AUTH)),
    Property.AUTHENTICATION_DATA: Row(Kind.BINARY, _in(_CONNECT, _CONNACK, _AUTH)),
    Property.REQUEST_PROBLEM_INFORMATION: Row(Kind.BYTE, _in(_CONNECT), high=1),
    Property.WILL_DELAY_INTERVAL: Row(Kind.U32, _in(WILL)),
    Property.REQUEST_RESPONSE_INFORMATION: Row(Kind.BYTE, _in(_CONNECT), high=1),
    Property.RESPONSE_INFORMATION: Row(Kind.STRING, _in(_CONNACK)),
    Property.SERVER_REFERENCE: Row(Kind.STRING, _in(_CONNACK, _DISCONNECT)),
    Property.REASON_STRING: Row(Kind.STRING, _in(_CONNACK, *_ANSWERS, _DISCONNECT, _AUTH)),
    Property.RECEIVE_MAXIMUM: Row(Kind.U16, _in(_CONNECT, _CONNACK), low=1),
    Property.TOPIC_ALIAS_MAXIMUM: Row(Kind.U16, _in(_CONNECT, _CONNACK)),
    Property.TOPIC_ALIAS: Row(Kind.U16, _in(_PUBLISH)),
    Property.MAXIMUM_QOS: Row(Kind.BYTE, _in(_CONNACK), high=1),
    Property.RETAIN_AVAILABLE: Row(Kind.BYTE, _in(_CONNACK), high=1),
    Property.USER_PROPERTY: Row(Kind.PAIR, _EVERYWHERE, repeats=_EVERYWHERE),
    Property.MAXIMUM_PACKET_SIZE: Row(Kind.U32, _in(_CONNECT, _CONNACK), low=1),
    Property.WILDCARD_SUBSCRIPTION_AVAILABLE: Row(Kind.BYTE, _in(_CONNACK), high=1),
    Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE: Row(Kind.BYTE, _in(_CONNACK), high=1),
    Property.SHARED_SUBSCRIPTION_AVAILABLE: Row(Kind.BYTE, _in(_CONNACK), high=1),
}

_FORWARDED = frozenset(
    {
        Property.PAYLOAD_FORMAT_INDICATOR,
        Property.CONTENT_TYPE,
        Property.RESPONSE_TOPIC,
        Property.CORRELATION_DATA,
        Property.USER_PROPERTY,
    }
)


def read_properties(reader: Reader, carrier: int, count_max: int = COUNT_MAX) -> Properties:
    """The property section that stands next in a packet of type `carrier` (or WILL)."""
    properties: Properties = {}
    section = Reader(reader.data, reader.position, reader.end)
    length = section.varint()
    reader.position = section.position
    reader.take(length)
    section.end = reader.position
    for identifier, value in _walk(section, carrier, count_max):
        if carrier in TABLE[identifier].repeats:
            properties.setdefault(identifier, []).append(value)
        else:
            properties[identifier] = value
    return properties


def write_properties(properties: Properties) -> bytes:
    """The section with its length. A list is written as one property for each of its items."""
    return property_section(properties, b"")


def property_section(properties: Properties, encoded: bytes) -> bytes:
    """A section with its length: `properties`, then properties that are encoded already."""
    section = bytearray()
    for identifier, value in properties.items():
        for each in value if isinstance(value, list) else (value,):
            section.append(identifier)
            section += _write_value(TABLE[identifier].kind, each)
    return fields.varint(len(section) + len(encoded)) + section + encoded


@dataclass(slots=True, frozen=True)
class MessageProperties:
    """The properties of a PUBLISH or Will. The broker acts on some, which are decoded; the others
    go on to subscribers, encoded (`forwarded`)."""

    forwarded: bytes = b""
    message_expiry_s: int | None = None
    topic_alias: int | None = None
    delay_s: int = 0
    unfit: str = ""
    """The property in which a control character is, by its name. It is refused by
    `refuse_control_characters`, as a Topic Alias is set before."""

    def refuse_control_characters(self) -> None:
        """Raises TopicNameRefused, PropertyRefused. See `topics.has_control_character`."""
        if not self.unfit:
            return
        reason = f"{self.unfit} has a control character or non-character: leave it out"
        if self.unfit == _name(Property.RESPONSE_TOPIC):
            raise TopicNameRefused(reason, CONTROL_CHARACTER)
        raise PropertyRefused(reason, CONTROL_CHARACTER_IN_PROPERTY)


def message_properties(
    section: bytes, carrier: int, count_max: int = COUNT_MAX
) -> MessageProperties:
    """Split the properties of a PUBLISH or a Will. `section` does not include its length."""
    if len(section) <= _REMEMBERED_BYTES_MAX:
        return _remembered(section, carrier, count_max)
    return _message_properties(section, carrier, count_max)


_REMEMBERED_BYTES_MAX = 64


@lru_cache(maxsize=4096)
def _remembered(section: bytes, carrier: int, count_max: int) -> MessageProperties:
    """A publisher mostly sends the same section again (a Topic Alias, a Content Type).

    Looking it up costs 0.15 µs, splitting it 3 µs and more (`python -m benchmarks.codec`,
    *properties remembered* beside *properties made*).
    """
    return _message_properties(section, carrier, count_max)


def _message_properties(section: bytes, carrier: int, count_max: int) -> MessageProperties:
    forwarded: list[bytes] = []
    others: Properties = {}
    unfit = ""
    reader = Reader(section, 0, len(section))
    start = 0
    for identifier, value in _walk(reader, carrier, count_max):
        if identifier in _FORWARDED:
            forwarded.append(section[start : reader.position])
        elif identifier == Property.SUBSCRIPTION_IDENTIFIER:
            raise ProtocolViolation("a client sent a Subscription Identifier")  # [MQTT-3.3.4-6]
        else:
            others[identifier] = value
        if identifier == Property.RESPONSE_TOPIC:
            if "+" in value or "#" in value:
                raise ProtocolViolation("a Response Topic has a wildcard")  # [MQTT-3.3.2-14]
            if not value:
                raise ProtocolViolation("a Response Topic is empty")  # [MQTT-4.7.3-1]
        if _is_unfit(value):
            unfit = unfit or _name(identifier)
        start = reader.position
    return MessageProperties(
        b"".join(forwarded),
        others.get(Property.MESSAGE_EXPIRY_INTERVAL),
        others.get(Property.TOPIC_ALIAS),
        others.get(Property.WILL_DELAY_INTERVAL, 0),
        unfit,
    )


def _is_unfit(value: Any) -> bool:
    """Whether it is a text, or a pair of them, with a control character."""
    if isinstance(value, tuple):
        return has_control_character(value[0]) or has_control_character(value[1])
    return isinstance(value, str) and has_control_character(value)


def user_properties(encoded: bytes) -> UserProperties:
    """The User Properties in `Publish.properties`, `Will.properties` or `Message.properties`."""
    if Property.USER_PROPERTY not in encoded:
        return []
    reader = Reader(encoded, 0, len(encoded))
    walk = _walk(reader, PacketType.PUBLISH, COUNT_MAX)
    return [value for identifier, value in walk if identifier == Property.USER_PROPERTY]


def has_user_property(encoded: bytes, pair: tuple[str, str]) -> bool:
    """Whether `user_properties` has the pair. A search of the bytes rules most out cheaply."""
    return _encoded_pair(pair) in encoded and pair in user_properties(encoded)


@lru_cache(maxsize=8)
def _encoded_pair(pair: tuple[str, str]) -> bytes:
    return bytes((Property.USER_PROPERTY,)) + _write_value(Kind.PAIR, pair)


def _walk(reader: Reader, carrier: int, count_max: int) -> Iterator[tuple[int, Any]]:
    """Every property up to the end of `reader`, checked against the table."""
    seen = count = 0
    while not reader.at_end():
        if count == count_max:
            raise QuotaExceeded(f"a packet has more than {count_max} properties")
        count += 1
        identifier = reader.byte()
        row = TABLE.get(identifier)
        if row is None:
            raise MalformedPacket(f"there is no property 0x{identifier:02X}")
        if carrier not in row.carriers:
            raise ProtocolViolation(f"{_name(identifier)} may not stand in this packet")
        if seen >> identifier & 1 and carrier not in row.repeats:
            raise ProtocolViolation(f"{_name(identifier)} is there twice")
        seen |= 1 << identifier
        value = _read_value(row.kind, reader)
        if isinstance(value, int) and not row.low <= value <= row.high:
            raise ProtocolViolation(f"{_name(identifier)} is {value}")
        yield identifier, value


def _name(identifier: int) -> str:
    return Property(identifier).name.replace("_", " ").title()


def _read_value(kind: Kind, reader: Reader) -> Any:
    match kind:
        case Kind.PAIR:
            return reader.string(), reader.string()
        case Kind.STRING:
            return reader.string()
        case Kind.BINARY:
            return reader.binary()
        case Kind.BYTE:
            return reader.byte()
        case Kind.U16:
            return reader.u16()
        case Kind.U32:
            return reader.u32()
        case Kind.VARINT:
            return reader.varint()


def _write_value(kind: Kind, value: Any) -> bytes:
    match kind:
        case Kind.PAIR:
            return fields.string(value[0]) + fields.string(value[1])
        case Kind.STRING:
            return fields.string(value)
        case Kind.BINARY:
            return fields.binary(value)
        case Kind.BYTE:
            return bytes((value,))
        case Kind.U16:
            return fields.u16(value)
        case Kind.U32:
            return fields.u32(value)
        case Kind.VARINT:
            return fields.varint(value)
