"""The pages of an SQLite database, read without SQLite: whatever of them makes sense.

SQLite gives up at the first page of a table that is not as it should be. Here every page stands for
itself, and every row on it that can be read is taken. What a row is worth, its checksum says, or
the constraints of the table that it is put into.

The format is that of https://www.sqlite.org/fileformat2.html.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

Value = int | float | str | bytes | None

TABLE_LEAF, TABLE_INTERIOR = 0x0D, 0x05
INDEX_LEAF, INDEX_INTERIOR = 0x0A, 0x02
HEADER_SIZE = 100
"""Of the database, where its first page begins."""
SIZES = frozenset(1 << power for power in range(9, 17))
"""That a page may have."""
RESERVED_MAX = 64
"""Bytes at the end of each page that some builds of SQLite leave alone."""
RECORD_BYTES_MAX = 1 << 29
"""Of a row: more than a packet of MQTT can hold."""

_INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
"""By serial type, of the integers that have bytes of their own."""


class Unreadable(Exception):
    """What is there makes no sense."""


@dataclass(frozen=True, slots=True)
class Row:
    """`rowid` is 0 in an index, and so in a table WITHOUT ROWID."""

    rowid: int
    values: list[Value]


@dataclass(frozen=True, slots=True)
class Layout:
    """What the header of the database says of its pages."""

    size: int
    reserved: int = 0


class Pages:
    """Pages by their number, in a file at the positions that `position` says; others `below`."""

    def __init__(
        self,
        descriptor: int,
        layout: Layout,
        position: Callable[[int], int | None],
        below: Pages | None = None,
    ) -> None:
        self.unreadable = 0
        """Pages of trees that could not be read, or made no sense."""
        self._descriptor = descriptor
        self._size = layout.size
        self._usable = layout.size - layout.reserved
        self._position = position
        self._below = below

    def page(self, number: int) -> bytes | None:
        """None: there is no such page, or the disk cannot read it."""
        position = self._position(number)
        if position is not None:
            return self.at(position)
        return self._below.page(number) if self._below is not None else None

    def at(self, position: int) -> bytes | None:
        """What lies at this position of the file."""
        try:
            content = os.pread(self._descriptor, self._size, position)
        except OSError:
            return None
        return content if len(content) == self._size else None

    def rows(self, content: bytes) -> Iterator[Row]:
        """The rows on a leaf that can be read, also some that were removed from it.

        How many there are may be damaged, too: so pointers are followed up to where rows begin.
        """
        for pointer in self._pointers(content, 0, lenient=True):
            try:
                yield self._row(content, pointer)
            except (Unreadable, IndexError, struct.error, UnicodeDecodeError):
                continue

    def columns(self, content: bytes) -> int:
        """How many a row on this leaf has; 0: it is no leaf, or none can be read."""
        for row in self.rows(content):
            return len(row.values)
        return 0

    def tree(self, root: int) -> Iterator[Row]:
        """The rows of a table or an index, page by page; those of damaged pages are missing, and
        `unreadable` counts these."""
        waiting, seen = [root], {root}
        while waiting:
            number = waiting.pop()
            content = self.page(number)
            try:
                if content is None:
                    raise Unreadable
                children = [*self._children(content, HEADER_SIZE if number == 1 else 0)]
                rows = [*self._rows_of_tree(content, HEADER_SIZE if number == 1 else 0)]
            except (Unreadable, IndexError, struct.error, UnicodeDecodeError):
                self.unreadable += 1
                continue
            yield from rows
            for child in reversed(children):
                if child not in seen:
                    seen.add(child)
                    waiting.append(child)

    def _pointers(self, content: bytes, head: int, *, lenient: bool) -> Iterator[int]:
        """Where the rows of a page begin."""
        kind = content[head]
        (count,) = struct.unpack_from(">H", content, head + 3)
        at = head + (12 if kind in (TABLE_INTERIOR, INDEX_INTERIOR) else 8)
        rows_begin = self._usable
        number = 0
        while at + 2 <= self._usable and (number < count or (lenient and at < rows_begin)):
            (pointer,) = struct.unpack_from(">H", content, at)
            if number >= count and pointer == 0:
                return
            at += 2
            number += 1
            if at <= pointer < self._usable:
                rows_begin = min(rows_begin, pointer)
                yield pointer
            elif not lenient:
                raise Unreadable

    def _children(self, content: bytes, head: int) -> Iterator[int]:
        kind = content[head]
        if kind in (TABLE_INTERIOR, INDEX_INTERIOR):
            for pointer in self._pointers(content, head, lenient=False):
                yield struct.unpack_from(">I", content, pointer)[0]
            yield struct.unpack_from(">I", content, head + 8)[0]
        elif kind not in (TABLE_LEAF, INDEX_LEAF):
            raise Unreadable

    def _rows_of_tree(self, content: bytes, head: int) -> Iterator[Row]:
        kind = content[head]
        if kind != TABLE_INTERIOR:
            for pointer in self._pointers(content, head, lenient=False):
                yield self._row(content, pointer, kind)

    def _row(self, content: bytes, at: int, kind: int = 0) -> Row:
        """Raises Unreadable, IndexError, struct.error, UnicodeDecodeError."""
        kind = kind or content[0]
        if kind not in (TABLE_LEAF, INDEX_LEAF, INDEX_INTERIOR):
            raise Unreadable
        if kind == INDEX_INTERIOR:
            at += 4
        length, at = _varint(content, at)
        rowid = 0
        if kind == TABLE_LEAF:
            rowid, at = _varint(content, at)
        return Row(rowid, _values(self._record(content, at, length, kind == TABLE_LEAF)))

    def _record(self, content: bytes, at: int, length: int, in_table: bool) -> bytes:
        usable = self._usable
        local_max = usable - 35 if in_table else (usable - 12) * 64 // 255 - 23
        if length <= local_max:
            if at + length > usable:
                raise Unreadable
            return content[at : at + length]
        if length > RECORD_BYTES_MAX:
            raise Unreadable
        local_min = (usable - 12) * 32 // 255 - 23
        local = local_min + (length - local_min) % (usable - 4)
        if local > local_max:
            local = local_min
        parts = [content[at : at + local]]
        (number,) = struct.unpack_from(">I", content, at + local)
        missing = length - local
        while missing > 0:
            page = self.page(number)
            if page is None:
                raise Unreadable
            parts.append(page[4 : 4 + min(missing, usable - 4)])
            missing -= usable - 4
            (number,) = struct.unpack_from(">I", page)
        return b"".join(parts)


def _varint(content: bytes, at: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = content[at]
    if value < 0x80:
        return value, at + 1
    value &= 0x7F
    for i in range(1, 8):
        byte = content[at + i]
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            return value, at + i + 1
    value = value << 8 | content[at + 8]
    return value - (value >> 63 << 64), at + 9


def _values(record: bytes) -> list[Value]:
    """Raises Unreadable, IndexError, struct.error, UnicodeDecodeError."""
    header_end, _ = _varint(record, 0)
    parts, end = _parts(record[:header_end])
    if end != len(record):
        raise Unreadable
    values: list[Value] = []
    for kind, begin, end in parts:
        if kind is int:
            values.append(int.from_bytes(record[begin:end], "big", signed=True))
        elif kind is bytes:
            values.append(record[begin:end])
        elif kind is str:
            values.append(record[begin:end].decode())
        elif kind is float:
            values += struct.unpack_from(">d", record, begin)
        else:
            values.append(begin if kind is bool else None)
    return values


@lru_cache(maxsize=4096)
def _parts(header: bytes) -> tuple[list[tuple[type | None, int, int]], int]:
    """What the header of a record says: the types, and from where to where each value is; and where
    the last one ends. bool: the value is 0 or 1, and instead of a place. Raises as `_values`."""
    begin, at = _varint(header, 0)
    parts: list[tuple[type | None, int, int]] = []
    while at < len(header):
        kind, at = _varint(header, at)
        if kind >= 12:
            end = begin + (kind - 12 >> 1)
            parts.append((str if kind & 1 else bytes, begin, end))
        elif 1 <= kind <= 6:
            end = begin + _INTEGER_BYTES[kind]
            parts.append((int, begin, end))
        elif kind == 7:
            end = begin + 8
            parts.append((float, begin, end))
        elif kind in (0, 8, 9):
            end = begin
            parts.append((None, 0, 0) if kind == 0 else (bool, kind - 8, 0))
        else:
            raise Unreadable
        begin = end
    if at != len(header):
        raise Unreadable
    return parts, begin
