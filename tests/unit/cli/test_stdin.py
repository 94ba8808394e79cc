"""Lines of standard input, however they are cut into reads."""

from __future__ import annotations

import os

from cli.stdin import Lines


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
