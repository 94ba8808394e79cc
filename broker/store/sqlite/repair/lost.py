"""Lost: the offsets that salvage found no message for, and nobody removed.

Each offset without a message becomes one of a gap, so that nobody looks for it again.
"""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from broker.message import Offset
from broker.store.sqlite import gaps
from broker.store.sqlite.accounts import bounds
from broker.store.sqlite.repair.pages import Row
from broker.store.sqlite.retention import removed
from broker.store.sqlite.rows import BLOCK_SHIFT

_HOLES = """
SELECT last + 1, offset - 1, since_us, at_us FROM (
    SELECT offset, published_at_us AS at_us,
        lag(offset, 1, ?1 - 1) OVER by_offset AS last,
        lag(published_at_us) OVER by_offset AS since_us
    FROM messages WHERE offset >= ?1 WINDOW by_offset AS (ORDER BY offset)
) WHERE offset > last + 1
"""


@dataclass(frozen=True, slots=True)
class Lost:
    """Offsets whose messages are lost, and when the messages around them were published: None where
    there is none."""

    offsets: range
    since_us: int | None
    until_us: int | None


def leave_gaps(
    new: sqlite3.Connection, start: int, noted: int, rows: Callable[[str], Iterator[Row]]
) -> list[Lost]:
    """Every offset without a message becomes one of a gap. Those are lost that were in no gap, and
    that retention did not remove. `rows` are those of a table of the old log."""
    (newest, newest_us) = new.execute(
        "SELECT max(offset), published_at_us FROM messages"
    ).fetchone()
    newest = max(newest or 0, start - 1)
    before = []
    for row in rows("gaps"):
        match row.values:
            case [None, int(last)] if 0 < row.rowid <= last:
                before.append(range(row.rowid, last + 1))
    gone = _keep_removed(new, start, rows)
    used = max([newest, noted, *(part.stop - 1 for part in (*before, *gone[-1:]))])
    for row in rows("sqlite_sequence"):
        match row.values:
            case ["messages", int(given)]:
                used = max(used, given)
    # Without a clean stop these are some that were only reserved, if nothing says how many.
    given_out = max(newest, noted) if noted else used
    new.execute("DELETE FROM gaps")
    holes = [*new.execute(_HOLES, (start,))]
    if used > newest:
        holes.append((newest + 1, used, newest_us, None))
    before.sort(key=lambda gap: gap.start)
    lost: list[Lost] = []
    for first, last, since_us, until_us in holes:
        for hole in _without(range(first, last + 1), gone):
            new.execute("INSERT INTO gaps VALUES (?, ?)", (hole.start, hole.stop - 1))
            for part in _without(range(hole.start, min(hole.stop, given_out + 1)), before):
                lost.append(Lost(part, since_us, until_us))
    new.execute("DELETE FROM sqlite_sequence WHERE name = 'messages'")
    new.execute("INSERT INTO sqlite_sequence VALUES ('messages', ?)", (used,))
    gaps.leave(new, Offset(used))
    return lost


def _keep_removed(
    new: sqlite3.Connection, start: int, rows: Callable[[str], Iterator[Row]]
) -> list[range]:
    """What retention removed, but for messages that were found all the same: as ranges."""
    gone: list[range] = []
    for row in sorted(rows("removed"), key=lambda row: row.rowid):
        match row.values:
            case [None, _, _, bytes(offsets)] if row.rowid >= start >> BLOCK_SHIFT:
                bits = int.from_bytes(offsets[: removed.BLOCK // 8], "little")
                for (found,) in new.execute(
                    "SELECT offset FROM messages WHERE offset BETWEEN ? AND ?", bounds(row.rowid)
                ):
                    bits &= ~(1 << (found & removed.PLACE))
                removed.write(new, row.rowid, bits)
                gone += removed.ranges(row.rowid, bits)
    return gone


def _without(hole: range, parts: Sequence[range]) -> Iterator[range]:
    """What is left of the hole. The parts are in order."""
    begin = hole.start
    at = bisect_right(parts, hole.start, key=lambda part: part.stop)
    while at < len(parts) and parts[at].start < hole.stop:
        if begin < parts[at].start:
            yield range(begin, parts[at].start)
        begin = max(begin, parts[at].stop)
        at += 1
    if begin < hole.stop:
        yield range(begin, hole.stop)
