from __future__ import annotations

import pytest

from broker.settings.dedup import duration_s


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("15m", 900), ("1d2h", 93_600), ("", None), ("5", None), ("1h1d", None)],
)
def test_durations(text: str, seconds: int | None) -> None:
    assert duration_s(text) == seconds
