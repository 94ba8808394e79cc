"""Columns for a command that lists something."""

from __future__ import annotations

import pytest

from cli.terminal.columns import write

HEADINGS = ("TOPIC", "MESSAGES", "LAST")


def test_a_terminal_gets_a_table(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "40")
    rows = [("天気", 1_234_567, "today"), ("home/cellar/boiler/temperature", 5, "")]
    write(HEADINGS, rows, empty="")
    assert capfd.readouterr().out.splitlines() == [
        "TOPIC                    MESSAGES  LAST",
        "天気                    1,234,567  today",
        "home/cellar…emperature          5",
    ]


def test_nothing_is_said_in_words_on_a_terminal_and_not_at_all_in_a_pipe(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write(HEADINGS, [], empty="no topics")
    assert capfd.readouterr() == ("", "")
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    write(HEADINGS, [], empty="no topics")
    assert capfd.readouterr() == ("", "no topics\n")


def test_a_pipe_gets_whole_values_with_tabs_between(capfd: pytest.CaptureFixture[str]) -> None:
    write(HEADINGS, [("a" * 200, 1_234_567, "x")], empty="")
    assert capfd.readouterr().out == f"{'a' * 200}\t1234567\tx\n"
