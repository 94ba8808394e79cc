"""Search: the rows of an index of names that match Topic Filters, a part at a time.

Literal filters are looked up. Filters with wildcards need a walk through a range of names. Where
one filter has a range for itself, the walk leaves out what lies between two names that can match
(`next_candidate`): level by level instead of name by name.
"""

from __future__ import annotations

import json
import sqlite3
from collections import defaultdict, deque
from collections.abc import Iterable
from typing import NamedTuple

from broker.message import Offset
from broker.topics import BYTES_MAX, TopicTree, is_literal, literal_prefix

LOOKED_AT_MAX = 1000
"""Names that one part of a search looks at: 2 to 4 ms."""

AFTER_SLASH = chr(ord("/") + 1)
AFTER_DOLLAR = chr(ord("$") + 1)
AFTER_ALL_NAMES = "\U0010ffff" * (BYTES_MAX // 4 + 1)


class NameRange(NamedTuple):
    """Names at or after `low` and before `high`. `filter`: the only one that is looked for here."""

    low: str
    high: str
    filter: str | None


class TopicFilters:
    """A set of filters."""

    def __init__(self, filters: Iterable[str]) -> None:
        self.literals: set[str] = set()
        self.wildcards: TopicTree[None, str] = TopicTree()
        for filter in filters:
            if is_literal(filter):
                self.literals.add(filter)
            else:
                self.wildcards.add(filter, None, filter)

    def match(self, name: object) -> bool:
        """Whether a filter matches. `name` may be damaged: then none does."""
        return isinstance(name, str) and (name in self.literals or bool(self.wildcards.match(name)))

    def name_ranges(self) -> deque[NameRange]:
        """Every name that matches a filter with wildcards is in one of these. None overlap."""
        ranges: deque[NameRange] = deque()
        for found in sorted(map(_name_range, self.wildcards.filters())):
            if not ranges or found.low >= ranges[-1].high:
                ranges.append(found)
            else:  # One lies in the other: two ranges never overlap in part.
                ranges[-1] = ranges[-1]._replace(filter=None)
        return ranges


def _name_range(filter: str) -> NameRange:
    prefix = literal_prefix(filter)
    high = prefix.removesuffix("/") + AFTER_SLASH if prefix else AFTER_ALL_NAMES
    return NameRange(prefix, high, filter)


def next_candidate(filter: str, name: str) -> str:
    """A name after `name`, which does not match: no name before it matches the filter either."""
    if name[0] == "$" and filter[0] in "+#":
        return AFTER_DOLLAR
    levels, wanted = name.split("/"), filter.split("/")
    for depth, want in enumerate(wanted):
        if depth == len(levels):
            return name + "\0"  # What is one level deeper comes after `a/b-c`, too.
        if want in ("+", levels[depth]):
            continue
        above = "/".join([*levels[:depth], ""])
        for candidate in (above + want, f"{above}{want}/"):
            if name < candidate:
                return candidate
        return above[:-1] + AFTER_SLASH if above else AFTER_ALL_NAMES
    return "/".join(levels[: len(wanted)]) + AFTER_SLASH  # It has too many levels.


class Search:
    """`rows` is a SELECT of `name`, which has an index, and `value`, which the search returns."""

    def __init__(self, rows: str, filters: TopicFilters) -> None:
        self._select = f"SELECT name, value FROM ({rows}) WHERE name"
        self._filters = filters
        self._literals = deque(filters.literals)
        self._ranges = filters.name_ranges()

    @property
    def done(self) -> bool:
        return not (self._literals or self._ranges)

    @property
    def ranges(self) -> int:
        """How many ranges of names are still to be looked at."""
        return len(self._ranges)

    def part(self, connection: sqlite3.Connection) -> list[int]:
        """The next values, after looking at up to LOOKED_AT_MAX names."""
        count = min(LOOKED_AT_MAX, len(self._literals))
        found = self._look_up(connection, [self._literals.popleft() for _ in range(count)])
        left = LOOKED_AT_MAX - count
        while left > 0 and self._ranges:
            left -= self._walk(connection, self._ranges.popleft(), left, found)
        return found

    def _look_up(self, connection: sqlite3.Connection, names: list[str]) -> list[int]:
        sql = f"{self._select} IN (SELECT value FROM json_each(?))"
        rows = connection.execute(sql, (json.dumps(names),)) if names else ()
        return [value for _, value in rows]

    def _walk(
        self, connection: sqlite3.Connection, part: NameRange, names_max: int, found: list[int]
    ) -> int:
        """Look at the first names of the range, and keep its rest for the next call. Returns how
        many names were looked at."""
        match, filter = self._filters.match, part.filter
        low, looked_at = part.low, 0
        while True:
            rows = connection.execute(
                f"{self._select} >= ? AND name < ? ORDER BY name", (low, part.high)
            )
            for name, value in rows:
                if looked_at == names_max:
                    self._ranges.appendleft(part._replace(low=name))
                    return looked_at
                looked_at += 1
                if match(name):
                    if name not in self._filters.literals:  # Those were looked up.
                        found.append(value)
                elif filter is not None and isinstance(name, str):
                    low = next_candidate(filter, name)
                    break
            else:
                return looked_at + 1


def in_order(offsets: Iterable[object]) -> list[Offset]:
    """Sort in parts: sorting a million at once would hold up every other thread for 0.3 s. What is
    no number is damaged, and left out."""
    parts: defaultdict[int, list[Offset]] = defaultdict(list)
    for offset in offsets:
        if not isinstance(offset, int):
            continue
        parts[offset >> 16].append(Offset(offset))
    return [offset for part in sorted(parts) for offset in sorted(parts[part])]
