"""Flapping: who connects over and over has to wait."""

from __future__ import annotations

import sys

import pytest

from broker.message import Monotonic
from broker.registry.access.flapping import (
    FORGOTTEN_AFTER_S,
    FREE,
    IDENTIFIERS_MAX,
    PAUSE_S,
    WAIT_MAX_S,
    Flapping,
)


def test_who_connects_over_and_over_comes_once_a_second(caplog: pytest.LogCaptureFixture) -> None:
    flapping, now = Flapping(), Monotonic(100)
    assert [flapping.wait_s("u", "a", now) for _ in range(FREE)] == [0.0] * FREE
    assert flapping.wait_s("u", "b", now) == 0
    assert caplog.messages == []
    assert [flapping.wait_s("u", "a", now) for _ in range(3)] == [PAUSE_S, 2 * PAUSE_S, 3 * PAUSE_S]
    assert len(caplog.messages) == 1
    assert max(flapping.wait_s("u", "a", now) for _ in range(100)) == WAIT_MAX_S
    later = Monotonic(now + WAIT_MAX_S + FORGOTTEN_AFTER_S / 2)
    assert flapping.wait_s("u", "a", later) == PAUSE_S, "it has not paused"
    assert flapping.wait_s("u", "a", Monotonic(later + FORGOTTEN_AFTER_S + 0.1)) == 0


def test_only_a_pause_ends_it() -> None:
    flapping, now = Flapping(), 100.0
    for _ in range(FREE):
        flapping.wait_s("u", "a", Monotonic(now))
    for _ in range(10):
        now += FORGOTTEN_AFTER_S / 2
        assert flapping.wait_s("u", "a", Monotonic(now)) == PAUSE_S


def test_who_comes_as_another_user_makes_nobody_wait() -> None:
    flapping, now = Flapping(), Monotonic(100)
    assert [flapping.wait_s("mallory", "a", now) for _ in range(2 * FREE)][-1] > 0
    assert flapping.wait_s("anna", "a", now) == 0


def test_who_connects_now_and_then_never_waits() -> None:
    flapping = Flapping()
    assert not any(flapping.wait_s("u", "a", Monotonic(0.5 * n)) for n in range(1000))


def test_who_leaves_with_disconnect_never_waits() -> None:
    """A loop of commands, each under the same name."""
    flapping, now = Flapping(), Monotonic(0)
    for _ in range(3 * FREE):
        assert flapping.wait_s("u", "a", now) == 0
        flapping.left("u", "a")
    flapping.left("u", "unknown")
    assert not any(flapping.wait_s("u", "a", now) for _ in range(FREE))
    assert flapping.wait_s("u", "a", now) > 0, "no more than it came is taken back"


def test_a_long_identifier_is_not_kept() -> None:
    flapping, long = Flapping(), "x" * 65_535
    before = sys.getrefcount(long)
    flapping.wait_s("u", long, Monotonic(0))
    assert sys.getrefcount(long) == before


def test_what_is_kept_of_identifiers_is_bounded() -> None:
    flapping, now = Flapping(), Monotonic(0)
    for _ in range(FREE):
        flapping.wait_s("u", "first", now)
    for n in range(IDENTIFIERS_MAX):
        flapping.wait_s("u", str(n), now)
    assert len(flapping._by_identifier) == IDENTIFIERS_MAX
    assert flapping.wait_s("u", "first", now) == 0, "it was forgotten"
