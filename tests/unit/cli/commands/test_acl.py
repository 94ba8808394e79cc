"""The options of `pubsub acl`."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest

from broker.documents import RuleDocument
from cli.commands import acl
from cli.operate import acl as doing
from cli.options import AdminOptions


@pytest.mark.parametrize("command", ["add", "rm"])
def test_a_rule_is_of_a_user_or_of_a_role(monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    asked: list[Any] = []
    monkeypatch.setattr(doing, command, lambda _, rule: asked.append(rule))
    run = unwrap(getattr(acl, command))
    broker = AdminOptions(data_dir=Path("x"))
    run("anna", "allow", "pub", "a", broker=broker)
    run("night", "deny", "read", "a", role=True, broker=broker)
    assert asked == [
        RuleDocument("anna", False, True, "publish", "a"),
        RuleDocument("night", True, False, "read-history", "a"),
    ]


def test_every_command_has_an_example() -> None:
    assert acl.EXAMPLES.keys() == {"add", "rm", "ls", "check", "import"}
    for name, text in acl.EXAMPLES.items():
        assert f"pubsub acl {name}" in text
