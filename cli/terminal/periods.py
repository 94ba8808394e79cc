"""Periods as people write them: `5m`, `1.5s`, `250ms`, `1h`; and two of them: `1s..5m`."""

from __future__ import annotations

import re

from cli.terminal.failure import CommandFailed, Exit

_PERIOD = re.compile(r"(\d{1,9}(?:\.\d{1,3})?)(ms|s|m|min|h|d)", re.ASCII)
_UNITS_MS = {"ms": 1, "s": 1000, "m": 60_000, "min": 60_000, "h": 3_600_000, "d": 86_400_000}


def milliseconds(option: str, text: str) -> int:
    """Raises CommandFailed (2): it is no period."""
    found = _PERIOD.fullmatch(text)
    if found is None:
        raise CommandFailed(
            f"{option} {text!r} is no period", "write it like 30s, 5m or 1h", Exit.USAGE
        )
    return round(float(found[1]) * _UNITS_MS[found[2]])


def span_ms(option: str, text: str) -> tuple[int, int]:
    """The first and the longest of growing pauses; one alone is both. Raises CommandFailed (2)."""
    first, dots, most = text.partition("..")
    first_ms = milliseconds(option, first)
    most_ms = milliseconds(option, most) if dots else first_ms
    if most_ms < first_ms:
        raise CommandFailed(
            f"{option} {text!r} ends below its beginning", "write it like 1s..5m", Exit.USAGE
        )
    return first_ms, most_ms
