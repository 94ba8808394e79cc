"""How a line looks to a person and to the journal, whatever a client put into it."""

from __future__ import annotations

import logging
import os
import pty
from collections.abc import Iterator

import pytest

from cli.process.line_format import (
    ARGUMENT_CHARACTERS_MAX,
    LINE_CHARACTERS_MAX,
    FileFormat,
    JournalFormat,
    TerminalFormat,
    format_for,
)

SAID = "client %r at %s: refused: %s"


def record(*args: object, level: int = logging.INFO) -> logging.LogRecord:
    made = logging.LogRecord("broker.x", level, "x.py", 1, SAID, args, None)
    made.created = 1_800_000_000.25
    return made


@pytest.fixture
def terminal() -> Iterator[int]:
    ours, theirs = pty.openpty()
    yield theirs
    os.close(ours)
    os.close(theirs)


def test_in_a_file_a_line_has_the_time_of_the_history_and_a_level_that_matters() -> None:
    said = "client 'a' at here: refused: no"
    at = "2027-01-15T08:00:00.250Z"
    assert FileFormat().format(record("a", "here", "no")) == f"{at} {said}"
    warning = record("a", "here", "no", level=logging.WARNING)
    assert FileFormat().format(warning) == f"{at} WARNING {said}"


@pytest.mark.parametrize(
    ("level", "begins"),
    [("DEBUG", "<7>c"), ("INFO", "<6>c"), ("WARNING", "<4>W"), ("ERROR", "<3>E")],
)
def test_in_the_journal_it_has_a_priority_and_no_time(level: str, begins: str) -> None:
    number = logging.getLevelNamesMapping()[level]
    assert JournalFormat().format(record("a", "here", "no", level=number)).startswith(begins)


def test_each_line_of_a_traceback_has_the_priority() -> None:
    try:
        raise ZeroDivisionError("\x1b[2J")
    except ZeroDivisionError as error:
        made = record("a", "b", "c", level=logging.CRITICAL)
        made.exc_info = (ZeroDivisionError, error, error.__traceback__)
    lines = JournalFormat().format(made).split("\n")
    assert len(lines) >= 4
    assert all(line.startswith("<2>") for line in lines)
    assert lines[-1] == r"<2>ZeroDivisionError: \x1b[2J"


def test_on_a_terminal_it_is_folded_at_its_width() -> None:
    long = record("sub1", "192.168.100.200:50123", "the broker keeps 1000000 sessions already")
    lines = TerminalFormat(lambda: 80).format(long).split("\n")
    assert len(lines) == 2
    assert all(len(line) <= 80 for line in lines)
    assert lines[0][2] == lines[0][5] == ":"
    assert len(lines[1]) - len(lines[1].lstrip()) == len("08:00:00 ")
    assert len(TerminalFormat(lambda: 3).format(long).split("\n")) > 2


@pytest.mark.parametrize(
    "made",
    [record("a\n<0>b", "h", "no"), record("a", "h\x1b[2J\n", "no"), record("a", "h", "\u202e\r\n")],
)
def test_nothing_of_a_client_acts_on_a_terminal_or_begins_a_line(made: logging.LogRecord) -> None:
    for formatter in (FileFormat(), JournalFormat(), TerminalFormat(lambda: 200)):
        assert formatter.format(made).isprintable()


def test_a_line_has_a_bounded_length_and_keeps_what_is_at_its_end() -> None:
    line = FileFormat().format(record("a" * 65_535, "here", "no"))
    assert len(line) < ARGUMENT_CHARACTERS_MAX + 100
    assert line.endswith("...' at here: refused: no")
    assert len(FileFormat().format(record(*["\n" * 9999, b"b" * 9999, "c"]))) < 5000
    assert len(FileFormat().format(record("a", b"b" * 9999, "c"))) < LINE_CHARACTERS_MAX + 100


def test_the_format_is_that_of_where_it_goes(
    terminal: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """systemd.exec(5): JOURNAL_STREAM is inherited also by who writes elsewhere."""
    reader, writer = os.pipe()
    try:
        monkeypatch.delenv("JOURNAL_STREAM", raising=False)
        assert type(format_for(writer)) is FileFormat
        assert type(format_for(terminal)) is TerminalFormat
        status = os.fstat(writer)
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino}")
        assert type(format_for(writer)) is JournalFormat
        monkeypatch.setenv("JOURNAL_STREAM", f"{status.st_dev}:{status.st_ino + 1}")
        assert type(format_for(writer)) is FileFormat
    finally:
        os.close(reader)
        os.close(writer)
    assert type(format_for(writer)) is FileFormat


def test_a_terminal_that_does_not_tell_its_width_has_80_columns(terminal: int) -> None:
    long = record("sub1", "here", "word " * 40)
    assert max(map(len, format_for(terminal).format(long).split("\n"))) in range(70, 81)
