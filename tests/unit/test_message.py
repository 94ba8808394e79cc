from __future__ import annotations

import dataclasses

import pytest

from broker.message import NOT_STORED, Message, Offset, rfc3339, texts_among


def test_a_message_has_what_it_was_made_with() -> None:
    """`__init__` is written by hand: every field must be in it, each in its place."""
    given = ("t", b"payload", 2, True, "pub1", 5, 9, b"props", Offset(3))
    message = Message(*given)
    names = [field.name for field in dataclasses.fields(Message) if field.init]
    assert tuple(getattr(message, name) for name in names) == given


def test_a_new_message_is_not_stored_and_does_not_expire() -> None:
    message = Message("t", b"", 0, False, "pub1", 5)
    assert (message.offset, message.expires_at_us, message.properties) == (NOT_STORED, None, b"")


@pytest.mark.parametrize(
    ("payload", "properties", "size"),
    [(b"", b"", 0), (b"12345", b"", 5), (b"", b"123", 3), (b"12345", b"123", 8)],
)
def test_the_size_counts_payload_and_properties(
    payload: bytes, properties: bytes, size: int
) -> None:
    """P7: either may be as large as a packet."""
    assert Message("t", payload, 0, False, "p", 0, properties=properties).size == size


def test_messages_are_equal_if_all_that_was_published_and_stored_is() -> None:
    one, other = (Message("t", b"1", 1, False, "p", 5) for _ in range(2))
    assert one == other
    other.offset = Offset(1)
    assert one != other


@pytest.mark.parametrize(
    ("time_us", "text"),
    [
        (0, "1970-01-01T00:00:00.000000Z"),
        (1_741_948_200_000_001, "2025-03-14T10:30:00.000001Z"),
        (253_402_300_799_999_999, "9999-12-31T23:59:59.999999Z"),
    ],
)
def test_a_time_is_written_in_utc_to_the_microsecond(time_us: int, text: str) -> None:
    """RFC 3339; a float of seconds would lose the last digits."""
    assert rfc3339(time_us) == text


def test_the_texts_among_properties_are_found() -> None:
    properties = (
        b"\x01\x01" b"\x26\0\1k\0\3v\xc3\xa4" b"\x09\0\4\x26\0\1x" b"\x08\0\1r" b"\x03\0\0"
        b"\x26\0\0\0\1w"
    )  # fmt: skip
    assert texts_among(properties) == ["k", "v\u00e4", "r", "", "", "w"]
    assert texts_among(b"") == []
