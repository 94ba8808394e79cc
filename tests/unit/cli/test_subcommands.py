"""A command that also has commands below it."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer

from cli.subcommands import with_subcommands


@pytest.fixture
def ran() -> list[tuple[object, ...]]:
    return []


@pytest.fixture
def app(ran: list[tuple[object, ...]]) -> typer.Typer:
    below = typer.Typer(rich_markup_mode=None)
    app = typer.Typer(rich_markup_mode=None)

    @app.command("log", cls=with_subcommands(below))
    def log(
        filters: Annotated[list[str] | None, typer.Argument()] = None,
        follow: Annotated[bool, typer.Option("-f")] = False,
    ) -> None:
        """Itself."""
        ran.append(("log", filters, follow))

    @app.command("other")
    def other() -> None:
        """Makes a group of the application."""

    @below.command("get")
    def get(offset: int, json: Annotated[bool, typer.Option("--json")] = False) -> None:
        """One of them."""
        ran.append(("get", offset, json))

    return app


@pytest.mark.parametrize(
    ("arguments", "runs"),
    [
        (["log"], ("log", None, False)),
        (["log", "a", "b/#", "-f"], ("log", ["a", "b/#"], True)),
        (["log", "get", "17", "--json"], ("get", 17, True)),
        (["log", "--", "get"], ("log", ["get"], False)),
        (["log", "-f", "get"], ("log", ["get"], True)),
        (["log", "ge"], ("log", ["ge"], False)),
        (["log", "a", "get"], ("log", ["a", "get"], False)),
    ],
)
def test_the_first_word_decides(
    app: typer.Typer, ran: list[tuple[object, ...]], arguments: list[str], runs: tuple[object, ...]
) -> None:
    app(arguments, standalone_mode=False)
    assert ran == [runs]


def said(app: typer.Typer, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit):
        app(list(arguments), prog_name="pubsub")
    return "".join(capsys.readouterr())


def test_help_names_both(app: typer.Typer, capsys: pytest.CaptureFixture[str]) -> None:
    text = said(app, capsys, "log", "--help")
    assert "Usage: pubsub log [OPTIONS] [filters]..." in text
    assert "get  One of them." in text
    assert "Usage: pubsub log get [OPTIONS] {offset}" in said(app, capsys, "log", "get", "--help")
    assert "Usage: pubsub log get" in said(app, capsys, "log", "get", "x")
