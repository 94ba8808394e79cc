"""Marks: how old the messages of the log are at least, by a clock that nobody can set.

The time of publication in a message is the wall clock's, and so means nothing: a clock that jumps
ahead a year would make everything old, one that began in 1970 what was published then. So now and
then a mark notes the newest offset and *served* time (`log_time.py`): what lies at or below it is
as old as the mark. Time in which no broker runs does not count: in doubt a message stays.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable

from broker.documents import BEFORE_ALL, Delete, MarkDocument, Operation, Put
from broker.message import Offset, ServedUs

MARKS_MAX = 4096
"""Beyond, every other one of the older half is forgotten: then what lies between counts as
younger."""


class Marks:
    def __init__(self, marks: Iterable[MarkDocument], interval_us: int) -> None:
        self._interval_us = interval_us
        self._marks = sorted(marks, key=lambda mark: mark.offset)

    def __len__(self) -> int:
        return len(self._marks)

    def note(self, newest: Offset, now_us: ServedUs) -> list[Operation]:
        """What to store, as `newest` is there now: nothing, if the last mark is not old enough."""
        if self._marks:
            last = self._marks[-1]
            if newest <= last.offset or now_us < last.served_us + self._interval_us:
                return []
        if newest == BEFORE_ALL:
            return []
        return [*self.add([MarkDocument(newest, now_us)])]

    def add(self, marks: Iterable[MarkDocument]) -> list[Operation]:
        """These are the newest, in their order."""
        added = [*marks]
        self._marks += added
        operations: list[Operation] = [Put(mark) for mark in added]
        while len(self._marks) > MARKS_MAX:
            half = len(self._marks) // 2
            operations += [Delete(MarkDocument, (mark.offset,)) for mark in self._marks[1:half:2]]
            del self._marks[1:half:2]
        return operations

    def older_than(self, age_us: int, now_us: ServedUs) -> Offset:
        """The newest offset that is known to be at least so old; 0: none is."""
        at = bisect_right(self._marks, now_us - age_us, key=lambda mark: mark.served_us)
        return self._marks[at - 1].offset if at else BEFORE_ALL

    def forget(self, log_start: Offset) -> list[Operation]:
        """Marks below the log start say nothing."""
        at = bisect_right(self._marks, log_start - 1, key=lambda mark: mark.offset)
        gone, self._marks = self._marks[:at], self._marks[at:]
        return [Delete(MarkDocument, (mark.offset,)) for mark in gone]
