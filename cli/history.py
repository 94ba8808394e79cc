"""`pubsub log`: what was published, read from the database itself, whether or not a broker runs.

- The database is opened read-only, and each look at it is short: a reader that stays would keep
  the broker's write-ahead log from starting over.
- A terminal gets an aligned table in which long names give way to the payload, a pipe one line of
  tab-separated columns per message; in both, what does not print is escaped. `--json` gives the
  payload as it is.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.config import DATABASE
from broker.errors import StoreCorrupt
from broker.message import Message, rfc3339
from broker.replay import spec
from broker.store.sqlite.reader import Reader
from broker.topics import validate_filter
from cli import database, output
from cli.failure import CommandFailed, Exit

PAGE_MESSAGES = 1000
PAGE_BYTES = 4 << 20
LOOK_BACK_MESSAGES_MAX = 20_000
NAMED_MAX = 10
"""Ranges of offsets that one error names."""
FOLLOW_S = 0.2
HEADINGS = ("OFFSET", "TIME", "PUBLISHER", "QOS", "TOPIC", "PAYLOAD")
PAYLOAD_WIDTH = 24
"""What the payload gets on a terminal before long names do."""
GIVE_WAY = (("PUBLISHER", 12), ("TOPIC", 16))
"""The columns that are cut for it, in this order, and how much is left of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    data_dir: Path
    filters: tuple[str, ...]
    last: int | None
    """The newest so many, None: all."""
    start: str | None = None
    until: str | None = None
    publisher: str | None = None
    grep: str | None = None
    follow: bool = False
    json: bool = False
    count: bool = False


def show(options: Options) -> None:
    """Raises CommandFailed: no database, a bad pattern; StoreError: not one that we can read."""
    for filter_ in options.filters:
        validate_filter(filter_)
    with database.reading(options.data_dir / DATABASE) as connection:
        history = History(connection, options)
        if options.count:
            output.text(f"{sum(len(page) for page in history.pages())}\n")
            return
        write = json_lines if options.json else Table(terminal=output.to_terminal()).lines
        for page in history.pages() if options.last is None else [history.newest(options.last)]:
            output.data(write(page))
        history.raise_if_damaged()
        if not history.high_watermark and output.to_terminal():
            output.note("the log is empty; publish with: pubsub pub TOPIC MESSAGE")
        if options.follow:
            with contextlib.suppress(KeyboardInterrupt):
                for page in history.follow():
                    output.data(write(page))
                    output.check_reader()
                    history.raise_if_damaged()


class Log:
    """A log that is read where it lies."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._reader = Reader(connection)
        self._damaged: list[range] = []

    @property
    def start(self) -> int:
        """The log start."""
        return self._select("SELECT start FROM log")

    @property
    def high_watermark(self) -> int:
        return self._select("SELECT ifnull(max(offset), 0) FROM messages")

    def at(self, offsets: Sequence[int]) -> list[Message]:
        """The messages at these offsets, oldest first; those that are not there are left out."""
        part = self._reader.fetch(offsets)
        self._damaged += part.damaged
        return part.messages

    def age_us(self) -> int:
        """What is added to aged time to get what the wall clock has then."""
        return self._select("SELECT ifnull((SELECT wall_us - aged_us FROM log_time), 0)")

    def raise_if_damaged(self) -> None:
        """Raises StoreCorrupt: some messages could not be read. The others were shown."""
        if self._damaged:
            named = ", ".join(f"{part.start}-{part.stop - 1}" for part in self._damaged[:NAMED_MAX])
            raise StoreCorrupt(
                f"the log is damaged: the messages at these offsets cannot be read: {named}"
            )

    def _select(self, sql: str) -> int:
        (value,) = self._connection.execute(sql).fetchone()
        assert isinstance(value, int)
        return value


class History(Log):
    """The messages of a log that are asked for, in pages, oldest first."""

    def __init__(self, connection: sqlite3.Connection, options: Options) -> None:
        super().__init__(connection)
        self._filters = options.filters or None
        self._publisher = options.publisher
        try:
            self._pattern = re.compile(options.grep) if options.grep is not None else None
        except re.error as error:
            raise CommandFailed(f"--grep: {error}", code=Exit.USAGE) from error
        now_us = time.time_ns() // 1000
        span = spec.parse(options.start or "earliest", now_us)
        end = spec.parse_point(options.until, now_us) if options.until else span.end
        self._high_watermark = self.high_watermark
        self._log_start = self._select("SELECT ifnull(min(offset), 1) FROM messages")
        self._start = max(self._log_start, self._from(span.start))
        self._end = min(self._high_watermark, self._through(end))

    def pages(self) -> Iterator[list[Message]]:
        return self._read(self._start, self._end)

    def newest(self, count: int) -> list[Message]:
        """The last `count`, looking back in growing steps for as long as too few match."""
        found: list[Message] = []
        end, step = self._end, count
        while len(found) < count and end >= self._start:
            start = self._reader.nth_last(self._filters, step, self._start, end)
            found = [message for page in self._read(start, end) for message in page] + found
            end, step = start - 1, min(step * 2, LOOK_BACK_MESSAGES_MAX)
        return found[-count:]

    def follow(self) -> Iterator[list[Message]]:
        """For ever what is new since the log was opened; an empty page when nothing is."""
        while True:
            start, self._high_watermark = self._high_watermark + 1, self.high_watermark
            yield from self._read(start, self._high_watermark)
            yield []
            time.sleep(FOLLOW_S)

    def _read(self, start: int, end: int) -> Iterator[list[Message]]:
        while start <= end:
            part = self._reader.read(start, end, self._filters, PAGE_MESSAGES, PAGE_BYTES)
            self._damaged += part.damaged
            yield [message for message in part.messages if self._is_wanted(message)]
            start = part.next

    def _is_wanted(self, message: Message) -> bool:
        if self._publisher is not None and message.publisher != self._publisher:
            return False
        if self._pattern is None:
            return True
        return self._pattern.search(message.payload.decode("utf-8", "replace")) is not None

    def _from(self, start: spec.Start) -> int:
        match start:
            case spec.Earliest():
                return self._log_start
            case spec.Latest():
                return self._high_watermark + 1
            case spec.AtOffset(offset):
                return offset
            case spec.AtTime(time_us):
                return self._offset_at(time_us)
            case spec.Last(count):
                return self._reader.nth_last(
                    self._filters, count, self._log_start, self._high_watermark
                )
            case spec.Resume():
                raise CommandFailed(
                    "--from resume is for a subscriber", "use `pubsub sub --resume`", Exit.USAGE
                )

    def _through(self, end: spec.Point | None) -> int:
        match end:
            case spec.AtOffset(offset):
                return offset
            case spec.AtTime(time_us):
                return self._offset_at(time_us) - 1
            case spec.Latest() | None:
                return self._high_watermark

    def _offset_at(self, time_us: int) -> int:
        return self._reader.offset_at(time_us, self._log_start, self._high_watermark)


class Table:
    """Columns, aligned for a terminal and cut at its edge; separated by tabs for a program.

    A terminal has the time in seconds: that suffices to go on with `--from @TIME`.
    """

    def __init__(self, *, terminal: bool) -> None:
        self._terminal = terminal
        self._widths = [0] * len(HEADINGS)

    def lines(self, messages: Sequence[Message]) -> bytes:
        rows = [_columns(message) for message in messages]
        if not self._terminal:
            return "".join("\t".join(row) + "\n" for row in rows).encode()
        rows = [(row[0], f"{row[1][:19]}Z", *row[2:]) for row in rows]
        if rows and not any(self._widths):
            rows.insert(0, HEADINGS)
        for row in rows:
            self._widths = [max(*pair) for pair in zip(self._widths, map(len, row), strict=True)]
        edge = shutil.get_terminal_size().columns
        widths = _within(edge, self._widths)
        return "".join(f"{_aligned(row, widths, edge)}\n" for row in rows).encode()


def _within(edge: int, wanted: Sequence[int]) -> list[int]:
    widths = [*wanted[:-1], min(wanted[-1], PAYLOAD_WIDTH)]
    missing = sum(widths) + 2 * (len(widths) - 1) - edge
    for heading, least in GIVE_WAY:
        at = HEADINGS.index(heading)
        cut = max(0, min(missing, widths[at] - least))
        widths[at] -= cut
        missing -= cut
    return widths


def _aligned(row: Sequence[str], widths: Sequence[int], edge: int) -> str:
    offset, *texts = (_cut(text, width) for text, width in zip(row[:-1], widths[:-1], strict=True))
    named = [text.ljust(width) for text, width in zip(texts, widths[1:-1], strict=True)]
    line = "  ".join([offset.rjust(widths[0]), *named, row[-1]]).rstrip()
    return line if len(line) <= edge else line[: edge - 1] + "…"


def _cut(name: str, width: int) -> str:
    """Both ends of a name: what tells names apart may be at either."""
    if len(name) <= width:
        return name
    end = (width - 1) // 2
    return f"{name[: width - 1 - end]}…{name[-end:]}"


def json_lines(messages: Sequence[Message]) -> bytes:
    return b"".join(
        output.json_line(
            {
                "offset": message.offset,
                "published_at": rfc3339(message.published_at_us),
                "publisher": message.publisher,
                "qos": message.qos,
                "retain": message.retain,
                "topic": message.topic,
                **output.payload_fields(message.payload),
            }
        )
        for message in messages
    )


def _columns(message: Message) -> tuple[str, ...]:
    return (
        str(message.offset),
        rfc3339(message.published_at_us),
        output.escaped(message.publisher),
        str(message.qos),
        output.escaped(message.topic),
        output.escaped(message.payload),
    )
