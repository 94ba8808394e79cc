"""Columns for a command that lists something: a table on a terminal, tabs in a pipe."""

from __future__ import annotations

import shutil
from collections.abc import Sequence

from cli.terminal import output
from cli.terminal.cells import cut_middle, padded, width

GAP = "  "
NAME_CELLS_MIN = 12


def write(headings: Sequence[str], rows: Sequence[Sequence[str | int]], *, empty: str) -> None:
    """The first column is a name and is cut where the terminal is too narrow. Numbers are aligned
    to the right, with their thousands apart. A pipe gets no heading, and numbers as they are.
    `empty` is what a terminal gets where there are no rows."""
    if not rows:
        output.nothing(empty)
        return
    if not output.to_terminal():
        output.text("".join("\t".join(map(str, row)) + "\n" for row in rows))
        return
    texts = [[f"{v:,}" if isinstance(v, int) else v for v in row] for row in rows]
    numbers = [isinstance(value, int) for value in rows[0]]
    widths = [max(map(width, column)) for column in zip(headings, *texts, strict=True)]
    missing = sum(widths) + len(GAP) * (len(widths) - 1) - shutil.get_terminal_size().columns
    widths[0] = max(min(widths[0], NAME_CELLS_MIN), widths[0] - max(0, missing))
    lines = []
    for row in [headings, *texts]:
        first, *others = row
        cells = [padded(cut_middle(first, widths[0]), widths[0])]
        for text, cells_wide, right in zip(others, widths[1:], numbers[1:], strict=True):
            cells.append(padded(text, cells_wide, right=right))
        lines.append(GAP.join(cells).rstrip() + "\n")
    output.text("".join(lines))
