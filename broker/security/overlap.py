"""What two Topic Filters have in common: as filters, without any name at hand."""

from __future__ import annotations

from collections.abc import Sequence

Levels = tuple[str, ...]


def levels_of(topic_filter: str) -> Levels:
    return tuple(topic_filter.split("/"))


def common(first: Levels, second: Levels) -> Levels | None:
    """The filter of the names that match both; None: there are none."""
    if _other_kind(first, second) or _other_kind(second, first):
        return None
    both: list[str] = []
    for place, (one, other) in enumerate(zip(first, second, strict=False)):
        if one == "#":
            return (*both, *second[place:])
        if other == "#":
            return (*both, *first[place:])
        if one == "+" or one == other:
            both.append(other)
        elif other == "+":
            both.append(one)
        else:
            return None
    longer: Sequence[str] = max(first, second, key=len)[len(both) :]
    return tuple(both) if not longer or longer == ("#",) else None


def covers(wide: Levels, narrow: Levels) -> bool:
    """Whether each name that matches `narrow` matches `wide`. False for `+/#` and `#`, though it is
    so: nobody writes that."""
    return common(wide, narrow) == narrow


def _other_kind(first: Levels, second: Levels) -> bool:
    """Whether one is for names that begin with `$`, and the other is not. [MQTT-4.7.2-1]"""
    return first[0] in ("+", "#") and second[0].startswith("$")
