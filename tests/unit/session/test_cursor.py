from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from time import process_time

import pytest

from broker.documents import CursorDocument, Delete, InFlightDocument, Operation, Put, fill_in
from broker.errors import StoreCorrupt
from broker.handed_on import HandedOn
from broker.message import Grant, Offset, Outgoing
from broker.session.cursor import LISTED_MAX, SERVED_MAX, Cursor, listed, served_beyond
from broker.session.exchange import InFlight
from broker.session.in_flight import InFlightWindow
from broker.session.served import Served
from tests.support.messages import message
from tests.support.turns import short

ALL = 1 << 30
MANY = 2000
TURN_MS = 500.0
"""Ten times what a turn of the loop may take, as the machine that tests may be busy. Without pages
the first of these took 0.8 s on a quiet one."""


class Kept:
    """A window with its cursor, and what the log has of both."""

    def __init__(self, inflight_max: int = 65_535) -> None:
        self.window = InFlightWindow(inflight_max)
        self.window.durable = True
        self.cursor = Cursor("sub1", self.window)
        self.stored: CursorDocument | None = None
        self.pages: dict[int, InFlightDocument] = {}
        self.through = Offset(0)

    def take(self, count: int, *, qos: int = 2, aside: bool = False) -> list[int]:
        """Put so many messages into flight; their Packet Identifiers."""
        first = self.through + 1
        if not aside:
            self.through = Offset(self.through + count)
        waiting: deque[Outgoing] = deque(
            (message("x", offset=n, qos=qos), Grant(2)) for n in range(first, first + count)
        )
        return self.window.take(waiting, 0, ALL, aside=aside).packet_ids

    def finish(self, packet_ids: Sequence[int]) -> None:
        self.window.pubrec(packet_ids, refused=False)
        self.window.pubcomp(packet_ids)

    def changes(self, *, attached: bool = True) -> list[Operation]:
        self.window.repeatable.commit_begins()
        return self.cursor.take_changes(self.through, attached=attached)

    def commit(self, *, attached: bool = True) -> int:
        """Bytes that were written."""
        size = 0
        for operation in self.changes(attached=attached):
            match operation:
                case Put(CursorDocument() as cursor):
                    self.stored = replace(cursor)
                    size += len(cursor.inflight)
                case Put(InFlightDocument() as page):
                    self.pages[page.page] = replace(page)
                    size += len(page.exchanges)
                case Delete(_, (_, int(number))):
                    self.pages.pop(number, None)
                case Delete():
                    self.pages.clear()
                case _:
                    raise AssertionError(operation)
        self.window.repeatable.committed()
        return size

    def fail(self, *, attached: bool = True) -> None:
        self.changes(attached=attached)
        self.cursor.not_committed()

    def listed(self) -> list[InFlight]:
        assert self.stored is not None
        return listed(self.stored, [self.pages[number] for number in sorted(self.pages)])

    def restored(self) -> Kept:
        """After a restart of the broker."""
        again = Kept()
        assert self.stored is not None
        again.cursor.restore(self.stored, list(self.pages.values()))
        again.stored, again.pages = self.stored, dict(self.pages)
        again.through = self.stored.sent_through
        return again


def test_little_in_flight_is_listed_in_the_cursor() -> None:
    kept = Kept()
    kept.take(LISTED_MAX)
    kept.commit()
    assert (kept.pages, kept.listed()) == ({}, kept.window.unfinished())


@pytest.mark.parametrize("count", [LISTED_MAX + 1, MANY, 65_535])
def test_a_commit_writes_in_proportion_to_what_changed(count: int) -> None:
    kept = Kept()
    packet_ids = kept.take(count)
    kept.commit()
    assert kept.listed() == kept.window.unfinished()
    for changed in (1, 3, 40):
        answered, packet_ids = packet_ids[: 2 * changed : 2], packet_ids[2 * changed :]
        kept.window.pubrec(answered, refused=False)
        assert kept.commit() <= 1000 * changed
        kept.window.pubcomp(answered)
        assert kept.commit() <= 1000 * changed
        kept.take(changed)
        assert kept.commit() <= 1000 * changed + 1000
        assert kept.listed() == kept.window.unfinished()
    assert kept.commit() == 0


def test_acknowledgements_out_of_order_now_and_then_do_not_have_everything_written_each_time() -> (
    None
):
    kept = Kept()
    waiting = kept.take(MANY, qos=1)
    size = kept.commit()
    for _ in range(100):
        first, second, *waiting = waiting
        kept.window.puback([second])
        size += kept.commit()
        kept.window.puback([first])
        size += kept.commit()
        waiting += kept.take(2, qos=1)
        size += kept.commit()
        assert kept.listed() == kept.window.unfinished()
    assert size <= 40 * MANY + 200 * 3000


def test_who_acknowledges_in_order_again_gets_the_compact_form_again() -> None:
    kept = Kept()
    first, second, *waiting = kept.take(MANY, qos=1)
    kept.window.puback([second])
    kept.commit()
    assert kept.pages
    kept.window.puback([first])
    for _ in range(40):
        kept.commit()
        kept.window.puback(waiting[:100])
        waiting = waiting[100:] + kept.take(100, qos=1)
    kept.commit()
    assert (kept.pages, kept.listed()) == ({}, [])
    assert kept.stored is not None
    assert kept.stored.offset == kept.stored.sent_through == kept.through - len(kept.window)


def test_when_little_is_left_in_flight_the_pages_go() -> None:
    kept = Kept()
    packet_ids = kept.take(MANY)
    kept.commit()
    kept.finish(packet_ids[5:])
    kept.commit()
    assert (kept.pages, len(kept.listed())) == ({}, 5)


def test_a_group_has_pages_also_while_its_leases_end_in_order() -> None:
    """Or one that ends out of order would have all 64,000 written."""
    kept = Kept()
    kept.window.keep_qos0()
    packet_ids = kept.take(MANY, qos=1)
    assert kept.commit() > 0
    kept.window.puback(packet_ids[1000:1001])
    assert kept.commit() < 1000
    assert kept.listed() == kept.window.unfinished()


def test_a_client_that_leaves_with_much_in_flight_goes_on_under_the_same_packet_identifiers() -> (
    None
):
    """[MQTT-4.4.0-1]"""
    kept = Kept()
    kept.take(MANY, qos=1)
    kept.commit()
    assert not kept.pages
    kept.commit(attached=False)
    again = kept.restored()
    assert again.window.unfinished() == kept.window.unfinished()
    again.window.puback([e.packet_id for e in again.window.unfinished()][:MANY])
    again.commit()
    assert (again.pages, again.listed()) == ({}, [])


def test_released_exchanges_keep_the_order_of_their_pubrecs_over_restarts() -> None:
    """[MQTT-4.6.0-4]"""
    kept = Kept()
    packet_ids = kept.take(MANY)
    kept.window.pubrec(packet_ids[900:100:-1], refused=False)
    kept.commit()
    again = kept.restored()
    again.window.pubrec(packet_ids[1900:950:-7], refused=False)
    again.commit()
    assert again.window.unfinished() == again.restored().window.unfinished()
    released = [e.packet_id for e in again.restored().window.unfinished() if e.stage == 3]
    assert released == packet_ids[900:100:-1] + packet_ids[1900:950:-7]


def test_a_restart_writes_nothing_anew() -> None:
    kept = Kept()
    kept.take(MANY)
    kept.commit()
    again = kept.restored()
    assert again.commit() == 0
    again.finish([7])
    assert again.commit() < 2000


def test_what_is_aside_or_leased_is_kept_in_pages_as_in_the_list() -> None:
    kept = Kept()
    kept.take(100)
    kept.take(100, aside=True)
    kept.take(100)
    kept.commit()
    assert kept.pages
    assert kept.listed() == kept.window.unfinished()
    assert sum(entry.aside for entry in kept.restored().window.unfinished()) == 100


def test_what_was_not_stored_is_written_again_and_nothing_else() -> None:
    kept = Kept()
    packet_ids = kept.take(MANY)
    kept.fail()
    kept.fail()
    kept.commit()
    assert kept.listed() == kept.window.unfinished()
    kept.finish(packet_ids[:40])
    kept.take(3)
    kept.fail()
    kept.finish(packet_ids[40:64])
    assert kept.commit() < 3000
    assert kept.listed() == kept.window.unfinished()
    kept.finish(packet_ids[64:-5])
    kept.fail()
    kept.commit()
    assert (kept.pages, kept.listed()) == ({}, kept.window.unfinished())


def test_a_page_that_was_not_removed_is_removed_later_also_if_there_are_pages_again() -> None:
    kept = Kept()
    packet_ids = kept.take(MANY)
    kept.commit()
    kept.finish(packet_ids[5:])
    kept.fail()
    kept.take(MANY)
    kept.commit()
    assert kept.listed() == kept.window.unfinished()


# Damage


def damaged(data: bytes, bit: int) -> bytes:
    return (int.from_bytes(data) ^ 1 << bit).to_bytes(len(data))


@pytest.mark.parametrize("count", [LISTED_MAX, 2 * LISTED_MAX])
def test_one_flipped_bit_anywhere_is_detected(count: int) -> None:
    """P8"""
    kept = Kept()
    kept.take(count)
    kept.commit()
    cursor, pages = kept.stored, list(kept.pages.values())
    assert cursor is not None
    for bit in range(8 * len(cursor.inflight)):
        with pytest.raises(StoreCorrupt):
            listed(replace(cursor, inflight=damaged(cursor.inflight, bit)), pages)
    for changed in (
        replace(cursor, offset=Offset(cursor.offset + 1)),
        replace(cursor, sent_through=Offset(cursor.sent_through ^ 256)),
        replace(cursor, next_packet_id=cursor.next_packet_id + 1),
        replace(cursor, client_id="sub2"),
    ):
        with pytest.raises(StoreCorrupt):
            listed(changed, pages)
    for page in pages[:1]:
        for bit in range(8 * len(page.exchanges)):
            flipped = replace(page, exchanges=damaged(page.exchanges, bit))
            with pytest.raises(StoreCorrupt):
                listed(cursor, [flipped, *pages[1:]])


def test_a_page_that_is_lost_too_many_from_before_or_in_the_place_of_another_is_detected() -> None:
    kept = Kept()
    packet_ids = kept.take(MANY)
    kept.commit()
    before = kept.pages[0]
    kept.finish(packet_ids[:3])
    kept.commit()
    cursor, (first, *others) = kept.stored, kept.pages.values()
    assert cursor is not None
    for pages in (
        others,
        [first, first, *others],
        [before, *others],
        [replace(first, page=99), *others],
        [replace(first, client_id="sub2"), *others],
        [],
    ):
        with pytest.raises(StoreCorrupt):
            listed(cursor, pages)


# Cursors of older programs: 12 bytes an exchange, without a checksum


def old(*entries: tuple[int, int, int, int]) -> CursorDocument:
    packed = b"".join(struct.pack(">QHBB", *entry) for entry in entries)
    return CursorDocument("sub1", Offset(0), Offset(5000), 4001, packed)


def test_a_cursor_of_an_older_program_is_taken_up_and_written_anew_when_it_moves() -> None:
    entries = [(9, 9, 3, 0), (2, 8, 1, 3), *((n, n, 2, 2 * (n % 2)) for n in range(10, 4000))]
    kept = Kept()
    kept.stored = old(*entries)
    again = kept.restored()
    assert [
        (e.offset, e.packet_id, e.stage, e.retained + 2 * e.aside)
        for e in again.window.unfinished()
    ] == entries
    again.finish([9])
    again.commit()
    assert again.pages
    assert again.listed() == again.window.unfinished()


def test_nothing_in_flight_takes_no_bytes() -> None:
    assert listed(old()) == []


@pytest.mark.parametrize(
    "packed", [b"\0" * 11, b"\0" * 13, b"\0" * 10 + b"\x04\0", b"\x80", b"\xff" * 5]
)
def test_what_no_program_can_have_made_is_corrupt(packed: bytes) -> None:
    with pytest.raises(StoreCorrupt):
        listed(CursorDocument("sub1", Offset(0), Offset(9), 1, packed))


# The longest turn


def test_sixty_four_thousand_leases_hold_up_nobody() -> None:
    kept = Kept()
    kept.window.keep_qos0()
    packet_ids = kept.take(64_000, qos=1)
    took_ms = [turn_ms(kept.commit)]
    for first in range(100):
        kept.window.puback(packet_ids[first::1000])
        took_ms.append(turn_ms(kept.commit))
    short(TURN_MS, *took_ms, turn_ms(kept.restored), turn_ms(kept.window.unfinished))


def test_fifty_sessions_with_much_in_flight_hold_up_nobody() -> None:
    all_kept = [Kept() for _ in range(50)]
    for kept in all_kept:
        kept.take(1900)
    took_ms = [sum([turn_ms(kept.commit) for kept in all_kept])]
    for answered in (range(1, 2), range(1, 1901)):
        for kept in all_kept:
            kept.window.pubrec(answered, refused=False)
        took_ms.append(sum([turn_ms(kept.commit) for kept in all_kept]))
    short(TURN_MS, *took_ms)


def turn_ms(turn: Callable[[], object]) -> float:
    """Of this process's own time."""
    began = process_time()
    turn()
    return (process_time() - began) * 1000


# What was served ahead of the log


def served(*offsets: int) -> Served:
    return Served(ranges=[range(offset, offset + 1) for offset in offsets])


def written(kept: Kept, what: Served, *, attached: bool = True) -> CursorDocument:
    [operation] = kept.cursor.take_changes(kept.through, what, attached=attached)
    assert isinstance(operation, Put)
    assert isinstance(operation.document, CursorDocument)
    return operation.document


@pytest.mark.parametrize("attached", [True, False])
def test_the_cursor_moves_over_what_was_served_right_above_it(attached: bool) -> None:
    cursor = written(Kept(), served(1, 2, 3, 7), attached=attached)
    assert (cursor.offset, cursor.sent_through) == (3, 3)
    assert served_beyond(cursor).ranges() == [range(7, 8)]


def test_what_is_in_flight_holds_the_cursor_and_is_still_listed() -> None:
    kept = Kept()
    kept.take(3)
    cursor = written(kept, served(4, 6))
    assert (cursor.offset, cursor.sent_through) == (0, 4)
    assert [entry.offset for entry in listed(cursor)] == [1, 2, 3]
    assert served_beyond(cursor).ranges() == [range(6, 7)]


def test_of_too_many_ranges_the_newest_are_named() -> None:
    cursor = written(Kept(), served(*range(3, 1000, 2)))
    ranges = served_beyond(cursor).ranges()
    assert (len(ranges), ranges[-1]) == (SERVED_MAX, range(999, 1000))


def test_what_the_commit_itself_stores_is_known_when_its_places_are() -> None:
    part = HandedOn()
    part.add(1, [message(), message()], 1)
    part.commit_begins(0)
    kept = Kept()
    [operation] = kept.cursor.take_changes(Offset(5), Served(1, [part]), attached=True)
    assert isinstance(operation, Put)
    fill_in([operation], part.places, Offset(5), 6)
    assert isinstance(operation.document, CursorDocument)
    assert (operation.document.offset, operation.document.inflight) == (7, b"")
    [operation] = kept.cursor.take_changes(Offset(3), Served(1, [part]), attached=True)
    assert isinstance(operation, Put)
    fill_in([operation], part.places, Offset(5), 6)
    assert isinstance(operation.document, CursorDocument)
    assert operation.document.offset == 3
    assert served_beyond(operation.document).ranges() == [range(6, 8)]


@pytest.mark.parametrize("count", [0, 3])
def test_one_flipped_bit_in_what_was_served_is_detected(count: int) -> None:
    """P8"""
    kept = Kept()
    kept.take(count)
    cursor = written(kept, served(9, 20))
    for bit in range(8 * len(cursor.inflight)):
        with pytest.raises(StoreCorrupt):
            listed(replace(cursor, inflight=damaged(cursor.inflight, bit)))


def test_a_cursor_with_pages_is_taken_up_with_what_was_served() -> None:
    kept = Kept()
    kept.take(MANY)
    kept.cursor.take_changes(kept.through, attached=True)
    kept.cursor.not_committed()
    operations = kept.cursor.take_changes(kept.through, served(MANY + 5), attached=True)
    documents = [o.document for o in operations if isinstance(o, Put)]
    pages = [d for d in documents if isinstance(d, InFlightDocument)]
    [cursor] = [d for d in documents if isinstance(d, CursorDocument)]
    again = Kept()
    again.cursor.restore(cursor, pages)
    assert len(again.window) == MANY
    assert served_beyond(cursor).ranges() == [range(MANY + 5, MANY + 6)]
