"""What retention removed at or above the log start: a bit for each offset of a block.

These offsets have no message, and nobody misses them: they are no damage. Below the log start
nobody asks, and the rows go.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping

from broker.store.sqlite.rows import BLOCK_SHIFT

BLOCK = 1 << BLOCK_SHIFT
PLACE = BLOCK - 1
"""Of an offset: its place in its block."""

NEWEST = "(SELECT ifnull((SELECT newest FROM removed ORDER BY block DESC LIMIT 1), 0))"
"""The newest offset that was removed; 0: none. The high watermark is no lower."""

Bits = Mapping[int, int]
"""By block, an integer with a bit for each removed offset."""


def packed(bits: int) -> bytes:
    return bits.to_bytes(BLOCK // 8, "little")


def between(first: int, last: int) -> int:
    """The bits for the places first..last."""
    return (1 << last + 1) - (1 << first) if first <= last else 0


def within(bits: int, block: int, first: int, last: int) -> int:
    """Of the bits of a block those for the offsets first..last."""
    start = block << BLOCK_SHIFT
    return bits & between(max(first - start, 0), min(last - start, PLACE))


def of_blocks(connection: sqlite3.Connection, first: int, last: int) -> Bits:
    """What was removed from the blocks first..last. A row that makes no sense counts as none."""
    rows = connection.execute(
        "SELECT block, offsets FROM removed WHERE block BETWEEN ? AND ?", (first, last)
    )
    return {block: int.from_bytes(offsets[: BLOCK // 8], "little") for block, offsets in rows}


def count(connection: sqlite3.Connection, first: int, last: int) -> int:
    """How many of the offsets first..last were removed."""
    if first > last:
        return 0
    low, high = first >> BLOCK_SHIFT, last >> BLOCK_SHIFT
    ends = {low, high}
    total = 0
    for block in ends:
        bits = of_blocks(connection, block, block).get(block, 0)
        total += within(bits, block, first, last).bit_count()
    (between_ends,) = connection.execute(
        "SELECT ifnull(sum(messages), 0) FROM removed WHERE block > ? AND block < ?", (low, high)
    ).fetchone()
    return total + int(between_ends)


def without(connection: sqlite3.Connection, part: range) -> Iterator[range]:
    """The parts of these offsets that were not removed."""
    if not part:
        return
    begin = part.start
    first, last = part.start >> BLOCK_SHIFT, part.stop - 1 >> BLOCK_SHIFT
    for block, bits in sorted(of_blocks(connection, first, last).items()):
        for hole in ranges(block, bits):
            if hole.stop > begin and hole.start < part.stop:
                if begin < hole.start:
                    yield range(begin, hole.start)
                begin = hole.stop
    if begin < part.stop:
        yield range(begin, part.stop)


def ranges(block: int, bits: int) -> Iterator[range]:
    """The offsets that the bits stand for, as ranges."""
    place = 0
    while bits:
        skipped = (bits & -bits).bit_length() - 1
        place += skipped
        bits >>= skipped
        length = ((bits + 1) & ~bits).bit_length() - 1
        start = (block << BLOCK_SHIFT) + place
        yield range(start, start + length)
        place += length
        bits >>= length


def add(connection: sqlite3.Connection, block: int, offsets: Iterable[int]) -> None:
    """These were removed, all of one block. In the open transaction."""
    bits = of_blocks(connection, block, block).get(block, 0)
    for offset in offsets:
        bits |= 1 << (offset & PLACE)
    write(connection, block, bits)


def write(connection: sqlite3.Connection, block: int, bits: int) -> None:
    """This was removed of the block, in all. In the open transaction."""
    if bits:
        newest = (block << BLOCK_SHIFT) + bits.bit_length() - 1
        connection.execute(
            "INSERT OR REPLACE INTO removed VALUES (?, ?, ?, ?)",
            (block, bits.bit_count(), newest, packed(bits)),
        )
