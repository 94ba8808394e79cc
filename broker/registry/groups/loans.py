"""Loans: what the broker of a group and those where its workers are tell each other, as text.

Both go through the shared log, as documents: a `LoanDocument` has the leases that workers at one
broker were given, a `ReportDocument` what became of such leases.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from enum import IntEnum
from itertools import count
from typing import NamedTuple

from broker.documents import Operation, Put
from broker.documents.queues import ReportDocument
from broker.message import Offset, ServedUs

NO_ROW = ServedUs(0)


class Loaned(NamedTuple):
    """A lease of the worker that joined as `number`, under the Packet Identifier that the broker of
    the group has given it. `due_at_us`: of the row of a retry; NO_ROW: it is none. `gaps`: offsets
    that are missing before it, from each first one to the one behind the last."""

    number: int
    packet_id: int
    offset: Offset
    attempt: int
    due_at_us: ServedUs = NO_ROW
    gaps: Sequence[Sequence[int]] = ()


class Said(IntEnum):
    """What a worker, or its broker, says of leases, or of itself."""

    DONE = 1
    REFUSED = 2
    """With the reason."""
    UNSENT = 3
    """They waited for the worker, and are another's."""
    UNFIT = 4
    """The worker cannot have these, or may not."""
    STALLED = 5
    """It takes nothing more until it is READY."""
    READY = 6
    LEFT = 7
    """It has unsubscribed, and finishes what it has."""
    AGAIN = 8
    """It has subscribed again before it had finished."""
    GONE = 9
    """It has nothing any more. With the lease that it was lost with, if it was lost."""
    HELD = 10
    """As GONE: its broker stops, so it is to have again what it had."""


class Word(NamedTuple):
    said: Said
    number: int
    packet_ids: list[int]
    why: str = ""

    def add(self, packet_ids: Iterable[int]) -> None:
        """The same is said of these."""
        self.packet_ids.extend(packet_ids)


def encode(rows: Sequence[Loaned] | Sequence[Word]) -> str:
    return json.dumps(rows, separators=(",", ":"))


def loaned(text: str) -> list[Loaned]:
    return [Loaned(*row) for row in json.loads(text)]


def words(text: str) -> list[Word]:
    return [Word(Said(said), *rest) for said, *rest in json.loads(text)]


class Reports:
    """About one group, for its broker: a StateSource."""

    def __init__(self, group: str, broker: str, numbers: count[int]) -> None:
        self.client_id = group
        self.words: list[Word] = []
        self._broker = broker
        self._numbers = numbers
        self._taken: list[Word] = []

    def add(self, word: Word) -> None:
        last = self.words[-1] if self.words else None
        if last is not None and (last.said, last.number) == (Said.DONE, word.number) == word[:2]:
            last.add(word.packet_ids)
        else:
            self.words.append(word)

    @property
    def not_stored(self) -> list[Word]:
        return [*self._taken, *self.words]

    def take_changes(self) -> list[Operation]:
        self._taken, self.words = self.words, []
        if not self._taken:
            return []
        report = encode(self._taken)
        return [Put(ReportDocument(self.client_id, self._broker, next(self._numbers), report))]

    def committed(self) -> None:
        self._taken = []

    def not_committed(self) -> None:
        self.words, self._taken = self.not_stored, []
