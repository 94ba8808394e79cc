"""Which commits the event loop makes itself: by what a hand-over takes, and what a commit took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest

from broker.documents import Delete, Operation, Put, SessionDocument
from broker.message import Message
from broker.store.sqlite.in_loop import (
    HAND_OVERS,
    SAMPLES_MAX,
    SAMPLES_MIN,
    SLOW_PAUSE_S,
    SLOW_S,
    SMALL_BYTES_MAX,
    SMALL_MAX,
    STALLED_PAUSE_MAX_S,
    STALLED_PAUSE_S,
    STALLED_S,
    InLoop,
)
from tests.support.clock import FakeClock
from tests.support.messages import message, numbered

COMMIT_S = 0.0004
HAND_OVER_S = 0.0001


@dataclass
class Commit:
    """How long it took, and how much of that it waited for a CPU."""

    took_s: float
    late_s: float = 0.0


def in_loop(clock: FakeClock, *, commit_s: float, hand_over_s: float = HAND_OVER_S) -> InLoop:
    """After so many commits in the writer's thread that took so long."""
    found = InLoop(clock.monotonic)
    for _ in range(SAMPLES_MIN):
        found.handed_over(commit_s + hand_over_s, Commit(commit_s), durable=True)
    return found


def suits(found: InLoop, *, durable: bool = True) -> bool:
    return found.suits([message()], [], durable=durable)


@pytest.mark.parametrize("hand_over_s", [0.00001, 0.0001, 0.001])
def test_what_is_quick_goes_by_what_a_hand_over_takes_here(hand_over_s: float) -> None:
    limit_s = HAND_OVERS * hand_over_s
    assert suits(in_loop(FakeClock(), commit_s=limit_s * 0.9, hand_over_s=hand_over_s))
    assert not suits(in_loop(FakeClock(), commit_s=limit_s * 1.1, hand_over_s=hand_over_s))


def test_nothing_is_known_before_a_few_were_handed_over() -> None:
    found = InLoop(FakeClock().monotonic)
    for _ in range(SAMPLES_MIN - 1):
        found.handed_over(COMMIT_S, Commit(COMMIT_S / 2), durable=True)
        assert not suits(found)


def test_commits_with_and_without_an_fsync_are_known_apart() -> None:
    found = in_loop(FakeClock(), commit_s=1.0)
    for _ in range(SAMPLES_MIN):
        found.handed_over(HAND_OVER_S * 2, Commit(HAND_OVER_S), durable=False)
    assert suits(found, durable=False)
    assert not suits(found)


def test_one_commit_that_was_late_does_not_make_a_slow_disk() -> None:
    found = in_loop(FakeClock(), commit_s=HAND_OVER_S)
    for _ in range(SAMPLES_MAX):
        found.made(Commit(HAND_OVER_S), durable=True)
    found.made(Commit(SLOW_S * 0.9), durable=True)
    assert suits(found)


def test_a_disk_that_becomes_slower_is_noticed_and_one_that_recovers_too() -> None:
    found = in_loop(FakeClock(), commit_s=HAND_OVER_S)
    for _ in range(SAMPLES_MAX):
        found.made(Commit(2 * HAND_OVERS * HAND_OVER_S), durable=True)
    assert not suits(found)
    for _ in range(2 * SAMPLES_MAX):
        found.handed_over(2 * HAND_OVER_S, Commit(HAND_OVER_S), durable=True)
    assert suits(found)


@pytest.mark.parametrize(
    ("batch", "state"),
    [
        (numbered(SMALL_MAX + 1), []),
        ([message(bytes(SMALL_BYTES_MAX + 1))], []),
        ([message(properties=bytes(SMALL_BYTES_MAX + 1))], []),
        ([], [Put(SessionDocument(str(n), 1, 1, None)) for n in range(SMALL_MAX + 1)]),
        ([], [Delete(SessionDocument, ("with all its subscriptions",))]),
    ],
)
def test_what_is_large_is_handed_over(batch: Sequence[Message], state: list[Operation]) -> None:
    found = in_loop(FakeClock(), commit_s=HAND_OVER_S)
    assert suits(found)
    assert not found.suits(batch, state, durable=True)


def quick_again_after(clock: FakeClock, found: InLoop) -> float:
    """Seconds until the loop commits again; meanwhile the disk is quick in the thread."""
    for _ in range(SAMPLES_MAX * 20):
        found.handed_over(2 * HAND_OVER_S, Commit(HAND_OVER_S), durable=True)
    waited_s = 0.0
    while not suits(found):
        clock.advance(30)
        waited_s += 30
    return waited_s


def test_after_a_slow_commit_small_ones_leave_the_loop_for_a_minute() -> None:
    clock = FakeClock()
    found = in_loop(clock, commit_s=HAND_OVER_S)
    for _ in range(3):
        found.made(Commit(SLOW_S * 1.1), durable=False)
        assert not suits(found)
        assert quick_again_after(clock, found) == SLOW_PAUSE_S


def test_each_commit_that_hung_keeps_them_out_twice_as_long_from_an_hour_on() -> None:
    """No turn of the loop is over 50 ms: what the disk did once, it does again."""
    clock = FakeClock()
    found = in_loop(clock, commit_s=HAND_OVER_S)
    for doubled in (1, 2, 4):
        found.made(Commit(STALLED_S * 1.1), durable=True)
        assert quick_again_after(clock, found) == STALLED_PAUSE_S * doubled
    for _ in range(20):
        found.made(Commit(STALLED_S * 1.1), durable=True)
    assert quick_again_after(clock, found) == STALLED_PAUSE_MAX_S


def test_what_waited_for_a_cpu_is_not_held_against_the_disk() -> None:
    """Others use the machine's CPUs: in the writer's thread a commit would be no earlier."""
    clock = FakeClock()
    late = Commit(took_s=STALLED_S * 2, late_s=STALLED_S * 2 - HAND_OVER_S)
    found = InLoop(clock.monotonic)
    for _ in range(SAMPLES_MIN):
        found.handed_over(late.took_s + HAND_OVER_S, late, durable=True)
    for _ in range(SAMPLES_MAX):
        assert suits(found)
        found.made(late, durable=True)
    found.made(Commit(took_s=STALLED_S * 2, late_s=STALLED_S / 2), durable=True)
    assert quick_again_after(clock, found) == STALLED_PAUSE_S
