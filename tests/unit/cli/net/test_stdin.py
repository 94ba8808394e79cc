"""Lines of standard input, however they are cut into reads."""

from __future__ import annotations

import os

import pytest

from cli.net import stdin
from cli.net.stdin import Lines
from cli.terminal.failure import CommandFailed, Exit


def test_lines_are_whole_however_they_arrive_and_the_last_needs_no_newline() -> None:
    readable, writable = os.pipe()
    lines = Lines(readable)
    assert not lines.readable()
    os.write(writable, b"one\ntw")
    lines.read()
    assert [*lines.waiting] == [b"one"]
    os.write(writable, b"o\n\nthree")
    lines.read()
    assert [*lines.waiting] == [b"one", b"two", b""]
    os.close(writable)
    assert lines.readable()
    lines.read()
    assert ([*lines.waiting], lines.ended) == ([b"one", b"two", b"", b"three"], True)
    os.close(readable)


def test_a_line_without_an_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `pubsub pub TOPIC -l </dev/zero` has one: memory is not read full of it."""
    monkeypatch.setattr(stdin, "VARINT_MAX", 100)
    readable, writable = os.pipe()
    lines = Lines(readable)
    os.write(writable, b"x" * 60 + b"\n" + b"y" * 60)
    lines.read()
    assert [*lines.waiting] == [b"x" * 60]
    os.write(writable, b"y" * 60)
    with pytest.raises(CommandFailed) as refused:
        lines.read()
    assert refused.value.code is Exit.USAGE
    os.close(readable)
    os.close(writable)
