"""How far a search has come."""

from __future__ import annotations

import pytest

from cli.terminal import progress as module
from cli.terminal.progress import Progress


def test_a_search_says_how_far_it_is_and_removes_that(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr(module, "PROGRESS_AFTER_S", 0)
    progress = Progress(5000)
    progress.looked(1000)
    progress.looked(1001)  # Not so soon.
    progress.clear()
    progress.clear()
    said = capfd.readouterr().err
    assert said == "\r\x1b[Klooked at 1,000 of 5,000 messages\r\x1b[K"
