"""Commit: one batch on its way into the store: what is stored, and who hears of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from itertools import chain

from broker.counters import Counters
from broker.documents import Operation
from broker.log.batch import Batch, StateSource, tell
from broker.message import Message

SourceFailed = Callable[[StateSource, Exception], None]
"""Called with a source that raised something. Raises nothing."""


logger = logging.getLogger(__name__)


def leave_out(source: StateSource, error: Exception) -> None:
    logger.critical("%r is left out of a commit", source, exc_info=error)


class Commit:
    __slots__ = (
        "batch",
        "durable",
        "error",
        "messages",
        "moved",
        "noted",
        "operations",
        "places",
        "source_failed",
        "sources",
        "writes",
    )

    def __init__(self, batch: Batch, source_failed: SourceFailed) -> None:
        """Take the changes of the batch's sources. A source that cannot give them is left out."""
        appends = batch.appends
        self.batch = batch
        self.source_failed = source_failed
        self.error: Exception | None = None
        """Why it could not be stored at once."""
        self.messages: Sequence[Message]
        self.operations: list[Operation]
        if len(appends) == 1:
            self.messages, self.operations = appends[0].messages, [*appends[0].operations]
        else:
            self.messages = [*chain.from_iterable([append.messages for append in appends])]
            self.operations = [*chain.from_iterable([append.operations for append in appends])]
        self.places = batch.commit_begins() if batch.has_places or batch.qos0_size else []
        self.sources: list[StateSource] = []
        """Those whose changes are among the operations."""
        for source in [*batch.sources]:
            try:
                self.operations += source.take_changes()
                self.sources.append(source)
            except Exception as error:
                del batch.sources[source]
                self.source_failed(source, error)
                self._not_committed(source)
        self.moved = bool(self.operations)
        """Whether it stores Session State, such as cursors."""
        self.noted = False
        """Whether a note of the log's time is among the operations."""
        self.durable = batch.durable
        for part in batch.handed:
            self.places += part.places
        self.writes = bool(self.messages or self.operations)
        """Whether there is anything to do for the store."""

    def note(self, time: Operation) -> None:
        """Store the log's time, too."""
        self.operations.append(time)
        self.noted = self.writes = True

    def committed(self, counters: Counters) -> None:
        """It is stored: tell sources and callbacks."""
        for part in self.batch.handed:
            part.committed()
        counters.commits += 1
        counters.messages_in += len(self.messages)
        counters.payload_bytes_in += sum(map(len, [m.payload for m in self.messages]))
        for source in self.sources:
            try:
                source.committed()
            except Exception as error:
                self.source_failed(source, error)
        tell(self.batch.appends, None)

    def not_committed(self) -> None:
        """It is not: its sources have to give their changes again."""
        for part in self.batch.handed:
            part.not_committed()
        for source in self.sources:
            self._not_committed(source)

    def _not_committed(self, source: StateSource) -> None:
        try:
            source.not_committed()
        except Exception as error:
            self.source_failed(source, error)
