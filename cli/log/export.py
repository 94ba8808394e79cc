"""`pubsub export`: the messages of a log in a file that other programs read, and `import` too.

    .jsonl    a line of JSON per message, as `pubsub log --json` has it
    .csv      as `pubsub log --csv` has it
    .parquet  columns (`parquet.py`, an extra)

Payloads that are no UTF-8 are in base64, so what is read again is what was published, bit for bit.
An export to a JSONL or CSV file that is there goes on behind its last whole message: one that was
interrupted, or one of yesterday. One of another log is refused.
"""

from __future__ import annotations

import csv
import json
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from broker.config import DATABASE
from broker.message import Message, rfc3339
from broker.plural import counted
from broker.topics import validate_filter
from cli.log import database
from cli.log.history import History, Log, Options, Places
from cli.log.log_lines import CSV_COLUMNS, csv_lines, json_lines
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.long_work import LongWork, speed

STANDARD_OUTPUT = "-"
FORMATS = ("jsonl", "csv", "parquet")
KNOWN_MAX = 20
"""Of the last messages of a file: by them an export of another log is told."""
HEADING = ",".join(CSV_COLUMNS).encode() + b"\r\n"


def format_of(path: Path, given: str | None) -> str:
    """Raises CommandFailed (2): neither the option nor the name of the file says which."""
    name = given or path.suffix.removeprefix(".").lower()
    name = {"ndjson": "jsonl", "json": "jsonl"}.get(name, name)
    if str(path) == STANDARD_OUTPUT and given is None:
        return "jsonl"
    if name not in FORMATS:
        raise CommandFailed(
            f"{path}: which format?", "use --format jsonl, csv or parquet", Exit.USAGE
        )
    return name


def export(options: Options, path: Path, format: str, *, as_json: bool) -> None:
    """Raises CommandFailed: no log, FILE is something else, interrupted (what is whole stays);
    StoreError: damaged, and the rest was exported."""
    for topic_filter in options.filters:
        validate_filter(topic_filter)
    places = Places.of(options, time.time_ns() // 1000)
    for said in places.said:
        output.hint(said)
    with database.reading(options.data_dir / DATABASE) as connection:
        history = History(connection, options, places)
        with (
            LongWork("exporting", f"the same command again goes on ({path})") as work,
            _target(path, format, history.age_us()) as target,
        ):
            if target.after:
                _refuse_another_log(history, target.known, path)
                output.note(f"{path} goes on after offset {target.after}")
            history.first = max(history.first, target.after + 1)
            total = max(0, history.last - history.first + 1)
            looked = 0

            def step(count: int) -> None:
                nonlocal looked
                looked = count

            history.looked = step
            for page in history.pages():
                target.write(page)
                work.step(looked, total)
            target.finish()
            record = {
                "exported": str(path),
                "format": format,
                "messages": target.messages,
                "first": target.first,
                "last": target.last,
                "bytes": target.bytes,
                "seconds": round(work.seconds, 3),
            }
    if as_json and str(path) != STANDARD_OUTPUT:
        output.data(output.json_line(record))
    elif str(path) != STANDARD_OUTPUT:
        said = counted(target.messages, "message")
        if target.messages:
            said += f" (offsets {target.first} to {target.last})"
        output.note(f"{said} to {path}: {speed(target.bytes, record['seconds'])}")  # type: ignore[arg-type]
    history.raise_if_damaged()


def _refuse_another_log(history: Log, known: Sequence[Known], path: Path) -> None:
    """Raises CommandFailed (2): a file that ends with these messages is not of this log."""
    last = known[-1].offset
    another = f"{path} is an export of another log:"
    remedy = "give another name, or remove it"
    if last > (newest := history.last_given):
        said = f"{another} it ends with offset {last:,}, and this log with {newest:,}"
        raise CommandFailed(said, remedy, Exit.USAGE)
    for row in reversed(known):
        for message in history.at([row.offset]):
            if row != Known.of(message):
                said = f"{another} at offset {row.offset:,} it has another message"
                raise CommandFailed(said, remedy, Exit.USAGE)
            return
    output.note(f"whether {path} is of this log cannot be told: its last messages are removed here")


class Known(NamedTuple):
    """What tells a message of a file from one of another log."""

    offset: int
    published_at: str
    publisher: str
    topic: str

    @classmethod
    def of(cls, message: Message) -> Known:
        published_at = rfc3339(message.published_at_us)
        return cls(message.offset, published_at, message.publisher, message.topic)


class Target:
    """Where the messages go. `after`: the newest offset that is there already; `known`: some of the
    last messages that are, in their order."""

    def __init__(self) -> None:
        self.known: Sequence[Known] = ()
        self.after = 0
        self.messages = self.first = self.last = self.bytes = 0

    def __enter__(self) -> Target:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, messages: Sequence[Message]) -> None:
        if not messages:
            return
        self.first = self.first or messages[0].offset
        self.last = messages[-1].offset
        self.messages += len(messages)
        self.bytes += self.put(messages)

    def put(self, messages: Sequence[Message]) -> int:
        """How many bytes that were."""
        raise NotImplementedError

    def finish(self) -> None:
        """All is written."""

    def close(self) -> None:
        """Also after a failure."""


class Lines(Target):
    """JSONL or CSV, in a file or on standard output."""

    def __init__(self, path: Path, format: str, age_us: int) -> None:
        super().__init__()
        self._write: Callable[[Sequence[Message]], bytes]
        self._file: IO[bytes] | None = None
        self._path = path
        if str(path) == STANDARD_OUTPUT:
            self._write = json_lines(age_us) if format == "jsonl" else csv_lines(age_us)
            return
        try:
            self._file = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "r+b")
        except OSError as error:
            raise CommandFailed(f"{path}: {error.strerror}") from error
        try:
            self.known, end = (_last_json if format == "jsonl" else _last_csv)(self._file, path)
            self.after = self.known[-1].offset if self.known else 0
            self._file.seek(end)
            self._file.truncate()
        except BaseException:
            self._file.close()
            raise
        self._write = (
            json_lines(age_us)
            if format == "jsonl"
            else csv_lines(age_us, heading=end == 0, to_file=True)
        )

    def put(self, messages: Sequence[Message]) -> int:
        block = self._write(messages)
        if self._file is None:
            output.data(block)
            return len(block)
        try:
            self._file.write(block)
        except OSError as error:
            raise CommandFailed(f"{self._path}: {error.strerror}") from error
        return len(block)

    def finish(self) -> None:
        if self._file is not None:
            try:
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                raise CommandFailed(f"{self._path}: {error.strerror}") from error

    def close(self) -> None:
        if self._file is not None:
            self._file.close()


def _target(path: Path, format: str, age_us: int) -> Target:
    if format != "parquet":
        return Lines(path, format, age_us)
    from cli.log.parquet import ParquetTarget

    return ParquetTarget(path, age_us)


def _is_no_export(path: Path) -> CommandFailed:
    return CommandFailed(
        f"{path} is there, and is no export of this format", "give another name", Exit.USAGE
    )


def _last_json(file: IO[bytes], path: Path) -> tuple[Sequence[Known], int]:
    """What its last whole lines have, and where these end."""
    size = file.seek(0, os.SEEK_END)
    end, tail = size, b""
    while end > 0 and tail.count(b"\n") < 2:
        end = max(0, end - (1 << 16))
        file.seek(end)
        tail = file.read(size - end)
    whole, newline, rest = tail.rpartition(b"\n")
    if not newline:
        if not tail or (tail.startswith(b"{") and end == 0):
            return (), 0  # Not one line is whole.
        raise _is_no_export(path)
    lines = whole.split(b"\n")[0 if end == 0 else 1 :]
    try:
        records = [json.loads(line) for line in lines[-KNOWN_MAX:]]
        known = [Known(*[record[name] for name in Known._fields]) for record in records]
    except (ValueError, KeyError, TypeError) as error:
        raise _is_no_export(path) from error
    if not all(isinstance(row.offset, int) for row in known):
        raise _is_no_export(path)
    return known, size - len(rest)


def _last_csv(file: IO[bytes], path: Path) -> tuple[Sequence[Known], int]:
    """The same. A payload may have newlines, so it is read from its beginning."""
    csv.field_size_limit(sys.maxsize)
    file.seek(0)
    head = file.read(len(HEADING))
    if len(head) < len(HEADING) and HEADING.startswith(head):
        return (), 0  # Not even that is whole.
    file.seek(0)
    position, end = 0, 0
    known = deque[Known](maxlen=KNOWN_MAX)

    def whole_lines() -> Iterator[str]:
        nonlocal position
        for line in file:
            position += len(line)
            if line.endswith(b"\n"):
                yield line.decode("utf-8", "replace")

    for number, row in enumerate(csv.reader(whole_lines(), strict=False)):
        if number == 0 and tuple(row) != CSV_COLUMNS:
            raise _is_no_export(path)
        if len(row) != len(CSV_COLUMNS):
            break
        if number:
            known.append(_known(row, path))
        end = position
    if end == 0:
        raise _is_no_export(path)
    return known, end


def _known(row: Sequence[str], path: Path) -> Known:
    fields = dict(zip(CSV_COLUMNS, row, strict=True))
    if not fields["offset"].isdecimal():
        raise _is_no_export(path)
    return Known(int(fields["offset"]), *[fields[name] for name in Known._fields[1:]])
