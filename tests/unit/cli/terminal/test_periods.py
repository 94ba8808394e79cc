"""Periods as people write them."""

from __future__ import annotations

import pytest

from cli.terminal.failure import CommandFailed
from cli.terminal.periods import milliseconds, span_ms


@pytest.mark.parametrize(
    ("text", "ms"),
    [("250ms", 250), ("1s", 1000), ("1.5s", 1500), ("5m", 300_000), ("2h", 7_200_000)],
)
def test_a_number_and_a_unit(text: str, ms: int) -> None:
    assert milliseconds("--lease", text) == ms


@pytest.mark.parametrize("text", ["", "5", "m", "-1s", "1s2m", "1 s", "٣s"])
def test_anything_else_is_none(text: str) -> None:
    with pytest.raises(CommandFailed, match="--lease"):
        milliseconds("--lease", text)


def test_two_of_them() -> None:
    assert span_ms("--backoff", "1s..5m") == (1000, 300_000)
    assert span_ms("--backoff", "2s") == (2000, 2000)
    with pytest.raises(CommandFailed, match="below"):
        span_ms("--backoff", "5m..1s")
