"""Nothing that happens to the reader of standard error harms the broker."""

from __future__ import annotations

import fcntl
import logging
import os
import time
from collections.abc import Iterator

import pytest

from cli.process import line_writer, repeats
from cli.process.line_format import JournalFormat
from cli.process.line_writer import WAITING_BYTES_MAX, LineWriter
from cli.process.repeats import LINES_ABOUT_ONE_MAX, WINDOW_S
from tests.support.clock import FakeClock

PIPE_BYTES = 4096


class Pipe:
    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()
        fcntl.fcntl(self.writer, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self.got = b""

    def lines(self, count: int) -> list[bytes]:
        """Read until so many lines have come."""
        while self.got.count(b"\n") < count:
            self.got += os.read(self.reader, 1 << 16)
        *lines, self.got = self.got.split(b"\n", count)
        return lines


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    pipe = Pipe()
    yield pipe
    for descriptor in (pipe.reader, pipe.writer):
        try:
            os.close(descriptor)
        except OSError:
            continue  # The test closed it.


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def writer(pipe: Pipe, clock: FakeClock) -> Iterator[LineWriter]:
    writer = LineWriter(pipe.writer, JournalFormat(), clock=clock.monotonic)
    yield writer
    os.set_blocking(pipe.reader, False)
    writer.close()


def say(writer: LineWriter, *args: object, line: int = 1) -> None:
    writer.handle(logging.LogRecord("x", logging.INFO, "x.py", line, "said %s", args, None))


def test_lines_come_in_their_order(pipe: Pipe, writer: LineWriter) -> None:
    for number in range(100):
        say(writer, str(number))
    assert pipe.lines(100) == [b"<6>said %d" % number for number in range(100)]


def test_what_was_left_out_is_told_when_the_window_ends(
    pipe: Pipe, writer: LineWriter, clock: FakeClock
) -> None:
    for _ in range(100):
        say(writer, "a")
    clock.advance(WINDOW_S)
    say(writer, "b")
    assert pipe.lines(7)[-2:] == [
        b"<6>said a [and %d more like this]" % (100 - LINES_ABOUT_ONE_MAX),
        b"<6>said b",
    ]


def test_what_was_left_out_is_told_also_when_nothing_follows(
    pipe: Pipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(repeats, "WINDOW_S", 0.2)
    writer = LineWriter(pipe.writer, JournalFormat())
    for _ in range(9):
        say(writer, "a")
    assert pipe.lines(6)[-1] == b"<6>said a [and 4 more like this]"
    writer.close()


def test_the_end_tells_what_was_left_out(pipe: Pipe, writer: LineWriter) -> None:
    for _ in range(7):
        say(writer, "a")
    writer.close()
    assert pipe.lines(6)[-1] == b"<6>said a [and 2 more like this]"
    say(writer, "too late")
    writer.close()


def test_nobody_waits_for_a_reader_who_does_not_read(
    pipe: Pipe, writer: LineWriter, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And memory has a bound. What was lost is told when there is a reader again."""
    monkeypatch.setattr(line_writer, "FLUSH_TIMEOUT_S", 0.05)
    began = time.monotonic()
    for number in range(200):
        for line in range(90):
            say(writer, f"{number} {'x' * 100}", line=line)
    assert writer._waiting_bytes <= WAITING_BYTES_MAX
    writer.flush()
    assert time.monotonic() - began < 10
    lost = writer._lost
    assert lost > 0
    assert len(pipe.lines(200 * 90 - lost)[-1]) > 100
    say(writer, "again", line=99)
    assert pipe.lines(2) == [
        f"<4>WARNING {lost:,} lines of diagnostics could not be written".encode(),
        b"<6>said again",
    ]


def test_a_pipe_that_is_broken_harms_nobody(pipe: Pipe, writer: LineWriter) -> None:
    os.close(pipe.reader)
    for number in range(10):
        say(writer, str(number))
        writer.flush()
    assert writer._lost == 10
    pipe.reader, new = os.pipe()
    os.dup2(new, pipe.writer)
    os.close(new)
    say(writer, "again")
    assert pipe.lines(2)[1] == b"<4>WARNING 10 lines of diagnostics could not be written"


def test_a_pipe_that_others_made_nonblocking_loses_nothing(pipe: Pipe, writer: LineWriter) -> None:
    os.set_blocking(pipe.writer, False)
    for number in range(200):
        say(writer, f"{number} {'x' * 100}")
    assert len(pipe.lines(200)) == 200


def test_a_line_that_is_a_mistake_of_ours_is_told_and_harms_nobody(
    pipe: Pipe, writer: LineWriter
) -> None:
    say(writer, "a", "too many")
    assert pipe.lines(1)[0].startswith(b"x.py:1: this line cannot be made: TypeError(")
