from __future__ import annotations

import json
from dataclasses import fields
from typing import Any, get_args

import pytest

from broker.documents import (
    CopyDocument,
    CursorDocument,
    Delete,
    Document,
    Operation,
    Place,
    Put,
    SessionDocument,
    SubscriptionDocument,
)
from broker.errors import SchemaMismatch, StoreCorrupt
from broker.message import Offset
from broker.store.shared import entries
from broker.store.shared.entries import (
    APPEND,
    CLASSES,
    Told,
    decode,
    decode_told,
    encode,
    encode_told,
    part_of,
    records_of,
)
from tests.support.messages import message

BEFORE = Offset(41)


def filled(kind: type[Document]) -> Document:
    """A document with a value of its type in each field."""
    values: dict[str, Any] = {"str": "ü", "bytes": b"\x00\xff", "bool": True}
    return kind(*[values.get(str(field.type), -(1 << 40)) for field in fields(kind)])


@pytest.mark.parametrize("kind", CLASSES)
def test_a_document_comes_back_as_it_was(kind: type[Document]) -> None:
    put: list[Operation] = [Put(filled(kind)), Put(filled(kind), 7)]
    assert decode(encode((), put, ()), BEFORE) == (put, [])


def test_every_class_has_a_number_but_that_of_the_copy() -> None:
    assert {*CLASSES} == {*get_args(Document)} - {CopyDocument}
    assert CLASSES[:3] == (SessionDocument, SubscriptionDocument, CursorDocument)


def test_what_a_later_program_tells_of_itself_is_left_out() -> None:
    told = Told("a:1", has_room=False, connections=3, position=7)
    assert decode_told(encode_told(told)) == told
    later = json.dumps({"advertise": "a:1", "mood": "fine"}).encode()
    assert decode_told(later) == Told("a:1")


def test_none_and_false_are_kept_apart() -> None:
    put = [Put(SubscriptionDocument("a", "f", 0, False, True, 0, None, Offset(0), None))]
    assert decode(encode((), put, ()), BEFORE)[0] == put


def test_messages_come_back_with_the_offsets_after_those_before() -> None:
    batch = [
        message(bytes(range(256)), "ü/\U0001f600", qos=2, publisher="é", properties=b"\x26\0"),
        message(b"", retain=True, at=0, expires_at_us=0),
        message("x", qos=0, publisher="", at=-5, expires_at_us=1 << 60),
    ]
    operations: list[Operation] = [
        Delete(CursorDocument, ("a",)),
        Delete(SessionDocument, ("b",), 3),
    ]
    found, messages = decode(encode(batch, operations, ()), BEFORE)
    assert found == operations
    assert [m.offset for m in messages] == [42, 43, 44]
    for sent, got in zip(batch, messages, strict=True):
        got.offset = sent.offset
    assert messages == batch
    assert [type(m.retain) for m in messages] == [bool] * 3


def test_places_are_filled_in_by_whoever_reads_them() -> None:
    """Those of an earlier append are known."""
    places = [Place(0), Place(2)]
    earlier = Place(3, Offset(7))
    document = SubscriptionDocument("a", "f", 0, False, True, 0, None, Offset(1))
    named = {"start_offset": places[1], "retained_through": places[0], "until_offset": earlier}
    content = encode([message(), message()], [Put(document, places=named)], places)
    (put,) = entries.decode_operations(content, BEFORE)
    assert isinstance(put, Put)
    assert isinstance(put.document, SubscriptionDocument)
    assert put.document.start_offset == 43
    assert put.document.retained_through == 41
    assert put.document.until_offset == 7


@pytest.mark.parametrize("size", [0, 1, 99, 100, 101, 1000])
def test_what_is_large_lies_in_several_records(size: int) -> None:
    content = bytes(range(256)) * 4
    content = content[:size]
    parts = [part_of(body) for body in records_of("b1", 9, APPEND, content, 100)]
    assert b"".join([part.content for part in parts]) == content
    assert [part.part for part in parts] == [*range(len(parts))]
    assert {(part.broker, part.number, part.kind, part.parts) for part in parts} == {
        ("b1", 9, APPEND, max(1, -(-size // 100)))
    }


def test_a_damaged_record_is_noticed() -> None:
    (body,) = records_of("b1", 1, APPEND, b"content", 100)
    for i in range(1, len(body)):
        with pytest.raises(StoreCorrupt):
            part_of(body[:i] + bytes([body[i] ^ 4]) + body[i + 1 :])
    with pytest.raises(StoreCorrupt, match="cut off"):
        part_of(body[:9])


def test_what_a_newer_program_wrote_is_refused() -> None:
    (body,) = records_of("b1", 1, APPEND, b"content", 100)
    with pytest.raises(SchemaMismatch, match="format"):
        part_of(b"\x02" + body[1:])
    content = bytearray(encode((), [Delete(CursorDocument, ("a",))], ()))
    content[9] = len(CLASSES)
    with pytest.raises(SchemaMismatch, match="newer"):
        decode(bytes(content), BEFORE)


def test_who_is_dead_comes_back() -> None:
    assert entries.decode_closed(entries.encode_closed("bé", 77)) == ("bé", 77)
