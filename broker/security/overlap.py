"""What two Topic Filters have in common: as filters, without any name at hand."""

from __future__ import annotations

from collections.abc import Container, Iterator, Sequence

Levels = tuple[str, ...]
ANY_LEVEL = "\0"
OTHER_LEVEL = "$\0"
"""Levels that no filter has, as MQTT forbids this character. So only wildcards match them."""


def levels_of(topic_filter: str) -> Levels:
    return tuple(topic_filter.split("/"))


def common(first: Levels, second: Levels, *, is_inner: bool = False) -> Levels | None:
    """The filter of the names that match both; None: there are none. `is_inner`: the second is the
    end of a filter, so its wildcards stand for names that begin with `$`, too."""
    if _other_kind(first, second) or (not is_inner and _other_kind(second, first)):
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
    if both == [""]:
        return None  # No name is empty.
    return tuple(both) if not longer or longer == ("#",) else None


def covers(wide: Levels, narrow: Levels) -> bool:
    """Whether each name that matches `narrow` matches `wide`. False for `+/#` and `#`, though it is
    so."""
    return common(wide, narrow) == narrow


def names(topic_filter: Levels, lengths: Container[int]) -> Iterator[Levels]:
    """Names of a filter that other filters match least: if each of these is matched by one of the
    others, every name of the filter is. `lengths`: how many levels those of the others have that do
    not end with `#`; also other numbers.

    A level that a wildcard stands for is ANY_LEVEL: a filter that matches it there matches whatever
    is in its place. A longer name is matched by more filters that end with `#`, so none is longer
    than the first that only these can match.
    """
    name = tuple([ANY_LEVEL if level == "+" else level for level in topic_filter])
    if name[-1] != "#":
        yield name
        return
    name = name[:-1]
    if name in ((), ("",)):  # No name is empty.
        name = (*name, ANY_LEVEL)
    yield name
    while len(name) in lengths:
        name = (*name, ANY_LEVEL)
        yield name


def _other_kind(first: Levels, second: Levels) -> bool:
    """Whether one is for names that begin with `$`, and the other is not. [MQTT-4.7.2-1]"""
    return first[0] in ("+", "#") and second[0].startswith("$")
