"""What belongs to a session is changed by the session: others call its methods.

Each rule is tried on a synthetic module that breaks it, so that it cannot go blind.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from broker.message import Message
from tests.support.architecture import attributes

BROKER = Path(__file__).parents[3] / "broker"
HANDLE_SESSIONS = ("clients", "delivery", "observe", "registry", "replay")
ATTRIBUTES_MAX = 15
CHANGE_IN_PLACE = {
    "add", "append", "appendleft", "clear", "discard", "extend", "insert", "pop", "popitem",
    "popleft", "remove", "reverse", "setdefault", "sort", "update",
}  # fmt: skip


@cache
def classes() -> dict[str, set[str]]:
    """Attributes of each class of `session/`."""
    return {
        node.name: attributes(node)
        for path in (BROKER / "session").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.ClassDef)
    }


OWNED = set().union(*classes().values())
PARTS = {"grants", "in_flight", "leases", "owed", "position", "received"}
"""Their methods are for others to call, whatever the names."""
OWN = {"self": OWNED, "message": {field.name for field in fields(Message)}}
"""By variable. A message has a `size` and an `offset`, as parts of a session have."""


def changes(source: str) -> Iterator[str]:
    """Where a module changes what belongs to a session, of another object than itself."""
    for node in ast.walk(ast.parse(source)):
        changed: list[ast.expr] = []
        if isinstance(node, ast.Attribute | ast.Subscript) and not isinstance(node.ctx, ast.Load):
            changed = [node.value if isinstance(node, ast.Subscript) else node]
        elif (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and node.func.attr in CHANGE_IN_PLACE
            and not (isinstance(node.func.value, ast.Attribute) and node.func.value.attr in PARTS)
        ):
            changed = [node.func.value]
        for owned in changed:
            if (
                isinstance(owned, ast.Attribute)
                and owned.attr in OWNED
                and not (
                    isinstance(owned.value, ast.Name) and owned.attr in OWN.get(owned.value.id, ())
                )
            ):
                yield f"line {owned.lineno}: {ast.unparse(owned)}"


def test_the_classes_and_their_attributes_are_found() -> None:
    assert {"aside", "outbox", "receive_maximum", "settled", "reading", "through"} <= OWNED


@pytest.mark.parametrize("place", HANDLE_SESSIONS)
def test_nobody_outside_changes_what_belongs_to_a_session(place: str) -> None:
    sources = {path: path.read_text(encoding="utf-8") for path in (BROKER / place).rglob("*.py")}
    assert len(sources) > 1
    assert [f"{path}: {change}" for path in sources for change in changes(sources[path])] == []


@pytest.mark.parametrize(
    "source",
    [
        "session.ended = True",
        "session.in_flight.receive_maximum = 3",
        "expiry, session.session_expiry_s = session.session_expiry_s, 0",
        "member.outbox.size += 1",
        "self.session.position.through = 3",
        "session.supply.aside.append(1)",
        "session.grants.by_filter['a'] = 1",
        "del session.in_flight.leases.settled[0]",
        "del session.outbox",
        "for session.attached in (): pass",
        "message.ended = True",
    ],
)
def test_a_change_from_outside_is_found(source: str) -> None:
    assert len([*changes(source)]) == 1


@pytest.mark.parametrize(
    "source",
    [
        "self.ended = True",
        "message.size = 1",
        "session.supply.offer_aside([])",
        "session.in_flight.discard([])",
        "room = len(session.supply.aside)",
        "aside.pop()",
    ],
)
def test_a_call_a_look_and_ones_own_attributes_are_no_change(source: str) -> None:
    assert [*changes(source)] == []


@pytest.mark.parametrize("name", [name for name, owned in classes().items() if owned])
def test_no_part_of_a_session_gathers(name: str) -> None:
    assert len(classes()[name]) <= ATTRIBUTES_MAX
