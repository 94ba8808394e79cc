"""How many lines are shown, what is said of the others, and what they cost."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from cli.process.repeats import (
    LEFT_OUT_MAX,
    LINES_ABOUT_ONE_MAX,
    LINES_OF_A_KIND_MAX,
    WINDOW_S,
    Repeats,
)


def record(line: int, *args: object) -> logging.LogRecord:
    return logging.LogRecord("broker.x", logging.INFO, "x.py", line, "client %r", args, None)


def shown(repeats: Repeats, records: list[logging.LogRecord], now: float = 0.0) -> int:
    return sum([repeats.shows(each, now) for each in records])


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    logger = logging.getLogger("broker.x")
    logger.setLevel("DEBUG")
    yield logger
    logger.setLevel(logging.NOTSET)


def test_one_client_is_told_of_a_few_times_and_hides_nobody() -> None:
    repeats = Repeats()
    again = [record(1, "a") for _ in range(1000)]
    assert shown(repeats, again) == LINES_ABOUT_ONE_MAX
    assert shown(repeats, [record(1, "b"), record(2, "a")]) == 2
    [left_out] = repeats.end_window()
    assert (left_out.last, left_out.count) == (again[-1], 1000 - LINES_ABOUT_ONE_MAX)
    assert not left_out.at_least


def test_many_clients_are_told_of_up_to_a_bound_and_other_lines_are_shown() -> None:
    repeats = Repeats()
    many = [record(1, f"client{number}") for number in range(1000)]
    assert shown(repeats, many) == LINES_OF_A_KIND_MAX
    assert shown(repeats, [record(2, "the disk")]) == 1
    [left_out] = repeats.end_window()
    assert (left_out.last, left_out.count) == (many[-1], 1000 - LINES_OF_A_KIND_MAX)


def test_lines_about_nobody_are_bounded_too() -> None:
    assert shown(Repeats(), [record(1) for _ in range(100)]) == LINES_ABOUT_ONE_MAX
    numbers = [record(1, number) for number in range(100)]
    assert shown(Repeats(), numbers) == LINES_ABOUT_ONE_MAX


def test_a_window_ends_and_another_begins_with_the_next_line() -> None:
    repeats = Repeats()
    assert repeats.ends_at is None
    shown(repeats, [record(1, "a") for _ in range(9)], now=5.0)
    assert repeats.ends_at == 5.0 + WINDOW_S
    assert len(repeats.end_window()) == 1
    assert repeats.ends_at is None
    assert repeats.end_window() == []
    assert shown(repeats, [record(1, "a")], now=99.0) == 1


def test_a_flood_is_not_listened_to_until_the_window_ends(logger: logging.Logger) -> None:
    """Whoever it comes from: what it costs is bounded."""
    repeats = Repeats()
    shown(repeats, [record(2, "a")] * (LINES_ABOUT_ONE_MAX + 1))
    shown(repeats, [record(1, f"{number}") for number in range(LINES_OF_A_KIND_MAX)])
    for number in range(LEFT_OUT_MAX):
        assert logger.isEnabledFor(logging.INFO)
        repeats.shows(record(1, f"client{number}"), 0.0)
    assert not logger.isEnabledFor(logging.INFO)
    assert logger.isEnabledFor(logging.WARNING)
    other, left_out = sorted(repeats.end_window(), key=lambda each: each.count)
    assert (left_out.count, left_out.at_least) == (LEFT_OUT_MAX, True)
    assert (other.count, other.at_least) == (1, True), "its later ones were not heard either"
    assert logger.level == logging.DEBUG
