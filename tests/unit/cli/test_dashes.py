"""Arguments that begin with a dash: numbers and the like are messages, words are options."""

from __future__ import annotations

from typing import Annotated

import pytest
import typer

from cli.dashes import DashedArguments

app = typer.Typer()


@app.command(cls=DashedArguments)
def command(
    topic: str,
    message: str,
    retain: Annotated[bool, typer.Option("--retain", "-r")] = False,
    client_id: Annotated[str, typer.Option("--id", "-i")] = "",
    qos: Annotated[int, typer.Option("--qos", "-q")] = 1,
) -> tuple[object, ...]:
    return topic, message, retain, client_id, qos


@pytest.mark.parametrize(
    ("arguments", "taken"),
    [
        (["t", "-5"], ("t", "-5", False, "", 1)),
        (["t", "-5r"], ("t", "-5r", False, "", 1)),
        (["t", "-5 degrees, r"], ("t", "-5 degrees, r", False, "", 1)),
        (["-r", "t", "-.5", "-q", "2"], ("t", "-.5", True, "", 2)),
        (["t", "-5", "-ri", "me"], ("t", "-5", True, "me", 1)),
        (["t", "-5", "--id", "-6", "-q2"], ("t", "-5", False, "-6", 2)),
        (["t", "--id=me", "-"], ("t", "-", False, "me", 1)),
        (["t", "--- a line ---"], ("t", "--- a line ---", False, "", 1)),
        (["-q", "0", "--", "-t", "--retain"], ("-t", "--retain", False, "", 0)),
    ],
)
def test_what_is_no_option_is_an_argument(arguments: list[str], taken: tuple[object, ...]) -> None:
    assert app(arguments, standalone_mode=False) == taken


@pytest.mark.parametrize("mistyped", ["--retian", "-x"])
def test_a_mistyped_option_is_not_published(
    mistyped: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        app(["t", "m", mistyped])
    assert "No such option" in capsys.readouterr().err


@pytest.mark.parametrize("last", ["-q", "--qos", "-rq"])
def test_an_option_without_its_value_is_told_as_that(
    last: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        app(["t", "m", last])
    assert f"Option '{last if last != '-rq' else '-q'}' requires an argument" in (
        capsys.readouterr().err
    )


def test_a_message_without_quotes_is_told_to_have_some(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        app(["weather", "Rainy", "day", "-q", "1"])
    assert "3 arguments are too many: put quotes around" in capsys.readouterr().err


def test_a_mistyped_option_with_a_value_is_told_before_an_argument_too_many(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        app(["t", "m", "--retian", "3"])
    assert "No such option" in capsys.readouterr().err
