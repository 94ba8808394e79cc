"""`statements.toml`, read."""

from __future__ import annotations

import tomllib
from collections import Counter
from functools import cache
from pathlib import Path

Statement = dict[str, str | list[str]]

STANDARDS = {"MQTT": "MQTT 5.0", "MQTT3": "MQTT 3.1.1"}
STATES = {"test": "tested", "why": "not testable", "missing": "missing"}
"""Of these keys a statement has one."""


@cache
def statements() -> dict[str, Statement]:
    """By number. One that is there twice is an error of the format."""
    return tomllib.loads((Path(__file__).parent / "statements.toml").read_text(encoding="utf-8"))


def named_tests(statement: Statement) -> list[str]:
    tests = statement.get("test", [])
    return [tests] if isinstance(tests, str) else tests


def summary() -> str:
    """How many statements of each standard are in which state."""
    lines = []
    for prefix, standard in STANDARDS.items():
        rows = [row for number, row in statements().items() if number.startswith(f"{prefix}-")]
        states = Counter(state for row in rows for state in row if state in STATES)
        counts = ", ".join(f"{states[state]} {words}" for state, words in STATES.items())
        lines.append(f"{standard}: {len(rows)} statements bind a server, {counts}")
    return "\n".join(lines)
