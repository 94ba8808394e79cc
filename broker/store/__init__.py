"""The Store contract: the log and the documents beside it. Knows messages and offsets, not MQTT.

`memory.py` is the reference and the test model, `sqlite/` the default; one suite,
`tests/unit/store/test_contract.py`, holds every store to these clauses:

- **S1** `append` resolves only when every message of the batch and every operation given with it
  is committed, and with `durable=True` fsynced; all of it or nothing. It sets `Message.offset`.
- **S2** Offsets rise in commit order and are never reused, also after `trim` removed everything
  and after a crash. They need not be consecutive.
- **S3** `tail` yields every committed batch once, in order, ours and others', and only after its
  commit; `Skipped` only where `trim` passed the reader.
- **S4** `read` returns matching messages in offset order and says how far it looked.
- **S5** A message with `retain` set becomes its topic's retained message, one with an empty payload
  removes it, in the same transaction. A retained message outlives `trim`. [MQTT-3.3.1-5..7]
- **S6** Documents are read as they were last committed. `transact` is all or nothing.
- **S7** A failed call stored nothing that a later call would show, or raises `StoreUnavailable`,
  after which nothing more may be written until the store was opened again.
- **S8** What `read` returns is bit for bit what was appended, or it raises `StoreCorrupt`.
- **S9** `open` does not read the backlog: its time does not grow with the number of messages.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from broker.documents import D, Document, Operation
from broker.message import Message, Offset


@dataclass(slots=True)
class Skipped:
    """Retention removed `first`..`last` before the reader of `tail` came to them."""

    first: Offset
    last: Offset


@dataclass(slots=True)
class Read:
    """`messages` match; everything below `next` has been looked at."""

    messages: list[Message]
    next: Offset


@dataclass(slots=True)
class StoreStats:
    engine: str
    high_watermark: Offset
    log_start: Offset
    messages: int
    """From the log start to the high watermark."""
    retained: int
    """Topics that have a retained message."""
    bytes_on_disk: int


class Store(Protocol):
    """See the module. Every call may raise StoreUnavailable; `open` also SchemaMismatch."""

    @property
    def high_watermark(self) -> Offset:
        """The newest committed offset; 0 for a log that never held one."""
        ...

    @property
    def log_start(self) -> Offset:
        """The oldest offset that may still be there; 1 for a fresh log."""
        ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
    ) -> None:
        """Commit messages and state together (S1), setting each message's offset, in order.

        `state` is done in its order. Raises StoreFull, StoreUnavailable, StoreConflict (a revision
        was not the expected one, or the SessionDocument is missing to which a subscription, a
        cursor or QoS 2 identifiers belong): then nothing was stored (S7). An append whose caller
        is cancelled may still be stored, and shows at the latest with the next one.
        """
        ...

    def tail(self, start: Offset) -> AsyncIterator[Sequence[Message] | Skipped]:
        """Every message from `start` on, in batches, until `close` (S3). Batches are read-only."""
        ...

    async def read(
        self,
        start: Offset,
        end: Offset,
        filters: Sequence[str] | None = None,
        *,
        limit: int = 1000,
        bytes_max: int = 1 << 20,
    ) -> Read:
        """Messages in start..end (closed) that match any filter (None: all), oldest first.

        Stops after `limit` messages or when their sizes reach `bytes_max` (at least one is
        returned), or after looking at much that does not match: `next` says where to go on, and
        is above `end`, or the high watermark, when there is no more. Reading begins at the log
        start if `start` is below it; who must know what `trim` took looks at `log_start` after.
        """
        ...

    async def fetch(
        self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize
    ) -> list[Message]:
        """Exactly these messages, oldest first; without those that are gone. At most 100,000.

        Stops when their sizes reach `bytes_max`: what is above the last of them may be there too.
        A retained message is there also below the log start.
        """
        ...

    async def offset_at(self, time_us: int) -> Offset:
        """The first offset published at or after `time_us`; high watermark + 1 if none is.

        About right where the clock was set back.
        """
        ...

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        """The offset from which `count` matching messages remain; the log start if fewer do, and
        high watermark + 1 for none."""
        ...

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        """Where the retained messages of all topics that match any filter are, in order (S5)."""
        ...

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None: ...

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        """1 at a document's first Put, +1 at each following; 0 if there is none."""
        ...

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        """Every document of a class whose key begins with `key`, in key order."""
        ...

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        """As `scan` of each class in turn, but all as of one moment. For what belongs together."""
        ...

    async def transact(self, operations: Sequence[Operation]) -> None:
        """`append` without messages."""
        ...

    async def trim(self, before: Offset) -> int:
        """Remove messages below `before` that are not retained; how many went.

        The log start moves first. Raises StoreFull: the next call goes on with the removing.
        """
        ...

    async def stats(self) -> StoreStats:
        """Its cost does not grow with what is stored."""
        ...

    async def check(self, progress: Callable[[Offset], None] | None = None) -> list[str]:
        """What is damaged, in sentences; empty when all is well. Reads everything, and says to
        `progress`, maybe in another thread, how far it came."""
        ...

    async def backup(self, path: Path) -> None:
        """A consistent copy at `path`, which must not exist, while reads and writes go on."""
        ...
