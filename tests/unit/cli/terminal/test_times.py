"""TIME as people say it. The zone here is one that is not UTC."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from broker.message import rfc3339
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.times import canonical, local, required_us, seconds, time_us

NOW_US = int(datetime(2026, 11, 28, 10, 30, tzinfo=UTC).timestamp()) * 1_000_000


@pytest.fixture(autouse=True)
def _zone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("text", "means"),
    [
        ("11:00", "2026-11-28T10:00:00.000000Z"),
        ("9:05", "2026-11-28T08:05:00.000000Z"),
        ("23:59:30.5", "2026-11-28T22:59:30.500000Z"),
        ("today", "2026-11-27T23:00:00.000000Z"),
        ("yesterday", "2026-11-26T23:00:00.000000Z"),
        ("tomorrow", "2026-11-28T23:00:00.000000Z"),
        ("tomorrow 08:00", "2026-11-29T07:00:00.000000Z"),
        ("yesterday 23:59:30", "2026-11-27T22:59:30.000000Z"),
        ("2026-11-28", "2026-11-27T23:00:00.000000Z"),
        ("2026-11-28 11:00", "2026-11-28T10:00:00.000000Z"),
        ("2026-11-28t11:00:00.25", "2026-11-28T10:00:00.250000Z"),
        ("2026-11-28T11:00Z", "2026-11-28T11:00:00.000000Z"),
        ("1741948200", "2025-03-14T10:30:00.000000Z"),
        ("-10min", "2026-11-28T10:20:00.000000Z"),
        ("-1h30m", "2026-11-28T09:00:00.000000Z"),
        ("-1w", "2026-11-21T10:30:00.000000Z"),
    ],
)
def test_what_a_time_means(text: str, means: str) -> None:
    found = time_us(text, NOW_US)
    assert found is not None
    assert rfc3339(found) == means


@pytest.mark.parametrize(
    "text", ["", "24:00", "11", "2026-13-01", "tomorrow noon", "tomorrow ", "-", "11:00:00:00"]
)
def test_what_is_no_time(text: str) -> None:
    assert time_us(text, NOW_US) is None
    with pytest.raises(CommandFailed, match=r"--as-of .* is no TIME; TIME is like 11:00") as failed:
        required_us("--as-of", text, NOW_US)
    assert failed.value.code is Exit.USAGE


@pytest.mark.parametrize(
    ("text", "spec", "understood"),
    [
        ("@11:00", "@2026-11-28T10:00:00.000000Z", "2026-11-28 11:00:00 +01:00"),
        ("today", "@2026-11-27T23:00:00.000000Z", "2026-11-28 00:00:00 +01:00"),
        ("yesterday 11:00", "@2026-11-27T10:00:00.000000Z", "2026-11-27 11:00:00 +01:00"),
        ("-10min", "@2026-11-28T10:20:00.000000Z", "2026-11-28 11:20:00 +01:00"),
        ("@-1h", "@-1h", "2026-11-28 10:30:00 +01:00"),
        ("@-1h:-5m", "@-1h:-5m", "2026-11-28 10:30:00 +01:00 to 2026-11-28 11:25:00 +01:00"),
        (
            "@-1h:2026-11-28T11:00",
            "@2026-11-28T09:30:00.000000Z:2026-11-28T10:00:00.000000Z",
            "2026-11-28 10:30:00 +01:00 to 2026-11-28 11:00:00 +01:00",
        ),
        (
            "@11:00:12:00",
            "@2026-11-28T10:00:00.000000Z:2026-11-28T11:00:00.000000Z",
            "2026-11-28 11:00:00 +01:00 to 2026-11-28 12:00:00 +01:00",
        ),
        (
            "@yesterday..today",
            "@2026-11-26T23:00:00.000000Z:2026-11-27T23:00:00.000000Z",
            "2026-11-27 00:00:00 +01:00 to 2026-11-28 00:00:00 +01:00",
        ),
        ("-10", "-10", ""),
        ("17", "17", ""),
        ("17:20", "17:20", "offsets 17:20; a time of day is @17:20"),
        ("17:99", "17:99", ""),
        ("earliest", "earliest", ""),
    ],
)
def test_a_spec_gets_the_zone_that_was_meant(text: str, spec: str, understood: str) -> None:
    assert canonical("--from", text, NOW_US) == (spec, understood)


@pytest.mark.parametrize("text", ["11:00", "11:00:12:00", "11:00..12:00"])
def test_a_time_of_day_that_is_no_spec_is_said_with_what_it_lacks(text: str) -> None:
    with pytest.raises(CommandFailed, match=f"written with @ before it: --from @{text}$"):
        canonical("--from", text, NOW_US)


@pytest.mark.parametrize("text", ["2h", "90s", "1d2h"])
def test_a_duration_is_said_with_the_sign_that_makes_it_a_time(text: str) -> None:
    with pytest.raises(CommandFailed, match=f"so long ago is .*: --from -{text}$"):
        canonical("--from", text, NOW_US)


@pytest.mark.parametrize("text", ["@", "@noon", "@12:00:11:00", "5:4", "soon"])
def test_what_is_no_spec(text: str) -> None:
    with pytest.raises(CommandFailed, match="--from") as failed:
        canonical("--from", text, NOW_US)
    assert failed.value.code is Exit.USAGE


def test_a_time_is_said_with_its_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert local(NOW_US + 5) == "2026-11-28 11:30:00.000005 +01:00"
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    assert local(NOW_US) == "2026-11-28 10:30:00 UTC"


@pytest.mark.parametrize(
    ("text", "means"),
    [("5s", 5), ("5", 5), ("500ms", 0.5), ("1.5m", 90), ("2h", 7200), ("", None), ("5x", None)],
)
def test_a_duration_in_seconds(text: str, means: float | None) -> None:
    assert seconds(text) == means
