"""ClusterStore: a Store that several brokers share: one log, and a copy of it at each.

An append goes into the shared log, and is stored when this broker comes to it there and finds that
it counts (`follower.py`). All reads are answered by the copy, which is a Store of its own. So the
copy has every message in a table, and a broker that ends costs nobody anything but a reconnect.

- A read shows all that was appended here before, and of others what has come. `sync` waits for all
  that anybody appended before.
- What an append waits for is a majority of the nodes of the log. While there is none it is tried
  again, for `append_timeout_s`; it is never stored twice.
- `trim` and `removing` are of this broker's copy only; what goes from the log says `trimming`.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import replace

from broker import tasks
from broker.documents import Delete, Operation, Place, WriterDocument
from broker.errors import StoreConflict, StoreError, StoreFenced, StoreFull, StoreUnavailable
from broker.message import Message, Offset
from broker.store import Store
from broker.store.removing import Removing
from broker.store.shared.answering import AnsweredByCopy
from broker.store.shared.entries import (
    ALIVE,
    APPEND,
    CLOSED,
    Told,
    encode,
    encode_closed,
    encode_told,
    records_of,
)
from broker.store.shared.follower import ChangedElsewhere, Follower, Pending, nobody_listens
from broker.store.shared.removing import CopyRemoving
from broker.store.shared.shared_log import RECORD_BYTES_MAX, LogInfo, SharedLog, Undecided
from broker.store.shared.trimming import KEEP_BYTES, Trimming

APPEND_TIMEOUT_S = 60.0
CAUGHT_UP_RECORDS = 100
"""So few are read soon enough."""
RETRY_FIRST_S, RETRY_MAX_S = 0.02, 0.5
TELL_AFTER_S = 3.0
"""So long nobody is told that the log does not answer: it elects a leader."""
SILENT = (
    "the shared log does not answer, and nothing is acknowledged: %s; the broker stops if that"
    " lasts for %.0f s"
)

logger = logging.getLogger(__name__)


def new_broker_id() -> str:
    return secrets.token_hex(8)


class ClusterStore(AnsweredByCopy):
    """See `broker.store.Store`."""

    def __init__(
        self,
        log: SharedLog,
        copy: Store,
        *,
        new_id: Callable[[], str] = new_broker_id,
        append_timeout_s: float = APPEND_TIMEOUT_S,
        keep_bytes: int = KEEP_BYTES,
        monotonic: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """Each `open` takes a `new_id`: it is another broker for the others."""
        super().__init__(copy)
        self._log = log
        self._new_id = new_id
        self._append_timeout_s = append_timeout_s
        self._monotonic = monotonic
        self._sleep = sleep
        self.changed_elsewhere: ChangedElsewhere = nobody_listens
        """Set it before `open`, or after."""
        self._follower: Follower
        self._following: asyncio.Task[None] | None = None
        self._newest: int | None = None
        self._appending = asyncio.Lock()
        self._number = 0
        """Of the newest append."""
        self._stored_at = 0
        """Its position, or a later one."""
        self._stored_through = Offset(0)
        """The newest offset that an append here was given."""
        self._trimming = Trimming(log, keep_bytes)
        self.removing: Removing = CopyRemoving(copy, self.current)

    @property
    def broker_id(self) -> str:
        """Of this broker, from `open` on."""
        return self._follower.broker_id

    @property
    def others(self) -> dict[str, int]:
        """The other brokers that are not dead, and where the newest append of each is."""
        living = [w for w in self._follower.writers.values() if not w.closed]
        return {w.broker: w.position for w in living if w.broker != self.broker_id}

    @property
    def told(self) -> list[Told]:
        """What the other living brokers tell of themselves."""
        tells = self._follower.tells
        return [tells[broker] for broker in sorted(self.others) if broker in tells]

    @property
    def is_first(self) -> bool:
        """By name, of those alive: it does what one of them is to do."""
        return self.broker_id <= min(self.others, default=self.broker_id)

    @property
    def dead(self) -> set[str]:
        """The brokers that were taken for dead."""
        return {writer.broker for writer in self._follower.writers.values() if writer.closed}

    @property
    def progress(self) -> tuple[int, int] | None:
        """How far the copy has come, and the log when it was looked at; None: not known yet."""
        return None if self._newest is None else (self._follower.applied, self._newest)

    def status(self) -> dict[str, object]:
        """For people and monitoring."""
        found, told = self._trimming.found, self._follower.tells
        return {
            "broker": self.broker_id,
            "position": self._follower.applied,
            "other_brokers": {
                broker: told[broker].advertise if broker in told else ""
                for broker in sorted(self.others)
            },
            "bytes": None if found is None else found.bytes,
            "bytes_max": None if found is None else found.bytes_max,
        }

    def where(self, broker: str) -> str:
        """Another broker, for people."""
        told = self._follower.tells.get(broker)
        return f"{broker} ({told.advertise})" if told and told.advertise else broker

    @property
    def failure(self) -> StoreError | None:
        """Why nothing can be appended any more, or None."""
        return self._follower.failure

    @property
    def high_watermark(self) -> Offset:
        return max(self.copy.high_watermark, self._stored_through)

    async def open(self) -> None:
        """Returns when the copy has all that was appended before. Raises LogReplaced, too."""
        await self.copy.open()
        try:
            info = await self._log.open()
            self._follower = Follower(self._log, self.copy, self._new_id(), self._sleep)
            self._follower.changed_elsewhere = lambda changed: self.changed_elsewhere(changed)
            await self._follower.open(info)
            self._newest = info.newest
            self._number = self._stored_at = 0
            self._stored_through = Offset(0)
            self._following = tasks.start(self._follower.run(), self._follower.failed)
            await self._catch_up(info)
            await self.sync()
        except BaseException:
            await self.close()
            raise

    async def _catch_up(self, info: LogInfo) -> None:
        """Read before the first append: others count the seconds from that to the next one."""
        while info.newest - self._follower.applied > CAUGHT_UP_RECORDS:
            await self._follower.until_applied(info.newest)
            info = await self._log.info()
            self._newest = info.newest

    async def close(self) -> None:
        """What is under way may still be stored."""
        following, self._following = self._following, None
        if following is not None:
            self._follower.failed(StoreUnavailable("the store is closed"))
            following.cancel()
            await asyncio.wait([following])
        await self._log.close()
        await self.copy.close()

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        """Raises StoreFenced, too, and StoreConflict with the sessions that are not here. `durable`
        makes no difference."""
        self._require_open()
        if batch or state:
            content = encode(batch, state, places)
            try:
                await self._append(APPEND, content, batch, state, places)
            except StoreConflict as error:
                if error.keys:
                    await self.current()  # It says which message has that key.
                raise
            if batch:
                self._stored_through = max(self._stored_through, batch[-1].offset)
        else:
            for place in places:
                place.offset = self.high_watermark

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        """Never: it is a way over the network."""
        return False

    async def transact(self, operations: Sequence[Operation]) -> None:
        await self.append((), operations)

    async def sync(self) -> None:
        """Whatever anybody appended before the call is visible after it. Raises StoreError."""
        await self._append(APPEND, encode((), (), ()))
        await self.current()

    async def tell(self, told: Told) -> None:
        """As `sync`; and let the others know this of us. Raises StoreError."""
        told = replace(told, position=self._follower.applied)
        await self._append(ALIVE, encode_told(told))
        await self.current()

    async def declare_dead(self, broker_id: str) -> bool:
        """Let nothing count that this broker appends from now on, unless it has appended something
        that is not seen here yet. Whether it is dead now. Raises StoreError."""
        writer = self._follower.writers.get(broker_id)
        if writer is None:
            return False
        await self._append(CLOSED, encode_closed(broker_id, writer.position))
        return writer.closed

    async def trim_log(self) -> None:
        """See `trimming`. Call it now and then. Raises StoreError."""
        await self._trimming.look(self._follower, self.others)

    async def forget(self, dead: Sequence[str]) -> None:
        """Remove what the log knows of these brokers. Raises StoreConflict: one was removed
        already; StoreError."""
        if dead:
            await self.transact([Delete(WriterDocument, (broker,)) for broker in dead])

    async def leave(self) -> None:
        """Say that we append nothing more: what is ours can be taken up at once. Raises StoreError,
        but not of that."""
        with suppress(StoreFenced):
            await self.declare_dead(self.broker_id)

    async def _append(
        self,
        kind: int,
        content: bytes,
        batch: Sequence[Message] = (),
        state: Sequence[Operation] = (),
        places: Sequence[Place] = (),
    ) -> None:
        """Return when it is stored, and counts. Raises StoreError."""
        async with self._appending:
            self._number += 1
            pending = Pending(self._number, batch, state, places)
            self._follower.pending = pending
            bodies = records_of(self.broker_id, self._number, kind, content, RECORD_BYTES_MAX)
            writing = tasks.start(
                self._write(bodies, pending), lambda error: _settle(pending, error)
            )
            try:
                if self._follower.failure is not None:
                    raise self._follower.failure
                await pending.settled.wait()
                if (error := pending.error) is None or isinstance(error, StoreConflict):
                    self._stored_at = self._follower.writers[self.broker_id].position
                if error is not None:
                    raise error
            finally:
                writing.cancel()
                self._follower.pending = None
                pending.told.set()

    async def _write(self, bodies: Sequence[bytes], pending: Pending) -> None:
        """Give it to the log, again and again while that may be in vain."""
        began, told, answered = self._monotonic(), False, False
        may_be_stored = False
        wait_s = RETRY_FIRST_S
        try:
            while True:
                try:
                    for body in bodies:
                        await self._log.append(body)
                    answered = True
                    return
                except (Undecided, StoreFull) as error:
                    if isinstance(error, StoreFull) and not may_be_stored:
                        raise  # Else it may count, and whoever hears of that appends it anew.
                    may_be_stored = True
                    waited_s = self._monotonic() - began
                    if waited_s >= self._append_timeout_s:
                        raise StoreUnavailable("the shared log does not answer") from error
                    if waited_s >= TELL_AFTER_S and not told:
                        told = True
                        logger.warning(SILENT, error, self._append_timeout_s)
                await self._sleep(wait_s)
                wait_s = min(2 * wait_s, RETRY_MAX_S)
        finally:
            if told and (answered or (pending.settled.is_set() and pending.error is None)):
                waited_s = self._monotonic() - began
                logger.warning("the shared log answers again, after %.0f s", waited_s)

    async def current(self) -> None:
        """Return when the copy has what was appended here before. Raises StoreError."""
        self._require_open()
        await self._follower.until_applied(self._stored_at)

    def _require_open(self) -> None:
        if self._following is None:
            raise StoreUnavailable("the store is not open")


def _settle(pending: Pending, error: Exception) -> None:
    if not isinstance(error, StoreError):
        error = StoreUnavailable(f"an append to the shared log failed: {error!r}")
    pending.settle(error)
