"""A password file of Mosquitto: a line `name:hash` for each user."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker.errors import CommandRefused
from broker.security.names import validate_user
from broker.security.passwords import refusal


@dataclass(slots=True, frozen=True)
class Entry:
    """A line. `why_not`: why it cannot be used; then `name` is for people and `kept` empty."""

    line: int
    name: str
    kept: str
    why_not: str = ""


def entries(content: bytes) -> Iterator[Entry]:
    """Every line but empty ones and comments. A name that comes again counts as its first line."""
    seen: set[str] = set()
    for number, raw in enumerate(content.splitlines(), 1):
        if not raw.strip() or raw.startswith(b"#"):
            continue
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            yield Entry(number, "?", "", "it is not UTF-8")
            continue
        name, colon, kept = text.partition(":")
        why_not = "" if colon else "it has no colon"
        try:
            validate_user(name)
        except CommandRefused as error:
            why_not = why_not or error.reason
        if name in seen:
            why_not = why_not or "the name was there before"
        why_not = why_not or refusal(kept.strip())
        if why_not:  # Where no hash is, a password may be: nothing of it is told.
            yield Entry(number, name if colon else "?", "", why_not)
        else:
            seen.add(name)
            yield Entry(number, name, kept.strip())
