"""Deduplication: a message that its publisher sends again under the same key is stored once.

A publisher that does not know whether its message was stored sends it again, maybe on another
connection or after a crash of either side. Topics of a `[[dedup]]` keep the keys of their messages
for a window. A key is one publisher's, on one topic: others may use the same.

- A key is committed with its message, so a crash keeps both or neither.
- The window is *served* time (`log_time.py`): in doubt a key is kept longer.
- Of several brokers that share a log, the first that stores a message with a key has it; the others
  hear of that at the latest when theirs does not count.
- Memory keeps a digest of each key, about 250 bytes. How many there are is limited: a message with
  one more is refused, for to forget a key early would store a repeat.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b

from broker.clock import Clock, Instant
from broker.documents import DedupDocument, Delete, Operation, Place, Put
from broker.errors import QuotaExceeded, StoreError
from broker.log.deadlines import Deadlines
from broker.log.log import Log
from broker.message import NOT_STORED, Monotonic, Offset

DIGEST_BYTES = 16
FORGET_MAX = 500
"""Keys whose window is over that one commit removes: a few ms."""
FORGET_INTERVAL_S = 0.25
LOOK_AGAIN_S = 10.0
"""After this long it is seen whether another broker has removed a key: it may be dead."""


@dataclass(slots=True)
class Known:
    """The first message with a key. `offset` is `NOT_STORED` until it is committed, and for one
    that was delayed."""

    digest: str
    offset: Offset = NOT_STORED
    stored: bool = False
    pending: bool = False
    """Whether a message of ours with it is being stored."""


class Dedup:
    """`deadline_moved` is called when a deadline may be earlier than it was."""

    def __init__(
        self, log: Log, clock: Clock, deadline_moved: Callable[[], None], *, keys_max: int
    ) -> None:
        self._log = log
        self._clock = clock
        self._deadline_moved = deadline_moved
        self.keys_max = keys_max
        self._known: dict[str, Known] = {}
        self._ends = Deadlines[Monotonic]()
        self.removes: Callable[[], bool] = lambda: True
        """Whether it is this broker that removes keys, of several that share the log."""
        self._not_before = Monotonic(0)
        """When the next keys may be forgotten."""

    def __len__(self) -> int:
        return len(self._known)

    async def start(self) -> None:
        """Learn of the keys that an earlier run left. Raises StoreError."""
        for document in await self._log.store.scan(DedupDocument):
            self.heard(document)

    def heard(self, document: DedupDocument) -> None:
        """The key is stored: by an earlier run, or by another broker that shares the log."""
        known = self._known.setdefault(document.digest, Known(document.digest))
        known.offset, known.stored = document.offset, True
        self._ends.set(document.digest, self._log.time.monotonic_at(document.ends_at_us))
        self._deadline_moved()

    def removed(self, digest: str) -> None:
        """Another broker has removed the key, as its window is over."""
        known = self._known.get(digest)
        if known is not None and known.pending:
            known.offset, known.stored = NOT_STORED, False
        elif known is not None:
            self.forget(known)

    def find(self, publisher: str, topic: str, key: str) -> Known | None:
        """The first message with this key; it may not be stored yet."""
        return self._known.get(_digest(publisher, topic, key))

    def add(
        self, publisher: str, topic: str, key: str, window_s: float, place: Place | None
    ) -> tuple[Known, Operation]:
        """Remember a key, and what to commit with its message. Then call `settle`.

        `place` is right after the message, None if it has no offset yet. Raises QuotaExceeded.
        """
        if len(self._known) >= self.keys_max:
            raise QuotaExceeded(
                f"{len(self._known)} deduplication keys are in their windows: no more are taken "
                "until some are over (dedup_keys_max)"
            )
        known = Known(_digest(publisher, topic, key), pending=True)
        self._known[known.digest] = known
        ends_at = self._clock.now().after(window_s)
        self._ends.set(known.digest, ends_at)
        self._deadline_moved()
        document = DedupDocument(known.digest, NOT_STORED, self._log.time.served_at(ends_at))
        return known, Put(document, places=None if place is None else {"offset": place})

    def settle(self, known: Known, error: StoreError | None, place: Place | None) -> bool:
        """Its message is stored; or it is not, and the key is free again. Whether another broker
        was first: then `known` is the message that it stored."""
        known.pending = False
        if known.stored:
            return True
        if error is None:
            known.stored = True
            known.offset = NOT_STORED if place is None else place.offset
        else:
            self.forget(known)
        return False

    def forget(self, known: Known) -> None:
        """Its message is not stored: what comes with this key is the first."""
        if self._known.get(known.digest) is known:
            del self._known[known.digest]
            self._ends.remove(known.digest)

    def deadline(self) -> Monotonic | None:
        """When to call `expire` next."""
        soonest = self._ends.soonest()
        return None if soonest is None else max(soonest, self._not_before)

    def expire(self, now: Instant) -> None:
        """Forget keys whose window is over, or wait until another broker removes them."""
        over = self._ends.take_due(now.monotonic, FORGET_MAX)
        if over and not self.removes():
            for digest in over:
                self._ends.set(digest, now.after(LOOK_AGAIN_S))
        elif over:
            for digest in over:
                del self._known[digest]
            removed: list[Operation] = [Delete(DedupDocument, (digest,)) for digest in over]
            self._log.append([], operations=removed, durable=False)
            self._not_before = now.after(FORGET_INTERVAL_S)


def _digest(publisher: str, topic: str, key: str) -> str:
    """Of the three together; none of them can hold a NUL. [MQTT-1.5.4-2]"""
    text = f"{publisher}\0{topic}\0{key}"
    return blake2b(text.encode(), digest_size=DIGEST_BYTES).hexdigest()
