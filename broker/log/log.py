"""The log: every accepted message, in the order accepted, appended by group commit.

Messages that arrive while one commit runs are the batch of the next: no timer, and no await, task,
lock or transaction per message. A commit takes everything that is pending, so messages and the
Session State that belongs to them are stored together or not at all. The log knows nothing of MQTT,
topics or sessions: whoever has state to commit is a `StateSource`.

- After a commit a small batch waits a moment for the publishers that were just acknowledged.
- Acknowledgements by subscribers are not urgent: they wait for company, a second at most.
- `append` and `changed` are plain calls; a callback tells when the data is durable.
- Callbacks run in the order of the calls, but for those that are not urgent, each with None or with
  the error. What they put off to the end of the commit (`acknowledgements`), such as one write to a
  socket for many of them, is done before anybody reads the messages from the store's `tail`.
- What arrives while nothing is under way is committed in the turn of the loop in which it came, if
  the store is quick (`Store.append_now`), else by a task.
- While the store is full, or another program has locked it, everything waits in its order, so no
  state is stored without the message that it belongs to. Only appends with `keep_if_full=False`
  fail; a lock is over soon, so then only those without messages. The log tries again every second.
- QoS 0 waits for nobody and keeps nobody waiting, see `qos0.py`.
- Whoever waits for an acknowledgement is held when more waits for the next commit than the disk
  writes quickly, and released when that commit begins.
- Where another broker has a session by now, what is of that fails, and the rest is committed; so is
  a message that another has stored by its key, and then it counts as stored.
- Any other failure of the store ends the log (P6): it acknowledges nothing more, and the broker
  stops. A mistake of ours in a callback or a `StateSource` does not: whom it concerns is told, and
  cut off, before anything is acknowledged to it that is not stored.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.clock import Clock
from broker.counters import Counters
from broker.documents import Operation, Place
from broker.errors import StoreBusy, StoreConflict, StoreError, StoreFull
from broker.log.acknowledgements import Acknowledgements
from broker.log.batch import (
    APPEND_BYTES,
    SOURCES_MAX,
    Append,
    Batch,
    OnCommitted,
    OnFailed,
    StateSource,
    awaited,
    nobody_waits,
    tell,
)
from broker.log.commit import Commit, SourceFailed, leave_out
from broker.log.cursor_sync import CursorSync
from broker.log.log_time import LogTime
from broker.log.outage import FULL_RETRY_S, Outage
from broker.log.pace import FEW_MESSAGES, LEARN_BYTES_MIN, TURNS_FOR_COMPANY, Pace
from broker.log.publishers import HeldPublishers, Publisher
from broker.log.qos0 import LAZY_COMMIT_S, Qos0
from broker.log.refused import SessionsLost, concerns, nobody_has_any, take_refused
from broker.log.unhurried import Unhurried
from broker.log.waiting import Waiting
from broker.log.waking import Waking
from broker.message import Message, Offset, cost_of
from broker.store import Store


class Log:
    def __init__(
        self,
        store: Store,
        counters: Counters,
        clock: Clock,
        *,
        append_bytes_max: int,
        lazy_commit_s: float = LAZY_COMMIT_S,
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
        self.qos0 = Qos0(counters, clock, self._wake, lazy_commit_s, bytes_max=append_bytes_max)
        self._sync = CursorSync(clock, self._wake)
        self.unhurried = Unhurried(clock, self._wake)
        self._waking = Waking(clock, self._commit_in_turn)
        self._idle = asyncio.Event()
        self._idle.set()
        self._begun: Commit | None = None
        """What could not be committed in the turn in which it came, and so is up to the task."""
        self.acknowledgements = Acknowledgements()
        self.outage = Outage(clock)
        self.publishers = HeldPublishers()
        self.source_failed: SourceFailed = leave_out
        self.sessions_lost: SessionsLost = nobody_has_any

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
        source: StateSource | None = None,
    ) -> None:
        """Put messages and operations into the next commit, which sets the offset of `place`: right
        after these messages, and everything appended before. `failed` is called with what
        `on_committed` raises.

        `durable=False` where nobody waits for the disk. Without callback and operations that is
        QoS 0: delivered at once, and committed later, or not logged. `keep_if_full=False`: if the
        store is full then, nothing of this append is stored and the callback gets StoreFull. If it
        is locked, only an append without messages fails like that, with StoreBusy. `source`: whose
        this is, where neither messages nor operations tell.
        """
        pending = self._pending
        if not durable and on_committed is None and not operations:
            room = self._pace.batch_bytes_max
            full = bool(self.outage.why or self.outage.low) and self.outage.is_full
            self._idle.clear()
            self.qos0.add(messages, pending, self._running, batch_bytes_max=room, full=full)
            return
        if self.qos0.waiting and (messages or place is not None):
            self.qos0.go_before(messages, place, pending, self._pace.batch_bytes_max)
        rest = on_committed, failed, place, source
        pending.appends.append(Append(messages, operations, 0, durable, keep_if_full, *rest))
        pending.awaited_size += cost_of(messages) + APPEND_BYTES
        pending.durable |= durable
        if place is not None:
            pending.has_places = True
        if pending.awaited_size > self._pace.batch_bytes_max and not self.publishers.held:
            # Whoever waits: of 400 publishers one read more makes 100 MB.
            running = [] if self._running is None else self._running.publishers
            self.publishers.hold([*running, *pending.publishers])
        self._wake()

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
                Append((), (), size, urgent, urgent, on_committed, failed, None, source, unhurried)
            )
            pending.awaited_size += size + APPEND_BYTES
            pending.durable |= urgent
        if on_committed is not None and urgent:
            self._wake()
        else:
            self._wake_soon()

    def changed_with_qos0(self, source: StateSource) -> None:
        """It was handed QoS 0 messages: its state goes into their commit, or a later one."""
        self._pending.sources.setdefault(source, False)
        if not self.qos0.waiting:
            self._wake_soon()

    def waiting(self) -> Waiting:
        """What is not stored yet."""
        return Waiting.of((self._running, self._pending), self.outage.why)

    def find(self, place: Place, on_found: OnCommitted, failed: OnFailed) -> None:
        """Set the offset of `place`, right after all appended before, when that is committed.

        At once if nothing waits for the disk, or if the disk is full or locked: then everything
        that waits comes behind the place.
        """

        def found(error: StoreError | None) -> None:
            if isinstance(error, StoreFull | StoreBusy):
                place.offset, error = self.high_watermark, None
            on_found(error)

        if self._idle.is_set() or self.outage.why is not None:
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
            self.publishers.hold([publisher])

    async def flushed(self) -> None:
        """Return when nothing is pending, nor waits for company, and no commit runs.

        Raises the StoreError that ended the log.
        """
        self.unhurried.hasten()
        self.qos0.hasten()
        while not self._idle.is_set():
            await self._idle.wait()
        if self.failure is not None:
            raise self.failure

    def _wake(self) -> None:
        self._idle.clear()
        self._waking.now()

    def _wake_soon(self) -> None:
        self._idle.clear()
        self._waking.soon()

    def _commit_in_turn(self) -> bool:
        """Commit what came in this turn of the loop, if that is quick; else let the task do it."""
        commit = self._begin()
        try:
            done = self._commit_at_once(commit)
        except Exception as error:
            commit.error, done = error, False
        if done:
            self._go_on()
        else:
            self._begun = commit
        return done

    async def commit_forever(self) -> None:
        """Commit batch after batch until cancelled. Raises the StoreError that ended the log."""
        while True:
            await self._waking.wait()
            commit, self._begun = self._begun, None
            await self._write(commit or self._begin(), at_once=commit is None)
            self._go_on()
            if not self._idle.is_set() and self._pending.message_count < FEW_MESSAGES:
                for _ in range(TURNS_FOR_COMPANY):
                    await asyncio.sleep(0)

    def _go_on(self) -> None:
        """A commit is over."""
        if self.qos0.waiting:
            self.qos0.wait_for_company()
        elif not (self._pending.appends or self._pending.sources):
            self._idle.set()

    def _begin(self) -> Commit:
        """What is to be committed of what is pending."""
        if self._waking.timer is not None:
            self._waking.cancel_timer()
        batch, self._pending = self._pending, Batch()
        due = self._sync.due or self.unhurried.due
        if self.unhurried.ride and (due or batch.durable):
            self.unhurried.take(batch)
        if self.outage.why is None and len(batch.sources) > SOURCES_MAX:
            self._pending = batch.put_off(SOURCES_MAX)
            self._wake_soon()
        if self.qos0.waiting:
            batch.add_handed(self.qos0.take(self._pace.batch_bytes_max - batch.qos0_size))
        self._running = batch
        if self.publishers.held and self.outage.why is None and not self.outage.low:
            self.publishers.release()
        commit = Commit(batch, self.source_failed)
        if self.time.note_due:
            commit.note(self.time.note())
        commit.durable |= due
        if commit.durable and self._sync.timer is not None:
            commit.writes = True  # Be it the fsync alone.
        return commit

    async def end(self) -> None:
        """Return when all is committed, and with it when this run ended, unless the store is full.

        Raises the StoreError that ended the log.
        """
        self.time.end()
        self.append([], keep_if_full=False)
        await self.flushed()

    def _commit_at_once(self, commit: Commit) -> bool:
        """Whether it was committed without waiting. Raises StoreError."""
        if not commit.writes:
            for place in commit.places:
                place.offset = self.high_watermark
            self._committed(commit)
            return True
        return self.store.append_now(
            commit.messages,
            commit.operations,
            durable=commit.durable,
            places=commit.places,
            committed=lambda: self._committed(commit),
        )

    async def _write(self, commit: Commit, *, at_once: bool) -> None:
        """Commit this, however long that takes. `at_once`: try that first. Raises StoreError: the
        log has ended."""
        try:
            if commit.error is not None:
                raise commit.error
            if at_once and self._commit_at_once(commit):
                return
            size = commit.batch.awaited_size + commit.batch.qos0_size
            began = None if size < LEARN_BYTES_MIN else self._clock.monotonic()
            await self.store.append(
                commit.messages, commit.operations, durable=commit.durable, places=commit.places
            )
            if began is not None:
                took_s = self._clock.monotonic() - began
                self._pace.learn(size, took_s, durable=commit.durable)
        except (StoreFull, StoreBusy) as error:
            self._counters.append_failures += 1
            self.outage.goes_on(error)
            self._keep(commit, error)
            await self._clock.sleep(FULL_RETRY_S)
            self._wake()
        except StoreError as error:
            if isinstance(error, StoreConflict) and concerns(commit.batch, error):
                self._keep(commit, error)
                if error.of:
                    self.sessions_lost(error.of)
                self._wake()
                return
            self.failure = error
            tell(commit.batch.appends, error)
            self._idle.set()
            raise
        else:
            self._committed(commit)

    def _committed(self, commit: Commit) -> None:
        """It is stored: whoever waits for that hears of it."""
        if self._sync.timer is not None or not commit.durable:
            self._sync.note(durable=commit.durable, moved=commit.moved)
        if commit.messages and len(commit.batch.handed) < len(commit.batch.appends):
            self.qos0.committed(commit.batch, commit.messages[-1].offset)
        self.acknowledgements.held = True
        commit.committed(self._counters)
        self.acknowledgements.held = False
        if self.acknowledgements.writes:
            self.acknowledgements.leave()
        self._running = None
        if self.outage.why is not None:
            if commit.writes:
                self.outage.over()
            self.publishers.release()

    def _keep(self, commit: Commit, error: StoreFull | StoreBusy | StoreConflict) -> None:
        """Put the batch back before everything that came meanwhile, but for what fails."""
        if commit.noted:
            self.time.not_noted()
        batch = commit.batch
        refused = take_refused(batch, error)
        later, self._pending, self._running = self._pending, batch, None
        batch.put_before(later)
        commit.not_committed()  # Whoever is cut off now changes in this batch.
        if isinstance(error, StoreFull):
            self.qos0.not_stored(batch)
        tell(refused, error)
