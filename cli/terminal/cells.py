"""Text in terminal cells: how wide it is, cut and padded to a width.

Wide characters (CJK, most emoji) take two cells, marks that combine with the character before
none. Text comes here after `output.escaped`, so nothing in it moves the cursor.
"""

from __future__ import annotations

import unicodedata

ELLIPSIS = "…"


def width(text: str) -> int:
    """The cells that printable text takes."""
    if text.isascii():
        return len(text)
    return sum(map(_width_of, text))


def _width_of(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def cut(text: str, cells: int) -> str:
    """Its beginning, with an ellipsis where something is left out."""
    if width(text) <= cells:
        return text
    return _beginning(text, cells - 1) + ELLIPSIS if cells > 0 else ""


def cut_middle(text: str, cells: int) -> str:
    """Both of its ends: what tells names apart may be at either."""
    if width(text) <= cells:
        return text
    if cells < 3:
        return cut(text, cells)
    end = (cells - 1) // 2
    return _beginning(text, cells - 1 - end) + ELLIPSIS + _ending(text, end)


def padded(text: str, cells: int, *, right: bool = False) -> str:
    """At least `cells` wide; `right`: aligned to the right."""
    space = " " * (cells - width(text))
    return space + text if right else text + space


def _beginning(text: str, cells: int) -> str:
    if text.isascii():
        return text[:cells]
    for number, character in enumerate(text):
        cells -= _width_of(character)
        if cells < 0:
            return text[:number]
    return text


def _ending(text: str, cells: int) -> str:
    if text.isascii():
        return text[len(text) - cells :]
    start = len(text)
    while start > 0 and (cells := cells - _width_of(text[start - 1])) >= 0:
        start -= 1
    while start < len(text) and _width_of(text[start]) == 0:
        start += 1  # It would combine with the ellipsis.
    return text[start:]
