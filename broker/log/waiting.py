"""Waiting: what clients have handed over and the log has not stored, for an operator who asks."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from broker.errors import StoreBusy, StoreError, StoreFull
from broker.log.batch import Batch
from broker.plural import counted

WHY: dict[type[StoreError], str] = {StoreFull: "full", StoreBusy: "locked by another program"}


@dataclass(frozen=True, slots=True)
class Waiting:
    messages: int
    """QoS 1 and 2 among them are not acknowledged."""
    sessions: int
    """That have changed: what they acknowledged, what they are subscribed to."""
    disk: str | None
    """Why the disk takes nothing now; None: it does."""

    @classmethod
    def of(cls, batches: Iterable[Batch | None], outage: type[StoreError] | None) -> Waiting:
        there = [batch for batch in batches if batch is not None]
        return cls(
            sum(batch.message_count for batch in there),
            len({source for batch in there for source in batch.sources}),
            None if outage is None else WHY[outage],
        )

    def __str__(self) -> str:
        what = f"{counted(self.messages, 'message')}, and changes of"
        said = f"{what} {counted(self.sessions, 'session')}"
        return said if self.disk is None else f"{said}: the disk is {self.disk}"
