"""MemoryContent: what a store in memory has: messages by offset, which are retained, documents."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from broker.documents import D, Operation, Place, fill_in
from broker.errors import StoreUnavailable
from broker.message import Message, Offset
from broker.store.memory_documents import Documents, applied, held


class MemoryContent:
    def __init__(self, gaps: int) -> None:
        """`gaps`: offsets left out before each append, as S2 allows."""
        self.gaps = gaps
        self.log: list[Message] = []
        """In the order of offsets."""
        self.retained: dict[str, Message] = {}
        self.documents: Documents = {}
        self.high_watermark = Offset(0)
        self.log_start = Offset(1)
        self.is_open = False

    def require_open(self) -> None:
        """Raises StoreUnavailable."""
        if not self.is_open:
            raise StoreUnavailable("the store is not open")

    def append(
        self, batch: Sequence[Message], state: Sequence[Operation], places: Sequence[Place]
    ) -> None:
        """Raises StoreConflict."""
        first = self.high_watermark + 1 + (self.gaps if batch else 0)
        fill_in(state, places, self.high_watermark, first)
        self.documents = applied(self.documents, state)
        for offset, message in enumerate(batch, first):
            self.high_watermark = message.offset = Offset(offset)
            self.log.append(message)
            if message.retain and message.payload:
                self.retained[message.topic] = message
            elif message.retain:
                self.retained.pop(message.topic, None)

    def between(self, start: Offset, end: Offset) -> list[Message]:
        """The messages start..end."""
        first = bisect_left(self.log, start, key=lambda message: message.offset)
        last = bisect_left(self.log, end + 1, key=lambda message: message.offset)
        return self.log[first:last]

    def take_out(self, unwanted: Callable[[Message], bool]) -> int:
        """Remove these messages, but for what is held; how many."""
        kept = {message.offset for message in self.retained.values()} | held(self.documents)
        before = len(self.log)
        self.log = [m for m in self.log if m.offset in kept or not unwanted(m)]
        return before - len(self.log)

    def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        """Copies of the documents of this class whose key begins so, in the order of their keys."""
        of_kind = {k: found for (of, k), (found, _) in self.documents.items() if of is kind}
        found: Any = [replace(of_kind[k]) for k in sorted(of_kind) if k[: len(key)] == key]
        return found  # type: ignore[no-any-return]
