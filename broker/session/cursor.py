"""Cursor: a session's place in the log, and what it has in flight, as the log keeps them.

A cursor says: everything at or below `offset` is acknowledged, and so is everything in
(offset, sent_through] that is not listed as in flight. Three forms follow from it:

- *compact* (QoS 1, acknowledged in order): `sent_through == offset`, nothing listed. What was in
  flight is simply sent again, with new Packet Identifiers, should the broker crash.
- *listed* (QoS 2, gaps, a client that leaves): every unfinished exchange is listed with its Packet
  Identifier, so that it can be continued under the same one. [MQTT-4.4.0-1]
- *paged* (listed, but more than LISTED_MAX): the list is in pages by Packet Identifier. A commit
  writes the pages that changed, and in the cursor their number and the sum of their checksums.

A cursor of any form may be preceded by what was *served*: ranges of offsets above `sent_through`
that the session was handed already (`served.py`).

A session has pages until little is in flight, or until everything is acknowledged that was in
flight when the compact form last would not do: an acknowledgement out of order now and then must
not have all pages written each time. For the same reason a group has them even in order.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from functools import partial
from operator import attrgetter, itemgetter
from typing import Any
from zlib import crc32

from broker.documents import CursorDocument, Delete, InFlightDocument, Operation, Put
from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.session.exchange import ASIDE, RETAINED, InFlight, Stage
from broker.session.in_flight import InFlightWindow
from broker.session.served import NOTHING, Served

LISTED_MAX = 128
"""Exchanges that the cursor itself lists."""

SERVED_MAX = 255
"""Ranges that a cursor names as served. There are never more (`delivery/at_once.py`)."""

_COMPACT, _LISTED, _PAGED, _SERVED = 0x00, 0x81, 0x82, 0x84
"""The first byte of `inflight`, and its form; a compact one is only written where something was
served. An older program wrote a list without this byte and
without a checksum; it began with an offset, and so with less than 0x80."""
_HEAD = struct.Struct(">BI")
"""The form, and a checksum over the cursor and what follows."""
_PLACE = struct.Struct(">QQH")
"""What the checksum covers of the cursor: offset, sent_through, next_packet_id."""
_SUM = struct.Struct(">HI")
"""Of the pages: how many, and the sum of their checksums."""
_RANGES = struct.Struct(">BB")
"""Served: how many ranges follow, and the form of what follows these."""
_RANGE = struct.Struct(">QQ")
"""The first offset, and the one behind the last."""
_ENTRY = struct.Struct(">QHBB")
"""Listed: offset, Packet Identifier, stage, flags."""
_ROW = struct.Struct(">QHBBQ")
"""On a page."""


class Cursor:
    """Of one session: what the next commit must write of it."""

    def __init__(self, client_id: str, window: InFlightWindow) -> None:
        self._client_id = client_id
        self._window = window
        self._written: CursorDocument | None = None
        self._paged = False
        self._paged_until = 0
        """How many must be acknowledged before the compact form will do again."""
        self._checksums: dict[int, int | None] = {}
        """Of the pages that the log has; None: it may have this page, or another state of it."""
        self._writing: set[int] = set()
        """The pages in the commit that began last."""
        self._unused_pages = False
        """Whether the log may have pages though the cursor does not speak of them."""
        self._removing = False
        """Whether the commit that began last removes these."""

    def take_changes(
        self, taken_through: Offset, served: Served = NOTHING, *, attached: bool
    ) -> list[Operation]:
        """What the commit that begins must write: everything up to `taken_through` was taken, what
        was `served` above it, and a client is there, or not."""
        window = self._window
        compact = attached and window.in_order()
        if self._paged or not compact or window.keeps_qos0:
            self._choose_form(compact=compact)
        operations: list[Operation] = []
        self._removing, self._unused_pages = self._unused_pages, False
        if self._removing:
            operations.append(Delete(InFlightDocument, (self._client_id,)))
        if self._paged:
            operations += self._page_changes()
        offset = window.acknowledged_through(taken_through)
        sent_through = offset if compact and not self._paged else taken_through
        cursor = CursorDocument(self._client_id, offset, sent_through, window.next_packet_id, b"")
        form, content = _COMPACT, b""
        if self._paged:
            form, content = _PAGED, _SUM.pack(len(self._checksums), self._sum())
        elif not compact:
            form, content = _LISTED, _pack(window.unfinished())
        if served is NOTHING:
            if form:
                cursor.inflight = _sealed(cursor, form, content)
        else:
            complete = partial(_complete, cursor, (offset, sent_through), form, content, served)
            if served.commit_begins():
                self._written = cursor
                return [*operations, Put(cursor, fill_in=complete)]
            complete()
        if cursor != self._written:
            self._written = cursor
            operations.append(Put(cursor))
        return operations

    def not_committed(self) -> None:
        """What `take_changes` last returned was not stored: the next must write it again."""
        self._written = None
        self._unused_pages |= self._removing
        if self._paged:
            self._checksums |= dict.fromkeys(self._writing)
            self._window.changed.add(self._writing)

    def restore(self, cursor: CursorDocument, pages: Sequence[InFlightDocument]) -> None:
        """Take up what the log kept. Raises StoreCorrupt."""
        entries, numbers = _unpack(cursor, pages)
        self._written = cursor
        self._window.restore(cursor.next_packet_id, entries, numbers)
        self._paged = _form(cursor) == _PAGED
        self._unused_pages = bool(pages) and not self._paged
        if self._paged:
            self._checksums = {page.page: _checksum(page) for page in pages}
            self._window.changed.watch()

    def _choose_form(self, *, compact: bool) -> None:
        window = self._window
        compact = compact and not window.keeps_qos0
        if not self._paged:
            if len(window) > LISTED_MAX and not compact:
                self._paged = True
                self._paged_until = window.repeatable.sent
                window.changed.watch()
                window.changed.add(window.pages())
            return
        if not compact:
            self._paged_until = window.repeatable.sent
        done = compact and window.repeatable.acknowledged >= self._paged_until
        if done or len(window) <= LISTED_MAX // 2:
            self._paged = False
            self._unused_pages = True
            self._checksums.clear()
            window.changed.forget()

    def _page_changes(self) -> list[Operation]:
        """The pages to write; and those to remove, since nothing on them is in flight."""
        puts: list[Operation] = []
        deletes: list[Operation] = []
        self._writing = set()
        for number in self._window.changed.take():
            exchanges = b"".join([_ROW.pack(*row) for row in self._window.page(number)])
            page = InFlightDocument(self._client_id, number, exchanges)
            if exchanges:
                checksum = _checksum(page)
                if self._checksums.get(number) == checksum:
                    continue
                self._checksums[number] = checksum
                puts.append(Put(page))
            elif number in self._checksums:
                del self._checksums[number]
                deletes.append(Delete(InFlightDocument, (self._client_id, number)))
            self._writing.add(number)
        return puts + deletes

    def _sum(self) -> int:
        return sum([checksum or 0 for checksum in self._checksums.values()]) & 0xFFFF_FFFF


def listed(cursor: CursorDocument, pages: Sequence[InFlightDocument] = ()) -> list[InFlight]:
    """What a cursor lists as in flight, in the order of `InFlightWindow.unfinished`.

    `pages` are all of its session. Raises StoreCorrupt.
    """
    return _unpack(cursor, pages)[0]


def served_beyond(cursor: CursorDocument) -> Served:
    """What the session was handed of what lies above the cursor, if that is not damaged."""
    packed = cursor.inflight
    if packed[:1] != bytes([_SERVED]) or packed != _sealed(cursor, _SERVED, packed[_HEAD.size :]):
        return NOTHING
    count, _ = _RANGES.unpack_from(packed, _HEAD.size)
    begin = _HEAD.size + _RANGES.size
    ranges = packed[begin : begin + count * _RANGE.size]
    return Served(ranges=[range(*found) for found in _RANGE.iter_unpack(ranges)])


def _unpack(
    cursor: CursorDocument, pages: Sequence[InFlightDocument]
) -> tuple[list[InFlight], list[int]]:
    """And the numbers of the released ones, if they have any."""
    packed = cursor.inflight
    form = packed[0] if packed else 0
    if form < 0x80:
        return _exchanges(cursor, _rows(cursor, _ENTRY, packed)), []
    content = packed[_HEAD.size :]
    if len(packed) < _HEAD.size or packed != _sealed(cursor, form, content):
        raise StoreCorrupt(f"the cursor of {cursor.client_id!r} is damaged")
    if form == _SERVED:
        count, form = _RANGES.unpack_from(content)
        content = content[_RANGES.size + count * _RANGE.size :]
        if form == _COMPACT:
            return [], []
    if form == _LISTED:
        return _exchanges(cursor, _rows(cursor, _ENTRY, content)), []
    found = sum([_checksum(page) for page in pages]) & 0xFFFF_FFFF
    if form != _PAGED or _SUM.pack(len(pages), found) != content:
        raise StoreCorrupt(f"what {cursor.client_id!r} has in flight is damaged")
    rows = [row for page in pages for row in _rows(cursor, _ROW, page.exchanges)]
    released = sorted([row for row in rows if row[2] == Stage.RELEASED], key=itemgetter(4))
    sent = sorted([row for row in rows if row[2] != Stage.RELEASED])
    return _exchanges(cursor, released + sent), [row[4] for row in released]


def _rows(cursor: CursorDocument, form: struct.Struct, packed: bytes) -> list[Any]:
    if len(packed) % form.size:
        raise StoreCorrupt(f"what {cursor.client_id!r} has in flight is damaged")
    return [*form.iter_unpack(packed)]


def _exchanges(cursor: CursorDocument, rows: Iterable[Any]) -> list[InFlight]:
    stages = {int(stage): stage for stage in Stage}
    kinds = {flags: (flags & RETAINED != 0, flags & ASIDE != 0) for flags in range(4)}
    try:
        return [
            InFlight(row[0], row[1], stages[row[2]], *kinds[row[3]])
            if row[3]
            else InFlight(row[0], row[1], stages[row[2]])
            for row in rows
        ]
    except KeyError as error:
        raise StoreCorrupt(f"what {cursor.client_id!r} has in flight is damaged") from error


def _form(cursor: CursorDocument) -> int:
    """Of a sound cursor, whatever was served."""
    packed = cursor.inflight
    if packed[:1] == bytes([_SERVED]):
        return _RANGES.unpack_from(packed, _HEAD.size)[1]  # type: ignore[no-any-return]
    return packed[0] if packed else _COMPACT


def _pack(entries: Iterable[InFlight]) -> bytes:
    return b"".join(
        [
            _ENTRY.pack(
                e.offset,
                e.packet_id,
                e.stage,
                (RETAINED if e.retained else 0) | (ASIDE if e.aside else 0),
            )
            for e in entries
        ]
    )


def _complete(
    cursor: CursorDocument, place: tuple[Offset, Offset], form: int, content: bytes, served: Served
) -> None:
    """Name what was served above the cursor, which is at `place`; but where it lies right above,
    move over it. Then seal the form. May be done again, for other offsets."""
    offset, sent_through = place
    ranges = served.filled_in()
    at = bisect_right(ranges, sent_through, key=attrgetter("stop"))
    while at < len(ranges) and ranges[at].start <= sent_through + 1:
        through = Offset(ranges[at].stop - 1)
        offset = through if offset == sent_through else offset
        sent_through = through
        at += 1
    cursor.offset, cursor.sent_through = offset, sent_through
    if at < len(ranges):
        newest = ranges[max(at, len(ranges) - SERVED_MAX) :]
        packed = [_RANGE.pack(part.start, part.stop) for part in newest]
        head = _RANGES.pack(len(newest), form)
        form, content = _SERVED, b"".join([head, *packed, content])
    cursor.inflight = _sealed(cursor, form, content) if form else b""


def _sealed(cursor: CursorDocument, form: int, content: bytes) -> bytes:
    place = _PLACE.pack(cursor.offset, cursor.sent_through, cursor.next_packet_id)
    checksum = crc32(content, crc32(place, crc32(cursor.client_id.encode())))
    return _HEAD.pack(form, checksum) + content


def _checksum(page: InFlightDocument) -> int:
    return crc32(page.exchanges, crc32(f"{page.client_id}\0{page.page}".encode()))
