"""`pubsub retained` and `pubsub retained ls`: which topics, and how, from the options."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli.log.history import Options
from cli.main import app


@pytest.mark.parametrize("words", [["retained"], ["retained", "ls"]])
def test_the_options_say_which_and_how(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Options] = []
    monkeypatch.setattr("cli.log.retained.show", shown.append)
    app([*words, "a/#", "get", "-F", "%t", "--data-dir", "d"], standalone_mode=False)
    assert shown == [Options(data_dir=Path("d"), filters=("a/#", "get"), last=None, format="%t")]
    with pytest.raises(typer.BadParameter, match="use one of"):
        app([*words, "--json", "--csv"], standalone_mode=False)
