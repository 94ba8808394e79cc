"""Removing: which rows of a segment one part of an order takes."""

from __future__ import annotations

from broker.message import Offset
from broker.store.removing import (
    PART_BYTES_MAX,
    Amount,
    Cut,
    Order,
    Removed,
    Row,
    amounts,
    as_ranges,
    part_bytes,
    pick,
    updated,
)

ALL = Offset(1 << 62)


def rows(count: int, *, size: int = 100, held: tuple[int, ...] = ()) -> list[Row]:
    return [Row(Offset(n), n % 2, size, n in held) for n in range(1, count + 1)]


def order(cut: Cut, **more: int) -> Order:
    made = Order(Offset(0), Offset(1023), {1: cut})
    made.over_messages, made.over_bytes = more.get("messages", 0), more.get("bytes", 0)
    return made


def picked(found: list[Row], wanted: Order, rows_max: int = 100) -> list[int]:
    return [row.offset for row in pick(found, wanted, rows_max).rows]


def test_only_topics_of_the_order_below_their_cut() -> None:
    assert picked(rows(10), order(Cut(Offset(6), ALL))) == [1, 3, 5]


def test_above_the_cut_only_while_there_is_too_much() -> None:
    cut = Cut(Offset(2), ALL)
    assert picked(rows(10), order(cut, messages=3)) == [1, 3, 5]
    assert picked(rows(10), order(cut, bytes=101)) == [1, 3]


def test_the_newest_of_a_topic_and_what_is_held_stay() -> None:
    assert picked(rows(10, held=(3,)), order(Cut(ALL, ALL, most=3))) == [1, 5]


def test_what_is_unread_stays_unless_the_order_takes_it() -> None:
    wanted = order(Cut(ALL, Offset(5)), bytes=250)
    assert picked(rows(10), wanted) == [1, 3]
    assert pick(rows(10), wanted, 100).left == 3
    wanted.unread = True
    taken = pick(rows(10), wanted, 100)
    assert ([row.offset for row in taken.rows], taken.unread) == ([1, 3, 5], {5})
    wanted = order(Cut(Offset(8), Offset(5)))
    wanted.unread_below = True
    assert pick(rows(10), wanted, 100).unread == {5, 7}


def test_for_what_stays_nothing_newer_goes_by_count() -> None:
    two = Order(Offset(0), Offset(9), {1: Cut(Offset(0), Offset(3)), 0: Cut(Offset(0), ALL)})
    two.over_messages = 5
    found = [Row(Offset(n), n % 2, 10, held=False) for n in range(1, 10)]
    assert picked(found, two) == [1, 2, 4]
    assert pick(found, two, 100).left == 2
    first = pick(found, two, 2)
    rest = [row for row in found if row not in first.rows]
    assert picked(rest, updated(two, Removed(amounts(first.rows)))) == [4]


def test_a_part_is_bounded_by_rows_and_bytes_and_the_rest_is_the_next() -> None:
    wanted = order(Cut(ALL, ALL, most=4))
    first = pick(rows(10), wanted, 3)
    assert ([row.offset for row in first.rows], first.done) == ([1, 3, 5], False)
    rest = [row for row in rows(10) if row not in first.rows]
    second = pick(rest, updated(wanted, Removed(amounts(first.rows))), 3)
    assert ([row.offset for row in second.rows], second.done) == ([7], True)
    large = rows(10, size=PART_BYTES_MAX - 1)
    assert picked(large, wanted) == [1]
    assert len(pick(large, wanted, 100, part_bytes(dry_run=True)).rows) == 4


def test_amounts_are_by_topic() -> None:
    assert amounts(rows(3)) == {1: Amount(2, 200), 0: Amount(1, 100)}
    assert Removed(amounts(rows(3))).amount == (3, 300)


def test_ranges() -> None:
    assert as_ranges([1, 2, 3, 7, 9, 10]) == [range(1, 4), range(7, 8), range(9, 11)]
