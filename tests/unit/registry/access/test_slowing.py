"""Slowing: who is not read from, and until when."""

from __future__ import annotations

from broker.clock import Instant
from broker.message import Monotonic, WallUs
from broker.registry.access.slowing import PAUSE_S_MAX, Slowing


class Slow:
    def __init__(self, *, broken: bool = False) -> None:
        self.reasons: set[str] = set()
        self.errors: list[Exception] = []
        self._broken = broken

    def pause_reading(self, reason: str) -> None:
        self.reasons.add(reason)

    def resume_reading(self, reason: str) -> None:
        self.reasons.remove(reason)
        if self._broken:
            raise RuntimeError

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


def at(seconds: float) -> Instant:
    return Instant(Monotonic(seconds), WallUs(0))


def test_each_is_read_again_when_its_time_is_over() -> None:
    moved: list[None] = []
    slowing = Slowing(lambda: moved.append(None))
    first, second = Slow(), Slow()
    slowing.slow(first, 5.0, Monotonic(100))
    slowing.slow(second, 2.0, Monotonic(100))
    slowing.slow(second, 9.0, Monotonic(101))
    assert len(moved) == 2
    assert first.reasons == second.reasons == {"quota"}
    assert slowing.deadline() == Monotonic(102)
    slowing.expire(at(102))
    assert (first.reasons, second.reasons) == ({"quota"}, set())
    slowing.expire(at(105))
    assert first.reasons == set()
    assert slowing.deadline() is None


def test_no_pause_is_so_long_that_nobody_sees_that_the_client_is_gone() -> None:
    slowing = Slowing(lambda: None)
    slowing.slow(Slow(), 3600.0, Monotonic(0))
    assert slowing.deadline() == Monotonic(PAUSE_S_MAX)


def test_one_that_fails_keeps_no_other() -> None:
    slowing = Slowing(lambda: None)
    broken, other = Slow(broken=True), Slow()
    slowing.slow(broken, 1.0, Monotonic(0))
    slowing.slow(other, 1.0, Monotonic(0))
    slowing.expire(at(1))
    assert len(broken.errors) == 1
    assert other.reasons == set()
