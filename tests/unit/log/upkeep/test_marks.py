"""Marks: how old messages are at least."""

from __future__ import annotations

from broker.documents import Delete, MarkDocument, Put
from broker.log.upkeep.marks import MARKS_MAX, Marks
from broker.message import Offset, ServedUs


def mark(offset: int, at: int) -> MarkDocument:
    return MarkDocument(Offset(offset), ServedUs(at))


def test_a_message_is_as_old_as_the_mark_that_covers_it() -> None:
    marks = Marks([mark(10, 100), mark(20, 200)], 50)
    assert [marks.older_than(50, ServedUs(now)) for now in (149, 150, 249, 250)] == [0, 10, 10, 20]


def test_a_mark_is_made_when_there_is_something_new_and_the_last_is_old_enough() -> None:
    marks = Marks([], 50)
    assert marks.note(Offset(0), ServedUs(100)) == []
    assert marks.note(Offset(5), ServedUs(100)) == [Put(mark(5, 100))]
    assert marks.note(Offset(9), ServedUs(149)) == []
    assert marks.note(Offset(5), ServedUs(900)) == []
    assert marks.note(Offset(9), ServedUs(150)) == [Put(mark(9, 150))]


def test_marks_below_the_log_start_are_forgotten() -> None:
    marks = Marks([mark(10, 100), mark(20, 200)], 50)
    assert marks.forget(Offset(10)) == []
    assert marks.forget(Offset(11)) == [Delete(MarkDocument, (10,))]
    assert len(marks) == 1


def test_there_are_never_too_many_and_the_oldest_and_the_newest_stay() -> None:
    marks = Marks([mark(n, n) for n in range(1, MARKS_MAX + 1)], 1)
    operations = marks.note(Offset(MARKS_MAX + 1), ServedUs(MARKS_MAX + 1))
    assert len(operations) == 1 + MARKS_MAX // 4
    assert len(marks) <= MARKS_MAX
    assert marks.older_than(0, ServedUs(1)) == 1
    assert marks.older_than(0, ServedUs(2)) == 1
    assert marks.older_than(0, ServedUs(MARKS_MAX + 1)) == MARKS_MAX + 1
