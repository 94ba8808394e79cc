"""Unread: which removed messages a subscriber had not acknowledged. Who reads over them is told.

A row of `removed_unread` has the places of one topic in one block, two bytes each, and a checksum
of all that. Of a damaged row nobody knows what it was about: then whatever was removed from its
block counts as unread, on every topic. Who missed something hears of it, and others hear too much.
"""

from __future__ import annotations

import logging
import sqlite3
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby

from broker.message import Offset
from broker.store.removing import as_ranges
from broker.store.sqlite.retention import removed
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.searching.search import TopicFilters

ROWS_AT_ONCE = 2048
"""Those of two blocks at least."""
WIDTH = 2

logger = logging.getLogger(__name__)


def checksum(block: int, topic_id: int, places: bytes) -> int:
    return zlib.crc32(places, zlib.crc32(b"%d %d" % (block, topic_id)))


def is_sound(block: object, topic_id: object, places: object, crc: object) -> bool:
    """Of a row without a checksum: whether it makes sense. Damage may make a text of a number."""
    if not (isinstance(block, int) and isinstance(topic_id, int) and isinstance(places, bytes)):
        return False
    if crc is None:
        return len(places) % WIDTH == 0 and all(p <= removed.PLACE for p in _numbers(places))
    return crc == checksum(block, topic_id, places)


def _numbers(places: bytes) -> Iterator[int]:
    for at in range(0, len(places), WIDTH):
        yield int.from_bytes(places[at : at + WIDTH], "big")


def note(connection: sqlite3.Connection, block: int, told: Sequence[tuple[int, int]]) -> None:
    """These were removed unread, all of one block: offsets and their topics. In the open
    transaction."""
    for topic_id, group in groupby(sorted(told, key=lambda row: row[1]), key=lambda row: row[1]):
        new = [offset & removed.PLACE for offset, _ in group]
        row = connection.execute(
            "SELECT offsets, crc FROM removed_unread WHERE block = ? AND topic_id = ?",
            (block, topic_id),
        ).fetchone()
        before, crc = row if row is not None else (b"", None)
        sound = is_sound(block, topic_id, before, crc)
        if not isinstance(before, bytes):  # Nothing is added to that, and it stays unsound.
            continue
        places = before + b"".join([place.to_bytes(WIDTH, "big") for place in new])
        if sound:
            crc = checksum(block, topic_id, places)
        connection.execute(
            "INSERT OR REPLACE INTO removed_unread VALUES (?, ?, ?, ?)",
            (block, topic_id, places, crc),
        )


def between(
    connection: sqlite3.Connection, start: int, stop: int, filters: TopicFilters, told: set[int]
) -> tuple[list[range], Offset]:
    """The offsets from `start` to `stop` - 1 that were removed unread, and whose topics match; and
    how far that looked. `told`: the blocks whose damage was told before."""
    rows = connection.execute(
        "SELECT block, topic_id, offsets, crc, name"
        " FROM removed_unread LEFT JOIN topics ON id = topic_id"
        " WHERE block BETWEEN ? AND ? ORDER BY block LIMIT ?",
        (start >> BLOCK_SHIFT, stop - 1 >> BLOCK_SHIFT, ROWS_AT_ONCE),
    ).fetchall()
    if len(rows) == ROWS_AT_ONCE:  # Of the last block there may be more.
        stop = rows[-1][0] << BLOCK_SHIFT
    found: set[int] = set()
    for block, topic_id, places, crc, name in rows:
        first = block << BLOCK_SHIFT
        if not is_sound(block, topic_id, places, crc) or not isinstance(name, str):
            if block not in told:
                told.add(block)
                logger.error(
                    "what was removed unread from the offsets %d to %d is damaged: subscribers are"
                    " told of everything that was removed there",
                    *(first, first + removed.PLACE),
                )
            found.update(_all_removed(connection, block))
        elif filters.match(name):
            found.update([first + place for place in _numbers(places)])
    return as_ranges(sorted([o for o in found if start <= o < stop])), Offset(stop)


def _all_removed(connection: sqlite3.Connection, block: int) -> Iterable[int]:
    bits = removed.of_blocks(connection, block, block).get(block)
    if bits is None:  # The log start is beyond: all of it was.
        return range(block << BLOCK_SHIFT, block + 1 << BLOCK_SHIFT)
    return [offset for part in removed.ranges(block, bits) for offset in part]


def problems(connection: sqlite3.Connection) -> Iterator[str]:
    """What is damaged, as it is found: one look, of few rows."""
    for block, topic_id, places, crc, name in connection.execute(
        "SELECT block, topic_id, offsets, crc, name"
        " FROM removed_unread LEFT JOIN topics ON id = topic_id"
    ):
        bits = removed.of_blocks(connection, block, block).get(block)
        if (
            name is None
            or not is_sound(block, topic_id, places, crc)
            or (bits is not None and any(not bits >> place & 1 for place in _numbers(places)))
        ):
            yield f"what was removed unread from block {block} does not add up (topic {topic_id})"


def keep(
    new: sqlite3.Connection, row: Collection[object], topic_id: int | None, start: int
) -> bool:
    """Take a row of another log over into the new one, where its topic is this, and begins there.
    Whether it was sound."""
    match [*row, None][:4]:
        case [int(block), int(old_id), bytes(places), int() | None as crc]:
            pass
        case _:
            return False
    if topic_id is None or not is_sound(block, old_id, places, crc):
        return False
    first = block << BLOCK_SHIFT
    bits = removed.of_blocks(new, block, block).get(block, 0)
    offsets = [first + place for place in _numbers(places)]
    told = [(o, topic_id) for o in offsets if o < start or bits >> (o & removed.PLACE) & 1]
    if told:
        note(new, block, told)
    return True
