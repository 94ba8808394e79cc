from __future__ import annotations

import time

import pytest
import typer

from broker.message import rfc3339
from cli.messages.later import duration, later
from cli.terminal.failure import CommandFailed


def test_a_delay_goes_into_the_topic() -> None:
    assert later("a/b", "1h30m", None, [("x", "y")]) == ("$delayed/5400/a/b", [("x", "y")])


def test_a_moment_goes_into_a_property(capsys: pytest.CaptureFixture[str]) -> None:
    assert later("a", None, "2200-01-01T00:00:00Z", []) == (
        "a",
        [("deliver-at", "2200-01-01T00:00:00.000000Z")],
    )
    assert "to be delivered at 2200-01-01" in capsys.readouterr().err


def test_a_moment_that_is_over_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    _, [(_, told)] = later("a", None, "-10min", [])
    assert told <= rfc3339(time.time_ns() // 1000)
    assert "is over: it is delivered now" in capsys.readouterr().err


def test_what_cannot_be_understood_is_refused() -> None:
    with pytest.raises(CommandFailed, match="--at 'soon' is no TIME"):
        later("a", None, "soon", [])
    with pytest.raises(typer.BadParameter, match="exclude"):
        later("a", "5s", "18:30", [])
    for text in "5", "soon", "", "-5s":
        with pytest.raises(typer.BadParameter, match=r"--expire .* is no duration"):
            duration("--expire", text)
    assert duration("--expire", "49710d") == 49_710 * 86_400
    for text in "49711d", "99999d":
        with pytest.raises(typer.BadParameter, match=f"'{text}' is too long: .* 49,710 days"):
            duration("--expire", text)
