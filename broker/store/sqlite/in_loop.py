"""InLoop: which commits the event loop makes itself, and does not hand over to the writer's thread.

To hand a commit over, and to hear that it is done, takes the loop a while, whatever the disk does.
So a small commit is made in the loop where the disk is quick: where it takes no longer than
HAND_OVERS times that. Both are measured while the broker runs, on this machine and this disk.

While the loop commits, everybody waits. So once that took long, small commits leave the loop for a
while: then only the first one that hangs holds up the others.

What counts is the disk. While others use the machine's CPUs, a commit is late in either thread; the
time in which it waited for a CPU (`stop_watch.py`) is none of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from broker.documents import Delete, Operation
from broker.message import Message

SMALL_MAX = 64
SMALL_BYTES_MAX = 1 << 16
"""A small commit has at most so many messages and operations, and bytes of messages."""

HAND_OVERS = 8
"""How many times as long as a hand-over a commit may take in the loop. A hand-over takes 0.08 ms on
a machine with two cores, and the loop is held up longer by what it does for 50 messages."""
SAMPLES_MIN = 8
"""Commits that were handed over, before the first is made in the loop."""
SAMPLES_MAX = 32
"""An average is over about so many."""

OUTLIER = 4.0

SLOW_S = 0.005
SLOW_PAUSE_S = 60.0
"""After a commit in the loop that took longer than SLOW_S, none is made there for so long."""
STALLED_S = 0.05
STALLED_PAUSE_S = 3600.0
STALLED_PAUSE_MAX_S = 30 * 86_400.0
"""The same for one that took longer than STALLED_S. Each time that it happens again doubles it."""


class Timed(Protocol):
    """A commit: how long it took, and how much of that it waited for a CPU."""

    @property
    def took_s(self) -> float: ...

    @property
    def late_s(self) -> float: ...


class InLoop:
    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock`: monotonic seconds."""
        self._clock = clock
        self._hand_over = _Average()
        self._commits = {True: _Average(), False: _Average()}
        """Of small commits, fsynced ones and the others."""
        self._not_before = clock()
        self._stalled_pause_s = STALLED_PAUSE_S

    def suits(self, batch: Sequence[Message], state: Sequence[Operation], *, durable: bool) -> bool:
        """Whether to make this commit in the loop."""
        commit, hand_over = self._commits[durable], self._hand_over
        return (
            commit.samples >= SAMPLES_MIN
            and commit.mean <= HAND_OVERS * hand_over.mean
            and is_small(batch, state)
            and self._clock() >= self._not_before
        )

    def made(self, commit: Timed, *, durable: bool) -> None:
        """This commit was made in the loop."""
        took_s = commit.took_s - commit.late_s
        self._commits[durable].add(took_s)
        if took_s > STALLED_S:
            self._not_before = self._clock() + self._stalled_pause_s
            self._stalled_pause_s = min(2 * self._stalled_pause_s, STALLED_PAUSE_MAX_S)
        elif took_s > SLOW_S:
            self._not_before = self._clock() + SLOW_PAUSE_S

    def handed_over(self, took_s: float, commit: Timed, *, durable: bool) -> None:
        """This small commit was made in the writer's thread; the loop heard after `took_s`."""
        self._commits[durable].add(commit.took_s - commit.late_s)
        self._hand_over.add(took_s - commit.took_s)


def is_small(batch: Sequence[Message], state: Sequence[Operation]) -> bool:
    """A Delete may remove many documents, so it is not."""
    if len(batch) == 1 and not state:
        return batch[0].size <= SMALL_BYTES_MAX
    return (
        len(batch) + len(state) <= SMALL_MAX
        and (not state or Delete not in map(type, state))
        and sum([message.size for message in batch]) <= SMALL_BYTES_MAX
    )


class _Average:
    """Of the newest values. One that is far above the others counts as OUTLIER times the mean."""

    def __init__(self) -> None:
        self.samples = 0
        self.mean = 0.0

    def add(self, value: float) -> None:
        if self.samples < SAMPLES_MAX:
            self.samples += 1
        if self.samples > SAMPLES_MIN:
            value = min(value, OUTLIER * self.mean)
        self.mean += (value - self.mean) / self.samples
