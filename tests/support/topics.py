"""What matching is, in three lines."""

from __future__ import annotations


def defined_match(wanted: list[str], levels: list[str]) -> bool:
    if wanted == ["#"] or not wanted or not levels:
        return wanted == ["#"] or wanted == levels
    return wanted[0] in ("+", levels[0]) and defined_match(wanted[1:], levels[1:])


def by_definition(filter: str, name: str) -> bool:
    hidden = name.startswith("$") and filter.startswith(("+", "#"))
    return not hidden and defined_match(filter.split("/"), name.split("/"))
