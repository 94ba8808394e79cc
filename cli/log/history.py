"""The messages of a log, read from the database itself, whether or not a broker runs.

The database is opened read-only, and each look at it is short: a reader that stays would keep the
broker's write-ahead log from starting over. Memory is bounded by a page, however much is asked for.
"""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from broker.errors import StoreCorrupt
from broker.message import Message
from broker.replay import spec
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.rows import BLOCK_SHIFT
from cli.net.address import Address
from cli.terminal import times
from cli.terminal.failure import CommandFailed, Exit

PAGE_MESSAGES = 1000
PAGE_BYTES = 4 << 20
FIRST_PAGE_MESSAGES = 64
"""A person sees these while the rest is read."""
LOOK_BACK_MESSAGES_MAX = 20_000
SKIPPED_AT_ONCE = 65_536
"""Offsets among which one look seeks the next message of a publisher: a few ms."""
NAMED_MAX = 10
"""Ranges of offsets that one error names."""
FOLLOW_S = 0.2


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
    csv: bool = False
    format: str | None = None
    count: bool = False
    latest: bool = False
    as_of: str | None = None
    retained: bool = False
    """Only what was published with RETAIN."""
    address: Address | None = None
    """Of the broker that has the log; None: the data directory, or where that has none, the
    broker."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """What decides of a message beside its place and its topic."""

    publisher: str | None = None
    pattern: re.Pattern[str] | None = None
    since_us: int = 0
    before_us: int | None = None
    retained: bool = False

    @property
    def is_all(self) -> bool:
        return self == Wanted()

    def has(self, message: Message) -> bool:
        if self.retained and not message.retain:
            return False
        at_us = message.published_at_us
        if at_us < self.since_us or (self.before_us is not None and at_us >= self.before_us):
            return False  # Published while the clock was wrong, between others that are wanted.
        if self.publisher is not None and message.publisher != self.publisher:
            return False
        if self.pattern is None:
            return True
        return self.pattern.search(message.payload.decode("utf-8", "replace")) is not None


def pattern_of(options: Options) -> re.Pattern[str] | None:
    """Raises CommandFailed (2)."""
    try:
        return re.compile(options.grep) if options.grep is not None else None
    except re.error as error:
        raise CommandFailed(f"--grep: {error}", code=Exit.USAGE) from error


@dataclass(frozen=True, slots=True)
class Places:
    """`--from` and `--until`, understood; `said` is what a person is told of them."""

    start: spec.Start
    end: spec.Point | None
    said: tuple[str, ...] = ()
    words: tuple[str | None, str | None] = (None, None)
    """Both, as a broker takes them."""

    @classmethod
    def of(cls, options: Options, now_us: int) -> Places:
        """Raises CommandFailed (2), ReplaySpecInvalid."""
        span, said = spec.Span(spec.Earliest()), []
        words: list[str | None] = [None, None]
        if options.start is not None:
            text, understood = times.canonical("--from", options.start, now_us)
            said += [f"from {understood}"] if understood else []
            words[0] = text
            span = spec.parse(text, now_us)
        point: spec.Point | None = span.end
        if options.until is not None:
            text, understood = times.canonical("--until", options.until, now_us)
            said += [f"until {understood}"] if understood else []
            words[1] = text
            point = spec.parse_point(text, now_us)
        if isinstance(span.start, spec.Resume):
            raise CommandFailed(
                "--from resume is for a subscriber", "use `pubsub sub --resume`", Exit.USAGE
            )
        return cls(span.start, point, tuple(said), (words[0], words[1]))

    def times_us(self) -> tuple[int, int | None]:
        """Published at or after, and before."""
        return (
            self.start.time_us if isinstance(self.start, spec.AtTime) else 0,
            self.end.time_us if isinstance(self.end, spec.AtTime) else None,
        )


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

    @property
    def last_given(self) -> int:
        """The newest offset that was ever given to a message, whether or not that is there."""
        given = "SELECT ifnull((SELECT seq FROM sqlite_sequence WHERE name = 'messages'), 0)"
        return max(self._select(given), self.high_watermark)

    def at(self, offsets: Sequence[int]) -> list[Message]:
        """The messages at these offsets, oldest first; those that are not there are left out."""
        part = self._reader.fetch(offsets)
        self._damaged += part.damaged
        return part.messages

    def retained(self) -> list[tuple[str, int]]:
        """Topics with a retained message, and its offset, by topic."""
        return self._connection.execute(
            "SELECT name, offset FROM retained_names JOIN retained USING (topic_id) ORDER BY name"
        ).fetchall()

    def last_before(self, time_us: int) -> int:
        """The last offset published before then."""
        return self._reader.last_before(time_us, self.start, self.high_watermark)

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

    def __init__(self, connection: sqlite3.Connection, options: Options, places: Places) -> None:
        super().__init__(connection)
        self.looked: Callable[[int], object] = bool
        """Is told how many offsets were looked at so far."""
        self._filters = options.filters or None
        since_us, before_us = places.times_us()
        self._wanted = Wanted(
            options.publisher, pattern_of(options), since_us, before_us, options.retained
        )
        self._newest = self.high_watermark
        self._oldest = max(self.start, self._select("SELECT ifnull(min(offset), 1) FROM messages"))
        self.first = max(self._oldest, self._from(places.start))
        self.last = min(self._newest, self._through(places.end))
        """The offsets between which the messages lie that are asked for."""
        self._publisher_id: int | None = None
        if options.publisher is not None:
            self._publisher_id = self._publisher_of(options.publisher)
            if self._publisher_id is None:
                self.first = self.last + 1

    def pages(self) -> Iterator[list[Message]]:
        """Page by page, also empty ones: what was looked at ends before `position`."""
        return self._read(self.first, self.last)

    def newest(self, count: int) -> Iterator[list[Message]]:
        """The last `count`: looks back in growing steps for as long as too few match."""
        if self._wanted.is_all:
            start = self._nth_last(count, self.first, self.last)
            return self._read(start, self.last)
        start, end, step, missing = self.last + 1, self.last, count, count
        while missing > 0 and end >= self.first:
            low = self._nth_last(step, self.first, end)
            found = [m.offset for page in self._read(low, end, damage=False) for m in page]
            if found:
                start = found[-missing] if len(found) >= missing else found[0]
            missing -= len(found)
            end, step = low - 1, min(step * 2, LOOK_BACK_MESSAGES_MAX)
            self.looked(self.last - end)
        return self._read(start, self.last)

    def count(self) -> int:
        """How many there are; by the figures of each block where nothing else decides."""
        if not self._wanted.is_all:
            return sum(map(len, self.pages()))
        if self._filters is None:
            return self._count_all()
        total, position = 0, self.first
        while position <= self.last:
            found, position = self._reader.count_part(self._filters, position, self.last)
            total += found
            self.looked(position - self.first)
        return total

    def _count_all(self) -> int:
        total, position = 0, self.first
        for block, messages in self._connection.execute(
            "SELECT block, messages FROM blocks WHERE block BETWEEN ? AND ? AND messages >= 0",
            (self.first >> BLOCK_SHIFT, self.last >> BLOCK_SHIFT),
        ).fetchall():
            low, high = block << BLOCK_SHIFT, (block + 1 << BLOCK_SHIFT) - 1
            if low >= position and high <= self.last:
                total += messages + self._count_rows(position, low - 1)
                position = high + 1
        return total + self._count_rows(position, self.last)

    def _count_rows(self, first: int, last: int) -> int:
        sql = "SELECT count(*) FROM messages WHERE offset BETWEEN ? AND ?"
        return int(self._connection.execute(sql, (first, last)).fetchone()[0])

    def follow(self) -> Iterator[list[Message]]:
        """For ever what is new since the log was opened; an empty page when nothing is."""
        while True:
            start, self._newest = self._newest + 1, self.high_watermark
            yield from self._read(start, self._newest)
            yield []
            time.sleep(FOLLOW_S)

    def _read(self, start: int, end: int, *, damage: bool = True) -> Iterator[list[Message]]:
        first, limit = start, FIRST_PAGE_MESSAGES
        while start <= end:
            if self._publisher_id is not None and (next := self._skipped(start, end)) > start:
                start = next
                yield []
                if damage:
                    self.looked(start - first)
                continue
            part = self._reader.read(start, end, self._filters, limit, PAGE_BYTES)
            if damage:
                self._damaged += part.damaged
            if part.next > start:
                limit = min(limit * 4, PAGE_MESSAGES)
            start = part.next
            wanted = self._wanted
            yield part.messages if wanted.is_all else [*filter(wanted.has, part.messages)]
            if damage:
                self.looked(start - first)

    def _publisher_of(self, client_id: str) -> int | None:
        row = self._connection.execute(
            "SELECT id FROM publishers WHERE client_id = ?", (client_id,)
        ).fetchone()
        return None if row is None else int(row[0])

    def _skipped(self, start: int, end: int) -> int:
        """From where on, at most so far, there may be messages of the publisher that is wanted."""
        last = min(end, start + SKIPPED_AT_ONCE - 1)
        row = self._connection.execute(
            "SELECT offset FROM messages WHERE offset BETWEEN ? AND ? AND publisher_id = ?"
            " ORDER BY offset LIMIT 1",
            (start, last, self._publisher_id),
        ).fetchone()
        return last + 1 if row is None else int(row[0])

    def _nth_last(self, count: int, start: int, end: int) -> int:
        return self._reader.nth_last(self._filters, count, start, end)

    def _from(self, start: spec.Start) -> int:
        match start:
            case spec.Latest():
                return self._newest + 1
            case spec.AtOffset(offset):
                return offset
            case spec.AtTime(time_us):
                return self._reader.offset_at(time_us, self._oldest, self._newest)
            case spec.Last(count):
                return self._nth_last(count, self._oldest, self._newest)
            case spec.Earliest() | spec.Resume():
                return self._oldest

    def _through(self, end: spec.Point | None) -> int:
        match end:
            case spec.AtOffset(offset):
                return offset
            case spec.AtTime(time_us):
                return self._reader.last_before(time_us, self._oldest, self._newest)
            case spec.Latest() | None:
                return self._newest
