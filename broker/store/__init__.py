"""The Store contract: the log and the documents beside it. Knows messages and offsets, not MQTT.

`memory.py` is the reference and the test model, `sqlite/` is the default. One suite,
`tests/unit/store/test_contract.py`, holds every store to these clauses:

- **S1** `append` returns only when every message of the batch and every operation given with it is
  committed, and with `durable=True` fsynced, with all that was committed before: all of it or
  nothing. It sets `Message.offset`.
- **S2** Offsets rise in commit order and are never reused, also after `trim` removed everything
  and after a crash. Those of one append follow each other; between two appends there may be a gap.
- **S3** `tail` yields every committed batch once, in order, our own and those of other writers, and
  only after its commit; of our own when whoever awaited `append` has gone on. It yields `Skipped`
  only where `trim` passed the reader.
- **S4** `read` returns matching messages in offset order and says how far it looked.
- **S5** A message with `retain` set becomes its topic's retained message; one with an empty payload
  removes it, in the same transaction. A retained message outlives `trim`, until it has expired
  and `forget_expired` comes. [MQTT-3.3.1-5..7]
- **S6** Documents are read as they were last committed. `transact` is all or nothing. A revision is
  0 where there is no document, and rises with each Put; nothing else is known about it.
- **S7** A failed call stored nothing that a later call would show, or raises `StoreUnavailable`;
  after that nothing more may be written until the store is opened again.
- **S8** `read` and `fetch` return bit for bit what was appended. They name what is damaged or lost,
  and return the rest.
- **S9** `open` does not read the backlog: its time does not grow with the number of messages.
- **S10** `append` sets the offset of each `Place`, and writes it into the documents that wait for
  it: a subscription begins after the n-th message of an append, wherever that comes to lie.
- **S11** `removing` is what retention needs, see `removing.py`. `trim` removes whatever it meets:
  its readers have missed it (`missing_before`).
- **S12** A message that is *held* outlives `trim`: a retained one (S5), that of a dead letter, and
  one that a group retries. SQLite has the view `held`.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.documents import D, Document, Key, Operation, Place, SessionDocument
from broker.message import Message, Offset, WallUs
from broker.store.removing import Removing

PART_MAX = 1000
"""Documents that `scan_part` returns at most: about 5 ms."""

TakeAtOnce = Callable[[Sequence[Message]], bool]
"""Takes a batch in the turn in which it was committed; or leaves it to the iterator: False."""


@dataclass(slots=True)
class Skipped:
    """Retention removed the offsets `first`..`last` before the reader of `tail` came to them."""

    first: Offset
    last: Offset


@dataclass(slots=True)
class Read:
    """`messages` match, and everything below `next` was looked at.

    `damaged`: the offsets among these that cannot be read, in order. Any of them may have matched.
    `removed`: offsets that matched and that retention removed unread, in order (S11).
    """

    messages: list[Message]
    next: Offset
    damaged: Sequence[range] = ()
    removed: Sequence[range] = ()


@dataclass(slots=True, frozen=True)
class Stretch:
    """The messages above `after` that match any of `filters`, each of them once."""

    filters: tuple[str, ...]
    after: Offset


@dataclass(slots=True)
class Amount:
    """How much that is: `bytes` of payload and properties; when the first was published."""

    messages: int = 0
    bytes: int = 0
    oldest_at_us: WallUs | None = None


@dataclass(slots=True)
class StoreStats:
    engine: str
    high_watermark: Offset
    log_start: Offset
    messages: int
    """There are from the log start to the high watermark."""
    retained: int
    """Topics that have a retained message."""
    bytes_on_disk: int


class Store(Protocol):
    """See the module. Every call may raise StoreUnavailable; `open` also SchemaMismatch."""

    @property
    def broker_id(self) -> str:
        """Of this broker, where several share the store; a new one at each `open`. Else empty."""
        ...

    @property
    def high_watermark(self) -> Offset:
        """The newest committed offset; 0 for a log that never held one."""
        ...

    @property
    def log_start(self) -> Offset:
        """The oldest offset that may still be there; 1 for a fresh log."""
        ...

    @property
    def missing_before(self) -> Offset:
        """What lies below this, and was not acknowledged, is missing: `trim` removed it."""
        ...

    @property
    def removing(self) -> Removing: ...

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        """Commit messages and state together (S1) and set each message's offset, in order, and each
        place's (S10). After a failed call the offsets of the places mean nothing.

        Without either, `durable=True` fsyncs what was committed before.

        The operations of `state` are done in their order. If the caller is cancelled, the append
        may still be stored; readers of `tail` see it with the next one at the latest.

        Raises StoreFull; StoreBusy; StoreUnavailable; StoreConflict: a revision was not the
        expected one, or a subscription, a cursor or QoS 2 identifiers belong to a session without
        SessionDocument.
        Then nothing was stored (S7).
        """
        ...

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        """As `append`, but without waiting, and only if that is quicker than to wait: else False,
        and nothing was done.

        `committed` is called when it is committed, before any reader of `tail` gets the batch.
        """
        ...

    def tail(
        self, start: Offset, take: TakeAtOnce | None = None
    ) -> AsyncIterator[Sequence[Message] | Skipped]:
        """Every message from `start` on, in batches, until `close` (S3). Batches are read-only.

        While the reader waits for the next, a batch of `append_now` may be given to `take` instead.
        """
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
        """Messages in start..end (both included) that match any filter (None: all), oldest first.

        Stops after `limit` messages, when their sizes reach `bytes_max` (at least one message is
        returned), or after looking at many that do not match. `next` says where to go on; it is
        above `end`, or above the high watermark, when there are no more. Reading begins at the log
        start if `start` is below it; compare `log_start` afterwards to know what `trim` took.
        """
        ...

    async def fetch(self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize) -> Read:
        """The messages at these offsets, at most 100,000, oldest first; removed ones are left out.

        Stops when their sizes reach `bytes_max`: offsets from `next` on were not looked at. A
        message that is held is found also below the log start.
        """
        ...

    async def offset_at(self, time_us: int) -> Offset:
        """The first offset published at or after `time_us`; high watermark + 1 if there is none.
        Also where the clock was set back, and later messages have earlier times."""
        ...

    async def last_before(self, time_us: int) -> Offset:
        """The last offset published before `time_us`; log start - 1 if there is none.

        Also where the clock was ahead for a while. What was published while it was behind, and lies
        among later messages, may be left out: a range is not to reach that far.
        """
        ...

    async def nth_last(self, filters: Sequence[str] | None, count: int) -> Offset:
        """The offset from which `count` matching messages remain; the log start if there are
        fewer, and high watermark + 1 for a count of 0."""
        ...

    async def count(
        self, filters: Sequence[str], start: Offset, end: Offset, *, looks_max: int = sys.maxsize
    ) -> tuple[int, Offset]:
        """How many messages in start..end (both included) match any filter, and where to go on if
        that takes more than `looks_max` looks of a few ms each: else above `end`, or above the high
        watermark. Messages that have expired are counted, too."""
        ...

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        """How much each of them is, of the messages up to `through`. Messages that have expired are
        counted, too. A thousand stretches cost hardly more than the longest of them."""
        ...

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        """How much the messages at these offsets are, without those that were removed. What is
        given twice is counted twice."""
        ...

    async def retained(self, filters: Sequence[str]) -> list[Offset]:
        """Offsets of the retained messages of all topics that match any filter, in order (S5)."""
        ...

    async def still_retained(self, offsets: Sequence[Offset], now_us: int) -> list[Offset]:
        """Those of these offsets, at most 1,000, whose messages are retained, and have not expired
        at `now_us`, in order (S5)."""
        ...

    async def forget_expired(self, now_us: int) -> None:
        """Retain no message any more that has expired at `now_us`, since the epoch. [MQTT-3.3.2-5]

        Raises StoreFull, StoreBusy: the next call goes on.
        """
        ...

    async def get(self, kind: type[D], key: tuple[str, ...]) -> D | None: ...

    async def revision(self, kind: type[Document], key: tuple[str, ...]) -> int:
        """Rises with each Put of the document; 0 if there is none. (S6)"""
        ...

    async def scan(self, kind: type[D], key: tuple[str, ...] = ()) -> list[D]:
        """Every document of a class whose key begins with `key`, in key order."""
        ...

    async def scan_part(
        self, kind: type[D], key: tuple[str, ...] = (), after: Key | None = None
    ) -> list[D]:
        """As `scan`, but only the first PART_MAX of them, of those behind the key `after`."""
        ...

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        """As `scan` of each class, one class after the other, the first 1,000 documents all as of
        one moment. The others are read later: what is written meanwhile may be in them."""
        ...

    async def without_subscriber(self, names: Sequence[str]) -> list[SessionDocument]:
        """The sessions of groups with these names that no subscription has as its Topic Filter."""
        ...

    async def transact(self, operations: Sequence[Operation]) -> None:
        """`append` without messages."""
        ...

    async def trim(self, before: Offset) -> int:
        """Remove messages below `before` that are not held (S11); the number removed.

        The log start moves first. Raises StoreFull, StoreBusy: the next call goes on removing.
        """
        ...

    async def stats(self) -> StoreStats:
        """Costs the same however much is stored."""
        ...
