"""How many of something, in English: `1 message`, `2,000 messages`."""

from __future__ import annotations


def counted(count: int, noun: str, plural: str = "") -> str:
    """`plural` where an `s` behind `noun` does not do; it may be a verb's, too: "is", "are"."""
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"
