"""Entries: what is in the records of a shared log, bit for bit.

An entry is what one broker appends at once, with its number: messages and operations on documents
in their order, or that another broker is dead, or what it tells of itself. Its bytes lie in one
record or, if they are many, in several. Whoever appends it again writes the same bytes.

Each record begins with the format. Documents are written field by field: a field that a later
program adds is the last of its class and has a default; a program refuses what it does not know.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from typing import Any
from zlib import crc32

from broker.documents import (
    CursorDocument,
    DedupDocument,
    DelayedDeadlineDocument,
    DelayedDocument,
    Delete,
    Document,
    InFlightDocument,
    Key,
    MarkDocument,
    Operation,
    OwnerDocument,
    Place,
    Put,
    ReceivedQos2Document,
    RuleDocument,
    SessionDocument,
    SubscriptionDocument,
    TimeDocument,
    UserDocument,
    WillDeadlineDocument,
    WillDocument,
    WriterDocument,
)
from broker.documents.queues import (
    DeadLetterDocument,
    DeadNoticeDocument,
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
    RetryDocument,
)
from broker.documents.quotas import QuotaDocument, RetainedByDocument
from broker.errors import SchemaMismatch, StoreCorrupt
from broker.message import Message, Offset

FORMAT = 1
"""Another one also where a later program decides otherwise what counts: brokers that do not decide
alike have other offsets, and nobody would say so."""

CLASSES: tuple[type[Document], ...] = (
    *(SessionDocument, SubscriptionDocument, CursorDocument, InFlightDocument),
    *(ReceivedQos2Document, WillDocument, WillDeadlineDocument, DelayedDocument),
    *(DelayedDeadlineDocument, DedupDocument, GroupDocument, RetryDocument, DeadLetterDocument),
    *(DeadNoticeDocument, TimeDocument, MarkDocument, UserDocument, RuleDocument),
    *(OwnerDocument, QuotaDocument, RetainedByDocument),
    *(MemberDocument, LoanDocument, ReportDocument, WriterDocument),
)
"""By their numbers in the log: new ones come last, and none goes."""
_NUMBERS = {kind: number for number, kind in enumerate(CLASSES)}
_FIELDS = {kind: tuple([field.name for field in fields(kind)]) for kind in CLASSES}

APPEND, CLOSED, ALIVE = 1, 2, 3
"""Messages and operations; another broker is dead, unless it has appended since a position; what a
broker tells of itself."""

_HEAD = struct.Struct(">BBHHQB")
"""Format, kind, which part of how many, number at its broker, length of the broker's name."""
_CHECKSUM = struct.Struct(">I")
"""Over the head, and over what comes after the checksum: the broker's name and the content."""
_POSITION = struct.Struct(">Q")
_COUNTS = struct.Struct(">II")
_MESSAGE = struct.Struct(">HIIHBqq")
"""Bytes of topic, payload, properties and publisher; flags; times."""
_QOS, _RETAIN, _EXPIRES = 0x03, 0x04, 0x08
_OPERATION = struct.Struct(">BBBq")
"""Put or Delete, class, number of values, revision or ANY."""
_ANY = -1
_PUT, _DELETE = 1, 2
_INTEGER, _LENGTH = struct.Struct(">Bq"), struct.Struct(">BI")
_NONE, _FALSE, _TRUE, _INT, _TEXT, _BYTES, _PLACE = range(7)


@dataclass(slots=True)
class Part:
    """A record: one of `parts` with the content of an entry."""

    broker: str
    number: int
    kind: int
    part: int
    parts: int
    content: bytes


@dataclass(slots=True, frozen=True)
class Told:
    """What a broker tells of itself, every few seconds."""

    advertise: str = ""
    """`host:port` of it for clients; "": it does not say, or they are not to come."""
    has_room: bool = True
    connections: int = 0
    position: int = 0
    """How far its copy has come."""


def records_of(broker: str, number: int, kind: int, content: bytes, bytes_max: int) -> list[bytes]:
    """The bodies of an entry's records, each of about `bytes_max` at most."""
    cut = [content[i : i + bytes_max] for i in range(0, len(content), bytes_max)] or [b""]
    name = broker.encode()
    bodies = []
    for i, part in enumerate(cut):
        rest = name + part
        head = _HEAD.pack(FORMAT, kind, i, len(cut), number, len(name))
        bodies.append(head + _CHECKSUM.pack(crc32(rest, crc32(head))) + rest)
    return bodies


def part_of(body: bytes) -> Part:
    """Raises StoreCorrupt, SchemaMismatch."""
    if body[:1] != bytes([FORMAT]):
        raise SchemaMismatch(f"the shared log has format {body[:1]!r}, not {FORMAT}")
    begin = _HEAD.size + _CHECKSUM.size
    if len(body) < begin:
        raise StoreCorrupt("a record of the shared log is cut off")
    _, kind, part, parts, number, length = _HEAD.unpack_from(body)
    rest = body[begin:]
    if _CHECKSUM.pack(crc32(rest, crc32(body[: _HEAD.size]))) != body[_HEAD.size : begin]:
        raise StoreCorrupt("a record of the shared log is damaged")
    return Part(rest[:length].decode(), number, kind, part, parts, rest[length:])


def encode_closed(broker: str, position: int) -> bytes:
    """The content of CLOSED: the broker, and where it was heard of last."""
    return _POSITION.pack(position) + broker.encode()


def decode_closed(content: bytes) -> tuple[str, int]:
    return content[_POSITION.size :].decode(), _POSITION.unpack_from(content)[0]


def encode_told(told: Told) -> bytes:
    """The content of ALIVE: JSON, so that a later program may tell more."""
    return json.dumps(asdict(told)).encode()


def decode_told(content: bytes) -> Told:
    """What this program knows of it."""
    told = json.loads(content)
    return Told(**{field.name: told[field.name] for field in fields(Told) if field.name in told})


def encode(
    messages: Sequence[Message], operations: Sequence[Operation], places: Sequence[Place]
) -> bytes:
    """The content of APPEND. The fields that wait for one of its `places` are filled in by whoever
    reads it."""
    after = {id(place) for place in places}
    written = [_COUNTS.pack(len(operations), len(messages))]
    for operation in operations:
        match operation:
            case Put(document, revision):
                assert operation.fill_in is None, "QoS 0 is not served before it is in this log"
                names = _FIELDS[type(document)]
                values: list[Any] = [getattr(document, name) for name in names]
                for name, place in (operation.places or {}).items():
                    values[names.index(name)] = place if id(place) in after else place.offset
                what = _PUT, _NUMBERS[type(document)], len(values)
            case Delete(kind, key, revision):
                values = [*key]
                what = _DELETE, _NUMBERS[kind], len(key)
        written.append(_OPERATION.pack(*what, _ANY if revision is None else revision))
        written += map(_encoded, values)
    for message in messages:
        topic, publisher = message.topic.encode(), message.publisher.encode()
        expires = message.expires_at_us
        flags = message.qos | message.retain * _RETAIN | (expires is not None) * _EXPIRES
        head = _MESSAGE.pack(
            *(len(topic), len(message.payload), len(message.properties), len(publisher)),
            *(flags, message.published_at_us, expires or 0),
        )
        written += head, topic, message.payload, message.properties, publisher
    return b"".join(written)


def _encoded(value: Any) -> bytes:
    """The commonest first: a thousand cursors move in a commit."""
    kind = type(value)
    if kind is int:
        return _INTEGER.pack(_INT, value)
    if kind is str:
        content: bytes = value.encode()
        return _LENGTH.pack(_TEXT, len(content)) + content
    if kind is bytes:
        content = value
        return _LENGTH.pack(_BYTES, len(content)) + content
    if value is None:
        return bytes([_NONE])
    if kind is bool:
        return bytes([_TRUE if value else _FALSE])
    if kind is Place:
        return _LENGTH.pack(_PLACE, value.after)
    raise TypeError(f"no value of a document: {value!r}")


def decode(content: bytes, before: Offset) -> tuple[list[Operation], list[Message]]:
    """What was encoded, coming after the offset `before`.

    Raises SchemaMismatch: a newer program wrote it.
    """
    operations, position = _operations(content, before)
    messages: list[Message] = []
    offset = before
    for _ in range(_COUNTS.unpack_from(content)[1]):
        topic, payload, properties, publisher, flags, published, expires = _MESSAGE.unpack_from(
            content, position
        )
        ends = [position := position + _MESSAGE.size]
        for length in (topic, payload, properties, publisher):
            ends.append(position := position + length)
        parts = [content[begin:end] for begin, end in pairwise(ends)]
        offset = Offset(offset + 1)
        messages.append(
            Message(
                parts[0].decode(),
                parts[1],
                flags & _QOS,
                bool(flags & _RETAIN),
                parts[3].decode(),
                published,
                expires if flags & _EXPIRES else None,
                parts[2],
                offset,
            )
        )
    return operations, messages


def decode_operations(content: bytes, before: Offset) -> list[Operation]:
    """As `decode`, without the messages."""
    return _operations(content, before)[0]


def _operations(content: bytes, before: Offset) -> tuple[list[Operation], int]:
    """And where the messages begin."""
    position = _COUNTS.size
    operations: list[Operation] = []
    for _ in range(_COUNTS.unpack_from(content)[0]):
        what, number, count, revision = _OPERATION.unpack_from(content, position)
        position += _OPERATION.size
        values: list[Any] = []
        for _ in range(count):
            value, position = _decoded(content, position, before)
            values.append(value)
        operations.append(_operation(what, number, values, revision))
    return operations, position


def _operation(what: int, number: int, values: Sequence[Any], revision: int) -> Operation:
    if number >= len(CLASSES) or len(values) > len(fields(CLASSES[number])):
        raise SchemaMismatch("the shared log has documents of a newer pubsub; upgrade this one")
    kind = CLASSES[number]
    expected = None if revision == _ANY else revision
    if what == _PUT:
        return Put(kind(*values), expected)
    key: Key = tuple(values)
    return Delete(kind, key, expected)


def _decoded(content: bytes, position: int, before: Offset) -> tuple[Any, int]:
    match content[position]:
        case 0:
            return None, position + 1
        case 1 | 2 as tag:
            return tag == _TRUE, position + 1
        case 3:
            return _INTEGER.unpack_from(content, position)[1], position + _INTEGER.size
    tag, length = _LENGTH.unpack_from(content, position)
    begin = position + _LENGTH.size
    if tag == _PLACE:
        return Offset(before + length), begin
    value = content[begin : begin + length]
    return value.decode() if tag == _TEXT else value, begin + length
