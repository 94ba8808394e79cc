"""The options of `pubsub user`."""

from __future__ import annotations

from inspect import unwrap
from pathlib import Path
from typing import Any

import pytest
import typer

from cli.commands import user
from cli.operate import users
from cli.options import AccountOptions, AdminOptions


@pytest.mark.parametrize(
    ("options", "roles"),
    [
        ({}, ["standard"]),
        ({"admin": True}, ["admin"]),
        ({"role": ["night", "day"]}, ["night", "day"]),
        ({"admin": True, "role": ["night"]}, ["night", "admin"]),
    ],
)
def test_a_new_user_has_the_roles_that_were_asked_for(
    monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], roles: list[str]
) -> None:
    asked: dict[str, Any] = {}
    monkeypatch.setattr(users, "add", lambda *_, **options: asked.update(options))
    unwrap(user.add)("anna", broker=AccountOptions(data_dir=Path("x")), **options)
    assert asked["roles"] == roles


@pytest.mark.parametrize(("named", "none"), [([], False), (None, False), (["night"], True)])
def test_roles_are_named_or_none_is_said(named: list[str] | None, none: bool) -> None:
    with pytest.raises(typer.BadParameter, match="--none"):
        unwrap(user.roles)("anna", named, none=none, broker=AdminOptions())


def test_every_command_has_an_example() -> None:
    assert user.EXAMPLES.keys() == {"add", "passwd", "roles", "rm", "ls", "import"}
    for name, text in user.EXAMPLES.items():
        assert f"pubsub user {name} " in text or f"pubsub user {name}\n" in text
