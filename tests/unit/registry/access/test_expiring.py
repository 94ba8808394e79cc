"""Connections whose time runs out, by a wall clock that may jump."""

from __future__ import annotations

from broker.clock import US, Instant
from broker.errors import PeerError
from broker.message import Monotonic, WallUs
from broker.registry.access.expiring import LOOK_S, STALE_MAX, TAKEN_AT_ONCE_MAX, Expiring


class Present:
    def dismiss(self, error: PeerError) -> None: ...


def at(wall_s: float, monotonic_s: float | None = None) -> Instant:
    """The clocks are together, unless one has jumped."""
    seconds = wall_s if monotonic_s is None else monotonic_s
    return Instant(Monotonic(seconds), WallUs(int(wall_s * US)))


def test_the_soonest_is_the_deadline_and_is_taken_once() -> None:
    told: list[int] = []
    expiring, one, other = Expiring(lambda: told.append(1)), Present(), Present()
    assert expiring.deadline() is None
    expiring.add(one, 20, at(0))
    expiring.add(other, 10, at(0))
    assert expiring.deadline() == Monotonic(10)
    assert len(told) == 2
    assert expiring.take_due(at(9)) == []
    assert expiring.take_due(at(10)) == [other]
    assert expiring.deadline() == Monotonic(20)
    assert expiring.take_due(at(30)) == [one]
    assert expiring.deadline() is None


def test_a_jump_of_the_wall_clock_counts_at_the_next_look() -> None:
    expiring, one = Expiring(lambda: None), Present()
    expiring.add(one, 3600, at(0))
    assert expiring.deadline() == Monotonic(LOOK_S)
    assert expiring.take_due(at(LOOK_S)) == []
    assert expiring.deadline() == Monotonic(2 * LOOK_S)
    assert expiring.take_due(at(-9000, 2 * LOOK_S)) == [], (
        "set back: it may stay as long as it says"
    )
    assert expiring.take_due(at(3599, 3 * LOOK_S)) == []
    assert expiring.deadline() == Monotonic(3 * LOOK_S + 1)
    assert expiring.take_due(at(9000, 3 * LOOK_S + 1)) == [one]


def test_who_is_gone_is_not_taken_and_leaves_nothing_behind() -> None:
    expiring = Expiring(lambda: None)
    for _ in range(3 * STALE_MAX):
        one = Present()
        expiring.add(one, 10, at(0))
        expiring.remove(one)
    assert len(expiring._heap) <= STALE_MAX + 1
    assert expiring.deadline() is None
    assert expiring.take_due(at(99)) == []


def test_who_comes_again_has_the_later_time() -> None:
    expiring, one = Expiring(lambda: None), Present()
    expiring.add(one, 10, at(0))
    expiring.add(one, 20, at(0))
    assert expiring.deadline() == Monotonic(20)
    assert expiring.take_due(at(10)) == []


def test_many_are_taken_in_parts() -> None:
    expiring = Expiring(lambda: None)
    for _ in range(2 * TAKEN_AT_ONCE_MAX):
        expiring.add(Present(), 10, at(0))
    assert len(expiring.take_due(at(10))) == TAKEN_AT_ONCE_MAX
    assert expiring.deadline() == Monotonic(10)
