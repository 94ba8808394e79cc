"""The only prints: data to standard output, everything else to standard error.

- What is written to a terminal is escaped: a payload must not be able to move the cursor, change
  the title or hide what it says. A pipe or a file gets the bytes as they are.
- A reader that went away ends the command quietly (`OutputClosed`).
"""

from __future__ import annotations

import json
import math
import os
import select
import stat
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TextIO

from cli.terminal.failure import CommandFailed, OutputClosed

SILENT_S = 1.0
"""A person waits so long without being told what for."""


def data(block: bytes) -> None:
    """Write and flush: once this returns, the reader of our standard output has it.

    Raises OutputClosed, or CommandFailed if it cannot be written for another reason (disk full).
    """
    try:
        sys.stdout.buffer.write(block)
        sys.stdout.buffer.flush()
    except OSError as error:
        # What is still buffered would fail again when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            raise OutputClosed from error
        raise CommandFailed(f"the output cannot be written: {error.strerror}") from error


def text(block: str) -> None:
    data(block.encode("utf-8", "surrogateescape"))


def note(sentence: str) -> None:
    """Something for the person at the terminal."""
    _say(sentence)


def hint(sentence: str) -> None:
    """A note that only a person can use: not for what reads our standard error."""
    if sys.stderr.isatty():
        note(sentence)


@contextmanager
def waiting(sentence: str) -> Iterator[None]:
    """While entered: a hint after `SILENT_S`, from a thread, so that a call may block."""
    timer = threading.Timer(SILENT_S, hint, [sentence])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def error(sentence: str) -> None:
    _say(f"pubsub: {sentence}")


def _say(line: str) -> None:
    try:
        print(line, file=sys.stderr, flush=True)
    except OSError:
        # Nobody reads it, or its disk is full. Our exit code still tells; what is still buffered
        # would fail again when the interpreter exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stderr.fileno())


def progress(line: str) -> None:
    """What changes all the time, on the last line of a terminal; "" removes it again."""
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def to_terminal() -> bool:
    return sys.stdout.isatty()


def nothing(sentence: str) -> None:
    """In place of a table without rows, on a terminal; a program needs no words for nothing."""
    if to_terminal():
        note(sentence)


def reader_gone() -> list[TextIO]:
    """What `select` reports as readable once the reader of our pipe has gone: [] if it is none."""
    return [sys.stdout] if stat.S_ISFIFO(os.fstat(sys.stdout.fileno()).st_mode) else []


def check_reader() -> None:
    """Raises OutputClosed if the reader of our pipe has gone, also while there is no data."""
    if select.select(reader_gone(), [], [], 0)[0]:
        raise OutputClosed


def json_line(record: Mapping[str, object]) -> bytes:
    """One line of NDJSON. On a terminal it is pure ASCII, so that nothing in it acts on it.

    JSON has no number that is none, nor an infinite one: these become texts, as `"Infinity"`.
    """
    ascii_only = to_terminal()
    try:
        text = json.dumps(record, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)
    except ValueError:
        finite = _finite(record)
        text = json.dumps(finite, ensure_ascii=ascii_only, separators=(",", ":"), allow_nan=False)
    # Of a file's name that is no UTF-8, what JSON can say.
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _finite(value: object) -> object:
    match value:
        case float() if not math.isfinite(value):
            return json.dumps(value)
        case Mapping():
            return {name: _finite(each) for name, each in value.items()}
        case list() | tuple():
            return [*map(_finite, value)]
        case _:
            return value


def payload_fields(payload: bytes) -> dict[str, object]:
    """`payload` where it is UTF-8, `payload_base64` where it is not."""
    try:
        return {"payload": payload.decode()}
    except UnicodeDecodeError:
        import base64

        return {"payload_base64": base64.b64encode(payload).decode()}


def escaped(text: bytes | str) -> str:
    """One line of printable text that says exactly what `text` is.

    Characters that do not print become `\\n`, `\\x1b`, `\\u202e`, bytes that are not UTF-8 `\\xff`;
    a backslash is doubled, so that what was escaped can be told from what was not.
    """
    return _printable(_decoded(text).replace("\\", "\\\\"), keep="")


def one_line(text: str) -> str:
    """The same, but backslashes stay: for text of which a part is escaped already."""
    return _printable(text, keep="")


def harmless(text: bytes | str) -> str:
    """For a terminal: the same, but lines, tabs and backslashes stay as they are."""
    return _printable(_decoded(text), keep="\n\t")


def _decoded(text: bytes | str) -> str:
    return text if isinstance(text, str) else text.decode("utf-8", "surrogateescape")


def _printable(text: str, keep: str) -> str:
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else _escape(character)
        for character in text
    )


def _escape(character: str) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as surrogateescape carries it
        return f"\\x{code - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()
