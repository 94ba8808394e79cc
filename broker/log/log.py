"""The log: every accepted message, in the order accepted, appended by group commit.

Messages that arrive while one commit runs are the batch of the next: no timer, and no await, task,
lock or transaction per message. A commit takes everything that is pending, so messages and the
Session State that belongs to them are stored together or not at all. The log knows nothing of MQTT,
topics or sessions: whoever has state to commit is a `StateSource`.

- After a commit a small batch waits a moment for the publishers that were just acknowledged.
- Acknowledgements by subscribers alone are not urgent: they wait a few ms for company, and are
  fsynced once a second.
- `append` and `changed` are plain calls; a callback tells when the data is durable.
- Callbacks run in the order of the calls, but for those that are not urgent, each with None or with
  the error. They may put off work to the next turn of the loop (`call_soon`), such as one write to
  a socket for many acknowledgements; that work is done when `acknowledgements_sent` returns.
- While the store is full, or another program has locked it, everything waits in its order, so no
  state is stored without the message that it belongs to. Only appends with `keep_if_full=False`
  fail; a lock is over soon, so then only those without messages. The log tries again every second.
- QoS 0 waits for nobody and keeps nobody waiting, see `qos0.py`.
- Whoever waits for an acknowledgement is held when more waits for the next commit than the disk
  writes quickly, and released when that commit begins.
- Any other failure of the store ends the log (P6): it acknowledges nothing more, and the broker
  stops. A mistake of ours in a callback or a `StateSource` does not: whom it concerns is told, and
  cut off, before anything is acknowledged to it that is not stored.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from itertools import chain

from broker.clock import Clock, Timer
from broker.counters import Counters
from broker.documents import Operation, Place
from broker.errors import StoreBusy, StoreError, StoreFull
from broker.log.batch import (
    APPEND_BYTES,
    Append,
    Batch,
    OnCommitted,
    OnFailed,
    StateSource,
    awaited,
    nobody_waits,
    places_among,
    tell,
)
from broker.log.cursor_sync import CursorSync
from broker.log.log_time import IDLE_NOTE_INTERVAL_S, LogTime
from broker.log.pace import LEARN_BYTES_MIN, Pace
from broker.log.publishers import HeldPublishers, Publisher
from broker.log.qos0 import FULL, Qos0
from broker.message import Message, Monotonic, Offset, cost_of
from broker.store import Store

CURSOR_COMMIT_DELAY_S = 0.005
"""How long acknowledgements by subscribers alone wait for company before they are committed."""
FULL_RETRY_S = 1.0
"""How often a store that is full, or locked, is tried again."""
FEW_MESSAGES = 64
TURNS_FOR_COMPANY = 3
"""After a commit, a batch smaller than FEW_MESSAGES waits this many turns of the loop: the
publishers just acknowledged are about to send more. Otherwise the two halves of a small window
follow each other in commits of their own, each at the price of a whole one. `make bench`, qos1-w20:
1.5 times the messages a second."""

SOURCES_MAX = 2000
"""Sources whose state one commit takes, if nobody waits for more: about 10 ms."""

logger = logging.getLogger(__name__)


def _unknown_source(source: StateSource, error: Exception) -> None:
    logger.critical("%r is left out of a commit", source, exc_info=error)


class Log:
    def __init__(
        self, store: Store, counters: Counters, clock: Clock, *, append_bytes_max: int
    ) -> None:
        self.store = store
        self.time = LogTime(clock)
        self.failure: StoreError | None = None
        self._counters = counters
        self._clock = clock
        self._pace = Pace(append_bytes_max)
        self._pending = Batch()
        self._running: Batch | None = None
        """What is being committed."""
        self.qos0 = Qos0(counters, clock, bytes_max=append_bytes_max)
        self._cursor_timer: Timer | None = None
        self._sync = CursorSync(clock, self._wake)
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._sent = asyncio.Event()
        """Cleared by the callbacks of a commit, set when the work that they put off is done."""
        self._sent.set()
        self._waits_for: type[StoreError] | None = None
        """Why nothing is stored at present: StoreFull or StoreBusy."""
        self._retry_at = clock.monotonic()
        """When that is tried again."""
        self._publishers = HeldPublishers()
        self.source_failed: Callable[[StateSource, Exception], None] = _unknown_source
        """Called with a source that raised something. Raises nothing."""

    async def start(self) -> None:
        """Let the log's time go on where it ended. Raises StoreError."""
        await self.time.resume(self.store)

    @property
    def high_watermark(self) -> Offset:
        return self.store.high_watermark

    def append(
        self,
        messages: Sequence[Message],
        on_committed: OnCommitted | None = None,
        failed: OnFailed = nobody_waits,
        *,
        durable: bool = True,
        keep_if_full: bool = True,
        operations: Sequence[Operation] = (),
        place: Place | None = None,
    ) -> None:
        """Put messages and operations into the next commit, which sets the offset of `place`: right
        after everything appended before. `failed` is called with what `on_committed` raises.

        `durable=False` where nobody waits for the disk. Without callback and operations that is
        QoS 0, which may also be committed later or not be logged. `keep_if_full=False`: if the
        store is full then, nothing of this append is stored and the callback gets StoreFull. If
        another program has locked it, only an append without messages fails like that, with
        StoreBusy.
        """
        pending = self._pending
        if not durable and on_committed is None and not operations:
            full = self._waits_for is StoreFull and self._clock.monotonic() < self._retry_at
            room = self._pace.batch_bytes_max
            self.qos0.add(messages, pending, self._running, batch_bytes_max=room, full=full)
            self._wake()
            return
        if self.qos0.deferred.size and messages:
            pending.add_qos0(self.qos0.deferred.take_topics(messages))
        pending.appends.append(
            Append(messages, operations, 0, durable, keep_if_full, on_committed, failed, place)
        )
        pending.awaited_size += cost_of(messages) + APPEND_BYTES
        if place is not None:
            pending.has_places = True
        if pending.awaited_size > self._pace.batch_bytes_max and not self._publishers.held:
            # Whoever waits: of 400 publishers one read more makes 100 MB.
            running = [] if self._running is None else self._running.publishers
            self._publishers.hold([*running, *pending.publishers])
        self._idle.clear()
        self._arrived.set()

    def changed(
        self,
        source: StateSource,
        on_committed: OnCommitted | None = None,
        failed: OnFailed = nobody_waits,
        *,
        urgent: bool = True,
        size: int = 0,
    ) -> None:
        """The state of `source` goes into the next commit. `failed` as for `append`.

        With an `urgent` callback somebody waits for it: the commit is fsynced and starts at once.
        What is not urgent waits for a later commit if more than SOURCES_MAX sources have changed;
        its callback also hears of a full or locked store, while the state waits. `size`: bytes that
        the callback keeps in memory.
        """
        pending = self._pending
        if urgent:
            pending.sources[source] = True
        else:
            pending.sources.setdefault(source, False)
        if on_committed is not None:
            unhurried = None if urgent else source
            pending.appends.append(
                Append((), (), size, urgent, urgent, on_committed, failed, None, unhurried)
            )
            pending.awaited_size += size + APPEND_BYTES
        if on_committed is not None and urgent:
            self._wake()
        else:
            self._wake_soon()

    def find(self, place: Place, on_found: OnCommitted, failed: OnFailed) -> None:
        """Set the offset of `place`, right after all appended before, when that is committed.

        At once if nothing waits for the disk, or if the disk is full or locked: then everything
        that waits comes behind the place.
        """

        def found(error: StoreError | None) -> None:
            if isinstance(error, StoreFull | StoreBusy):
                place.offset, error = self.high_watermark, None
            on_found(error)

        if self._idle.is_set() or self._waits_for is not None:
            place.offset = self.high_watermark
            on_found(self.failure)
        else:
            self.append([], found, failed, durable=False, keep_if_full=False, place=place)

    async def commit_now(
        self,
        operations: Sequence[Operation],
        messages: Sequence[Message] = (),
        *,
        keep_if_full: bool = True,
    ) -> None:
        """Return when these are durable. Raises StoreError: they are not."""
        done, on_committed = awaited(None)
        self.append(messages, on_committed, keep_if_full=keep_if_full, operations=operations)
        await done

    @property
    def congested(self) -> bool:
        """Whether more waits for the next commit than it can quickly write, QoS 0 apart."""
        return self._pending.awaited_size > self._pace.batch_bytes_max

    def throttle(self, publisher: Publisher) -> None:
        """`publisher` waits for the next commit: hold it when too much does, now or later."""
        pending = self._pending
        pending.publishers.append(publisher)
        if pending.awaited_size > self._pace.batch_bytes_max:
            self._publishers.hold([publisher])

    async def flushed(self) -> None:
        """Return when nothing is pending and no commit runs.

        Raises the StoreError that ended the log.
        """
        while not self._idle.is_set():
            await self._idle.wait()
        if self.failure is not None:
            raise self.failure

    async def acknowledgements_sent(self) -> None:
        """Return when the last commit's acknowledgements have left: at once, or a turn later."""
        await self._sent.wait()

    def _wake(self) -> None:
        self._idle.clear()
        self._arrived.set()

    def _wake_soon(self) -> None:
        self._idle.clear()
        if self._cursor_timer is None:
            wake = self._arrived.set
            self._cursor_timer = self._clock.call_later(CURSOR_COMMIT_DELAY_S, wake)

    async def commit_forever(self) -> None:
        """Commit batch after batch until cancelled. Raises the StoreError that ended the log."""
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            if self._cursor_timer is not None:
                self._cursor_timer.cancel()
                self._cursor_timer = None
            batch, self._pending = self._pending, Batch()
            if self._waits_for is None and len(batch.sources) > SOURCES_MAX:
                self._pending = batch.put_off(SOURCES_MAX)
                self._wake_soon()
            if self.qos0.deferred.size:
                batch.add_qos0(
                    self.qos0.deferred.take(self._pace.batch_bytes_max - batch.qos0_size)
                )
            self._running = batch
            if self._publishers.held and self._waits_for is None:
                self._publishers.release()
            await self._write(batch)
            if self.qos0.deferred.size:
                self._arrived.set()
            elif not (self._pending.appends or self._pending.sources):
                self._idle.set()
            elif sum([len(append.messages) for append in self._pending.appends]) < FEW_MESSAGES:
                for _ in range(TURNS_FOR_COMPANY):
                    await asyncio.sleep(0)

    async def note_time_forever(self) -> None:
        """Note the log's time also while there is nothing to commit."""
        while True:
            await self._clock.sleep(IDLE_NOTE_INTERVAL_S)
            self.append([], durable=False, keep_if_full=False)

    async def end(self) -> None:
        """Return when all is committed, and with it when this run ended, unless the store is full.

        Raises the StoreError that ended the log.
        """
        self.time.end()
        self.append([], keep_if_full=False)
        await self.flushed()

    async def _write(self, batch: Batch) -> None:
        appends = batch.appends
        messages = list(chain.from_iterable([append.messages for append in appends]))
        operations = list(chain.from_iterable([append.operations for append in appends]))
        for source in list(batch.sources):
            try:
                operations += source.take_changes()
            except Exception as error:
                self._leave_out(batch, source, error)
        moved = bool(operations)
        if noted := self.time.note_due:
            operations.append(self.time.note())
        durable = self._sync.due or True in [append.durable for append in appends]
        writes = bool(messages or operations or (durable and self._sync.timer is not None))
        try:
            places = places_among(appends) if batch.has_places else []
            if writes:
                size = batch.awaited_size + batch.qos0_size
                began = None if size < LEARN_BYTES_MIN else self._clock.monotonic()
                await self.store.append(messages, operations, durable=durable, places=places)
                if began is not None:
                    took_s = self._clock.monotonic() - began
                    self._pace.learn(size, took_s, durable=durable)
            else:
                for place in places:
                    place.offset = self.high_watermark
        except (StoreFull, StoreBusy) as error:
            if noted:
                self.time.not_noted()
            self._counters.append_failures += 1
            self._retry_at = Monotonic(self._clock.monotonic() + FULL_RETRY_S)
            self._keep(batch, error)
            await self._clock.sleep(FULL_RETRY_S)
            self._arrived.set()
            return
        except StoreError as error:
            self.failure = error
            tell(appends, error)
            self._idle.set()
            raise
        if self._sync.timer is not None or not durable:
            self._sync.note(durable=durable, moved=moved)
        self._counters.commits += 1
        self._counters.messages_in += len(messages)
        self._counters.payload_bytes_in += sum(map(len, [m.payload for m in messages]))
        for source in batch.sources:
            try:
                source.committed()
            except Exception as error:
                self.source_failed(source, error)
        tell(appends, None)
        self._sent.clear()
        asyncio.get_running_loop().call_soon(self._sent.set)
        self._running = None
        if self._waits_for is not None:
            if writes:
                self._waits_for = None
                logger.warning("messages are stored and acknowledged again")
            self._publishers.release()

    def _leave_out(self, batch: Batch, source: StateSource, error: Exception) -> None:
        """Its state is not in this commit; what it gave of that must come with the next."""
        del batch.sources[source]
        self.source_failed(source, error)
        self._not_committed(source)

    def _not_committed(self, source: StateSource) -> None:
        try:
            source.not_committed()
        except Exception as error:
            self.source_failed(source, error)

    def _keep(self, batch: Batch, error: StoreFull | StoreBusy) -> None:
        """The store is full or locked: put the batch back before everything that came meanwhile.

        Appends that are not to be kept fail instead.
        """
        if self._waits_for is not type(error):
            self._waits_for = type(error)
            logger.warning("nothing is stored or acknowledged until this is over: %s", error)
        locked = isinstance(error, StoreBusy)
        sources = list(batch.sources)
        later, self._pending, self._running = self._pending, batch, None
        refused = batch.put_back(later, locked=locked)
        unlogged = [] if locked else [*batch.take_qos0(), *self.qos0.deferred.clear()]
        for source in sources:  # Whoever is cut off now changes in this batch.
            self._not_committed(source)
        if unlogged:
            self.qos0.leave_out(unlogged, FULL, batch, None)
        tell(refused, error)
