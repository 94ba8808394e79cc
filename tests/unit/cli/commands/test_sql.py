"""`pubsub sql`: which query, and how, from its options."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import typer

from cli.main import app


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    asked: list[object] = []
    monkeypatch.setattr("cli.log.sql.show", lambda *args, **how: asked.append((args, how)))
    monkeypatch.setattr("cli.log.sql.list_views", lambda *args, **how: asked.append((args, how)))
    return asked


def sql(*arguments: str) -> None:
    app(["sql", *arguments], standalone_mode=False)


def test_a_query_or_the_views(asked: list[object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("SELECT 2\n"))
    sql("SELECT 1", "--timeout", "500ms", "--data-dir", "d", "--json")
    sql("-", "--csv")
    sql("--json")
    assert asked == [
        ((Path("d"), "SELECT 1"), {"timeout_s": 0.5, "json": True, "csv": False}),
        ((Path("data"), "SELECT 2\n"), {"timeout_s": 5, "json": False, "csv": True}),
        ((Path("data"),), {"json": True}),
    ]


@pytest.mark.parametrize(
    "arguments",
    [("SELECT 1", "--json", "--csv"), ("SELECT 1", "--timeout", "0"), ("", "--timeout", "x")],
)
def test_wrong_usage(asked: list[object], arguments: tuple[str, ...]) -> None:
    with pytest.raises(typer.BadParameter):
        sql(*arguments)
    assert asked == []
