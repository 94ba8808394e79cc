"""How long cursors wait for company, and what they go with."""

from __future__ import annotations

import pytest

from broker.documents import Operation
from broker.log.batch import Batch, nobody_waits
from broker.log.unhurried import CURSOR_WAIT_S, RIDE_S, Unhurried
from tests.support.clock import FakeClock


class GivesNothing:
    client_id = "sub1"

    def take_changes(self) -> list[Operation]:
        return []

    def committed(self) -> None:
        pass

    def not_committed(self) -> None:
        pass


class Wakes:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> None:
        self.times += 1


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def woken() -> Wakes:
    return Wakes()


@pytest.fixture
def unhurried(clock: FakeClock, woken: Wakes) -> Unhurried:
    return Unhurried(clock, woken)


def add(unhurried: Unhurried, source: GivesNothing, heard: list[str], name: str = "heard") -> None:
    unhurried.add(source, lambda error: heard.append(name), nobody_waits)


def test_after_a_while_they_go_with_others_and_at_last_alone(
    unhurried: Unhurried, clock: FakeClock, woken: Wakes
) -> None:
    add(unhurried, GivesNothing(), [])
    assert not unhurried.ride
    clock.advance(RIDE_S)
    assert (unhurried.ride, unhurried.due, woken.times) == (True, False, 0)
    clock.advance(CURSOR_WAIT_S - RIDE_S)
    assert (unhurried.ride, unhurried.due, woken.times) == (True, True, 1)


def test_the_wait_begins_with_the_first_of_them(
    unhurried: Unhurried, clock: FakeClock, woken: Wakes
) -> None:
    for _ in range(17):
        add(unhurried, GivesNothing(), [])
        clock.advance(CURSOR_WAIT_S / 16)
    assert woken.times == 1


def test_each_source_is_taken_once_and_its_last_callback_hears_of_it(
    unhurried: Unhurried, clock: FakeClock, woken: Wakes
) -> None:
    one, other, heard = GivesNothing(), GivesNothing(), list[str]()
    add(unhurried, one, heard, "before")
    add(unhurried, other, heard, "other")
    add(unhurried, one, heard, "one")
    clock.advance(RIDE_S)
    batch = Batch()
    batch.sources[other] = True
    unhurried.take(batch)
    assert batch.sources == {other: True, one: False}
    for append in batch.appends:
        assert append.on_committed is not None
        append.on_committed(None)
    assert sorted(heard) == ["one", "other"]
    assert (unhurried.ride, unhurried.due) == (False, False)
    clock.advance(60)
    assert woken.times == 0
    assert clock.timers == []


def test_who_cannot_wait_makes_them_go_at_once(unhurried: Unhurried, woken: Wakes) -> None:
    unhurried.hasten()
    assert (unhurried.due, woken.times) == (False, 0)
    add(unhurried, GivesNothing(), [])
    unhurried.hasten()
    assert (unhurried.ride, unhurried.due, woken.times) == (True, True, 1)
