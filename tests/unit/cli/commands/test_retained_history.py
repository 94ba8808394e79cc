"""`pubsub retained history`: of which topics, from its options."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.log.history import Options
from cli.main import app


@pytest.mark.parametrize(("words", "last"), [([], 20), (["-n", "3"], 3), (["-n", "0"], None)])
def test_it_is_the_log_of_what_was_retained(
    words: list[str], last: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[Options] = []
    monkeypatch.setattr("cli.log.show_log.show", shown.append)
    app(["retained", "history", "a", *words], standalone_mode=False)
    assert shown == [Options(data_dir=Path("data"), filters=("a",), last=last, retained=True)]
