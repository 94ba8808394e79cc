"""Batch: what waits for the next commit of the log, in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.documents import Operation, Place
from broker.errors import StoreError
from broker.message import Message

OnCommitted = Callable[[StoreError | None], None]
OnFailed = Callable[[Exception], None]
"""What to do about a mistake of ours. Raises nothing."""


class StateSource(Protocol):
    """Has state that is stored in the log's commits: a session."""

    def take_changes(self) -> list[Operation]:
        """The changes for the next commit. It returns each of them once."""
        ...

    def committed(self) -> None:
        """The changes that `take_changes` last returned are stored."""
        ...

    def not_committed(self) -> None:
        """They are not: `take_changes` must return them again."""
        ...


@dataclass(slots=True)
class Append:
    """One call of `append`, or of `changed` with a callback."""

    messages: Sequence[Message]
    operations: Sequence[Operation]
    size: int
    durable: bool
    keep_if_full: bool
    on_committed: OnCommitted | None
    failed: OnFailed
    place: Place | None = None
    unhurried: StateSource | None = None
    """The source of a call of `changed` that was not urgent."""


def tell(appends: Sequence[Append], error: StoreError | None) -> None:
    """Call back, in the order of the calls. A mistake of one's callback keeps nobody else's."""
    for append in appends:
        if append.on_committed is not None:
            try:
                append.on_committed(error)
            except Exception as mistake:
                append.failed(mistake)


class Batch:
    """Everything that waits for the next commit."""

    __slots__ = ("appends", "has_places", "size", "sources")

    def __init__(self) -> None:
        self.appends: list[Append] = []
        self.sources: dict[StateSource, bool] = {}
        """And whether its state must be in this commit."""
        self.size = 0
        self.has_places = False

    @property
    def empty(self) -> bool:
        return not (self.appends or self.sources)

    def put_off(self, sources_max: int) -> Batch:
        """The next batch: of the sources that may wait it has all but the first `sources_max`, and
        who wants to hear of them."""
        following = Batch()
        waiting = [source for source, must in self.sources.items() if not must]
        for source in waiting[sources_max:]:
            following.sources[source] = False
            del self.sources[source]
        appends, self.appends = self.appends, []
        for append in appends:
            batch = following if append.unhurried in following.sources else self
            batch.appends.append(append)
        return following


def places_among(appends: Sequence[Append]) -> list[Place]:
    """The places among these appends: after how many of their messages each lies."""
    places: list[Place] = []
    after = 0
    for append in appends:
        if append.place is not None:
            append.place.after = after
            places.append(append.place)
        after += len(append.messages)
    return places
