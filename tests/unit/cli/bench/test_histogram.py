"""Histogram: quantiles within a percent, and no duration forgotten."""

from __future__ import annotations

import random

import pytest

from cli.bench.histogram import Histogram


def histogram(*durations_us: int) -> Histogram:
    filled = Histogram()
    for duration_us in durations_us:
        filled.add(duration_us)
    return filled


@pytest.mark.parametrize("part", [0.0, 0.5, 0.9, 0.99, 0.999, 1.0])
def test_quantiles_are_within_a_percent_and_never_too_low(part: float) -> None:
    random.seed(3)
    durations = sorted(int(random.lognormvariate(7, 2)) for _ in range(5000))
    exact = durations[max(0, round(part * len(durations)) - 1)]
    assert exact <= histogram(*durations).quantile_us(part) <= exact * 1.01


def test_short_durations_are_exact() -> None:
    assert [histogram(*range(256)).quantile_us((n + 1) / 256) for n in range(256)] == [*range(256)]


def test_a_count_counts_as_often() -> None:
    filled = histogram(10)
    filled.add(1000, 3)
    assert (filled.count, filled.quantile_us(0.25), filled.quantile_us(0.26)) == (4, 10, 1000)
    rows = list(filled.buckets())
    assert rows[0] == (20, 1)
    assert rows[-1] == (2000, 3)
    assert {count for _, count in rows[1:-1]} == {0}


def test_the_largest_is_exact_and_in_the_last_bucket() -> None:
    filled = histogram(123_457, 5)
    assert filled.max_us == filled.quantile_us(1.0) == 123_457
    rows = list(filled.buckets())
    assert (rows[0], rows[-1]) == ((10, 1), (200_000, 1))


def test_nothing_counted() -> None:
    assert (Histogram().count, Histogram().quantile_us(0.99)) == (0, 0)
