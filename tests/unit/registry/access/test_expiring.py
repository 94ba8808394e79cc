"""Connections whose time runs out."""

from __future__ import annotations

from broker.errors import PeerError
from broker.message import Monotonic
from broker.registry.access.expiring import STALE_MAX, TAKEN_AT_ONCE_MAX, Expiring


class Present:
    def dismiss(self, error: PeerError) -> None: ...


def at(second: float) -> Monotonic:
    return Monotonic(second)


def test_the_soonest_is_the_deadline_and_is_taken_once() -> None:
    told: list[int] = []
    expiring, one, other = Expiring(lambda: told.append(1)), Present(), Present()
    assert expiring.deadline() is None
    expiring.add(one, at(20))
    expiring.add(other, at(10))
    assert expiring.deadline() == at(10)
    assert len(told) == 2
    assert expiring.take_due(at(9)) == []
    assert expiring.take_due(at(10)) == [other]
    assert expiring.deadline() == at(20)
    assert expiring.take_due(at(30)) == [one]
    assert expiring.deadline() is None


def test_who_is_gone_is_not_taken_and_leaves_nothing_behind() -> None:
    expiring = Expiring(lambda: None)
    for _ in range(3 * STALE_MAX):
        one = Present()
        expiring.add(one, at(10))
        expiring.remove(one)
    assert len(expiring._heap) <= STALE_MAX + 1
    assert expiring.deadline() is None
    assert expiring.take_due(at(99)) == []


def test_who_comes_again_has_the_later_time() -> None:
    expiring, one = Expiring(lambda: None), Present()
    expiring.add(one, at(10))
    expiring.add(one, at(20))
    assert expiring.deadline() == at(20)
    assert expiring.take_due(at(10)) == []


def test_many_are_taken_in_parts() -> None:
    expiring = Expiring(lambda: None)
    for _ in range(2 * TAKEN_AT_ONCE_MAX):
        expiring.add(Present(), at(10))
    assert len(expiring.take_due(at(10))) == TAKEN_AT_ONCE_MAX
    assert expiring.deadline() == at(10)
