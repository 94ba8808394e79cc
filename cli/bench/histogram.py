"""Histogram: how long many things took, in constant memory and with an error below one percent."""

from __future__ import annotations

from collections.abc import Iterator
from math import ceil

PRECISION_BITS = 8


class Histogram:
    """Counts durations, in whole microseconds, in cells at most 1/128 as wide as their value."""

    def __init__(self) -> None:
        self.count = 0
        self.max_us = 0
        self._cells: dict[int, int] = {}  # by the shortest duration of the cell

    def add(self, duration_us: int, count: int = 1) -> None:
        shift = max(0, duration_us.bit_length() - PRECISION_BITS)
        cell = duration_us >> shift << shift
        self._cells[cell] = self._cells.get(cell, 0) + count
        self.count += count
        self.max_us = max(self.max_us, duration_us)

    def quantile_us(self, part: float) -> int:
        """So long at most took the fastest `part` (0 to 1) of them; 0 if there are none."""
        left = ceil(part * self.count)
        for cell in sorted(self._cells):
            left -= self._cells[cell]
            if left <= 0:
                width = 1 << max(0, cell.bit_length() - PRECISION_BITS)
                return min(cell + width - 1, self.max_us)
        return self.max_us

    def buckets(self) -> Iterator[tuple[int, int]]:
        """Coarser, for people: how many took less than so many microseconds, and not less than the
        number before: 10, 20, 50, 100, 200 ... From the first that is not empty to the last.

        A cell that a bound goes through counts as below it.
        """
        cells = sorted(self._cells)
        at = 0
        for bound in _one_two_five():
            count = 0
            while at < len(cells) and cells[at] < bound:
                count += self._cells[cells[at]]
                at += 1
            if at > 0:
                yield bound, count
            if at == len(cells):
                return


def _one_two_five() -> Iterator[int]:
    decade = 10
    while True:
        yield from (decade, 2 * decade, 5 * decade)
        decade *= 10
