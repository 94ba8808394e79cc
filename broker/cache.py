"""Cache: what is remembered by names of clients' choice, bounded in number and in characters.

A Topic Name or a client identifier may have 65,535 characters, so a bound of their number is none.
"""

from __future__ import annotations

from typing import Generic, TypeVar

COUNT_MAX = 32_768
LENGTH_MAX = 8 << 20

K = TypeVar("K")
V = TypeVar("V")


class Cache(dict[K, V], Generic[K, V]):
    """Values are added by `keep`. One that is full is emptied: the hot loop finds what it needs
    again, and nothing has to be known of when each was used."""

    def __init__(self, count_max: int = 0, length_max: int = 0) -> None:
        """0: COUNT_MAX, LENGTH_MAX."""
        self._count_max = count_max
        self._length_max = length_max
        self._length = 0

    def keep(self, key: K, value: V, length: int) -> V:
        """Returns the value. `length`: characters of the names in key and value."""
        self._length += length
        if len(self) >= (self._count_max or COUNT_MAX) or self._length > (
            self._length_max or LENGTH_MAX
        ):
            self.clear()
            self._length = length
        self[key] = value
        return value

    def clear(self) -> None:
        super().clear()
        self._length = 0
