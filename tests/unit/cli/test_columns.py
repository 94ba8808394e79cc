"""Columns for a command that lists something."""

from __future__ import annotations

import pytest

from cli.columns import write

HEADINGS = ("TOPIC", "MESSAGES", "LAST")


def test_a_terminal_gets_a_table(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.output.to_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    write(HEADINGS, [("天気", 1_234_567, "today"), ("home/cellar/boiler/temperature", 5, "")])
    assert capfd.readouterr().out.splitlines() == [
        "TOPIC                    MESSAGES  LAST",
        "天気                    1,234,567  today",
        "home/cellar…emperature          5",
    ]


def test_nothing_is_a_heading_on_a_terminal_and_nothing_in_a_pipe(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(HEADINGS, [])
    assert capfd.readouterr().out == ""
    monkeypatch.setattr("cli.output.to_terminal", lambda: True)
    write(HEADINGS, [])
    assert capfd.readouterr().out == "TOPIC  MESSAGES  LAST\n"


def test_a_pipe_gets_whole_values_with_tabs_between(capfd: pytest.CaptureFixture[str]) -> None:
    write(HEADINGS, [("a" * 200, 1_234_567, "x")])
    assert capfd.readouterr().out == f"{'a' * 200}\t1234567\tx\n"
