"""An acl file of Mosquitto: who may do what, as rules.

`user` says whose the `topic` lines below are; those above the first one are of `anonymous`.
`pattern` lines are of everybody. What Mosquitto calls read is to subscribe here, write is to
publish, and nothing of it is history.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from broker.errors import CommandRefused
from broker.security.names import ANONYMOUS, validate_user
from broker.security.rules import EVERYONE, Holder, Right, Rule, validate

BOTH = Right.PUBLISH, Right.SUBSCRIBE
ACCESS = {
    "read": (True, (Right.SUBSCRIBE,)),
    "write": (True, (Right.PUBLISH,)),
    "readwrite": (True, BOTH),
    "deny": (False, BOTH),
}
"""What each word allows, or denies. None is `readwrite`."""


@dataclass(slots=True, frozen=True)
class Entry:
    """A line with its rules. `why_not`: why it cannot be one; then it has none."""

    line: int
    rules: tuple[Rule, ...] = ()
    why_not: str = ""


def entries(content: bytes) -> Iterator[Entry]:
    """Every line that is to be a rule, or cannot be."""
    holder: Holder | None = Holder(ANONYMOUS)
    for number, raw in enumerate(content.splitlines(), 1):
        line = raw.decode(errors="replace").strip()
        if not line or line.startswith("#"):
            continue
        word, _, rest = line.partition(" ")
        rest = rest.strip()
        if "\ufffd" in line:
            yield Entry(number, why_not="it is not UTF-8")
        elif word == "user":
            try:
                validate_user(rest)
                holder = Holder(rest)
            except CommandRefused as error:
                holder = None
                yield Entry(number, why_not=error.reason)
        elif word == "topic" and holder is None:
            yield Entry(number, why_not="it is of a user that cannot be")
        elif word == "topic" and ("%u" in rest or "%c" in rest):
            yield Entry(number, why_not="here %u and %c stand for names, in Mosquitto not")
        elif word == "topic" and holder is not None:
            yield _entry(number, holder, rest)
        elif word == "pattern":
            yield _entry(number, EVERYONE, rest)
        else:
            yield Entry(number, why_not="it begins with no word of an acl file")


def _entry(number: int, holder: Holder, rest: str) -> Entry:
    access, _, topic_filter = rest.partition(" ")
    if access not in ACCESS:
        access, topic_filter = "readwrite", rest
    allow, rights = ACCESS[access]
    rules = tuple([Rule(holder, allow, right, topic_filter.strip()) for right in rights])
    try:
        validate(rules[0])
    except CommandRefused as error:
        return Entry(number, why_not=error.reason)
    return Entry(number, rules)
