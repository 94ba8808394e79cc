"""Mosquitto's password files, line by line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker.security.password_file import Entry, entries
from tests.support.passwords import ARGON2ID, KEPT, PBKDF2, SHA512


def test_every_kind_of_line_is_read() -> None:
    content = f"# a comment\n\nanna:{ARGON2ID}\nbob:{SHA512}\r\nÖzil:{PBKDF2}".encode()
    assert [*entries(content)] == [
        Entry(3, "anna", ARGON2ID),
        Entry(4, "bob", SHA512),
        Entry(5, "Özil", PBKDF2),
    ]


def test_a_line_that_cannot_be_used_is_told_without_the_password_in_it() -> None:
    content = f"anna:sesame\njust words\n\xff\n:{SHA512}\nbob:{SHA512}\nbob:{PBKDF2}\n"
    found = [*entries(content.encode("latin-1"))]
    assert [(e.line, e.name, e.kept != "") for e in found] == [
        (1, "anna", False),
        (2, "?", False),
        (3, "?", False),
        (4, "", False),
        (5, "bob", True),
        (6, "bob", False),
    ]
    assert "sesame" not in repr(found)
    assert "just words" not in repr(found)
    assert all(e.why_not for e in found if not e.kept)


@given(st.binary(max_size=300))
def test_whatever_is_in_the_file_raises_nothing(content: bytes) -> None:
    for entry in entries(content):
        assert bool(entry.kept) != bool(entry.why_not)


@given(st.sampled_from(KEPT), st.integers(0, 200), st.integers(0, 255))
def test_a_damaged_line_is_refused_or_is_another_hash(kept: str, at: int, byte: int) -> None:
    line = bytearray(b"anna:" + kept.encode())
    line[at % len(line)] = byte
    for entry in entries(bytes(line)):
        assert bool(entry.kept) != bool(entry.why_not)
