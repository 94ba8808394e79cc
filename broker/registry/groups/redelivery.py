"""Redelivery: what one group does about messages that a member refused, held too long or died of.

    lease failed ─▶ retry: a row in the store, due later ─▶ read again ─▶ leased to another
                └─▶ after the last attempt, or refused for good: a dead letter

- A message that failed leaves the group's window, in the commit that stores its row: so the rest of
  the queue goes on, however many messages wait to be tried again.
- A lease that was taken back from a member that is still there is never given to that member while
  it has the message. If it acknowledges late, the message is done, whoever has it by then. One that
  all members have still waits for another member, and holds up nothing.
- What members had when the broker stopped waits HOLD_S for each of them to come back, which has it
  before anything else: a worker that finished its job meanwhile can say so, and nobody does it
  twice. It is among what is due later until somebody has it, so that its time comes in any case.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from broker import tasks
from broker.clock import Clock
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.delivery.looks import Looks
from broker.delivery.readers import unfit
from broker.documents import Delete, Operation, Put
from broker.documents.queues import DeadNoticeDocument, RetryDocument
from broker.log.batch import awaited
from broker.log.log import Log
from broker.message import Lease, Message, Monotonic, Offset, ServedUs
from broker.registry.faces import NobodyUsesIt, RedeliveryUser, Times
from broker.registry.groups.dead_letters import DeadLetters
from broker.registry.groups.policy import Policy
from broker.registry.groups.retries import Failure, Retries, Retry
from broker.registry.groups.taken_back import TakenBack
from broker.session.session import Session
from broker.store import PART_MAX

READY_MAX = 64
READY_BYTES_MAX = 256 * 1024
"""Messages that are due, read from the log and wait for a member with room."""
HOLD_S = 30.0
HELD_PER_MEMBER_MAX = 16
HELD_BYTES_MAX = 512 * 1024
"""Of what is held for a member, it is given so much when it comes back."""


class Redelivery:
    """Of one open group."""

    def __init__(
        self,
        group: str,
        policy: Policy,
        log: Log,
        delivery: Delivery,
        counters: Counters,
        clock: Clock,
        dead_letters: DeadLetters,
        times: Times,
        user: RedeliveryUser,
    ) -> None:
        self.policy = policy
        self._group = group
        self._session: Session
        self._log = log
        self._delivery = delivery
        self._counters = counters
        self._clock = clock
        self._dead_letters = dead_letters
        self._times = times
        self._user: RedeliveryUser = user
        self._looks = Looks(clock)
        self._retries = Retries()
        self._fetching: dict[Offset, Retry] = {}
        """Those that are due, and are read from the log just now."""
        self.ready: list[tuple[Message, Retry]] = []
        """And have been read: they are for the first member that may have them."""
        self._leased: dict[Offset, tuple[Retry, Lease]] = {}
        """The retries that a member has now."""
        self._taken_back = TakenBack()
        self._reading: asyncio.Task[None] | None = None

    def close(self) -> None:
        """The group is not open any more, and is not known from here on: they knew each other."""
        self._user = NobodyUsesIt()
        if self._reading is not None:
            self._reading.cancel()

    @property
    def waiting(self) -> int:
        """How many messages are to be tried again, as far as memory has them."""
        idle = self._taken_back.waiting
        return len(self._retries) + len(self._fetching) + len(self.ready) + idle

    def now(self) -> Monotonic:
        return self._clock.monotonic()

    def lease_begins(self) -> None:
        """A member may have a lease from now on."""
        self._times.lease_over_at(Monotonic(self.now() + self.policy.lease_s))

    # What did not end well

    def failed(self, failures: Iterable[Failure]) -> None:
        """These are tried again in their time, or are dead letters."""
        now = self._clock.now()
        operations: list[Operation] = []
        of_window: list[int] = []
        window = self._session.in_flight
        for failure in failures:
            lease = failure.lease
            if lease.packet_id:
                if not window.sent_qos1([lease.packet_id]):
                    continue
                of_window.append(lease.packet_id)
            elif (leased := self._leased.get(lease.offset)) and leased[1] is lease:
                del self._leased[lease.offset]
                operations.append(self._delete(leased[0]))
            else:
                continue  # It was taken back before, and is another's.
            attempts = lease.attempt - 1 + failure.counts
            self._counters.groups.attempts_failed += failure.counts
            if failure.final or attempts >= self.policy.attempts_max:
                operations += self._dead_letters.bury(
                    self._group, lease.offset, attempts, failure.reason, failure.worker
                )
                self._taken_back.forget(lease.offset)
                continue
            wait_s = self.policy.backoff_s(attempts) if failure.counts else 0.0
            due_at_us = self._log.time.served_at(now.after(wait_s))
            operations.append(self._put(Retry(due_at_us, lease.offset, attempts)))
        self._store(operations, of_window)
        self._set_alarm()

    def part_with(
        self, member: Session, leases: Sequence[Lease], oldest: Lease | None, *, hold: bool
    ) -> list[Lease]:
        """The member is gone and had these, `oldest` first of all that it had: that is a failed
        attempt. Returns those that go to others at once. `hold`: the broker stops."""
        self.let_go(member, [lease.offset for lease in leases if not lease.attempt])
        current = [lease for lease in leases if lease.attempt]
        if hold:
            return self._hold(current, member.client_id)
        if oldest is not None and oldest in current:
            current.remove(oldest)
            self.failed([Failure(oldest, "its worker was lost", member.client_id)])
        return current

    def _hold(self, leases: Sequence[Lease], holder: str) -> list[Lease]:
        """The broker stops while `holder` has these: it has them first when it comes back. Returns
        those that are not held."""
        until = self._log.time.served_at(self._clock.now().after(HOLD_S))
        operations: list[Operation] = []
        of_window: list[int] = []
        window = self._session.in_flight
        for lease in leases[:HELD_PER_MEMBER_MAX]:
            if lease.packet_id and window.sent_qos1([lease.packet_id]):
                of_window.append(lease.packet_id)
            elif (leased := self._leased.get(lease.offset)) and leased[1] is lease:
                del self._leased[lease.offset]
                operations.append(self._delete(leased[0]))
            else:
                continue
            operations.append(self._put(Retry(until, lease.offset, lease.attempt - 1, holder)))
        self._store(operations, of_window)
        return [*leases[HELD_PER_MEMBER_MAX:]]

    def returned(self, leases: Iterable[Lease]) -> None:
        """Retries that members gave back, and that are due now: nothing is to be stored."""
        for lease in leases:
            leased = self._leased.get(lease.offset)
            if leased is not None and leased[1] is lease:
                del self._leased[lease.offset]
                self._retries.add(leased[0])
        self._set_alarm()

    def take_back(self, member: Session, packet_ids: Sequence[int], counts: int) -> None:
        """The leases under these Packet Identifiers of the member have lasted too long. Only the
        one under `counts` is a failed attempt: the member has not come to the others."""
        held = member.in_flight.leases.held
        leases = [held[packet_id] for packet_id in packet_ids]
        member.in_flight.leases.take_back(packet_ids)
        reason = f"no acknowledgement within {self.policy.lease_s:g} s"
        failures: list[Failure] = []
        for packet_id, lease in zip(packet_ids, leases, strict=True):
            self._taken_back.add(member, lease)
            counted = packet_id == counts
            failures.append(Failure(lease, reason, member.client_id, counts=counted))
        self.failed(failures)

    def redriven(self, offsets: Iterable[Offset]) -> None:
        """Dead letters that an operator gives back: as if they had never been tried."""
        now = self._log.time.served_at(self.now())
        self._store([self._put(Retry(now, offset, 0)) for offset in offsets], [])
        self._set_alarm()

    def has_had(self, member: Session, offset: Offset) -> bool:
        """Whether the member has this message still, though it was taken back."""
        return self._taken_back.has(member, offset)

    def let_go(self, member: Session, offsets: Iterable[Offset]) -> None:
        """The member does not have these any more."""
        for offset in offsets:
            if (retry := self._taken_back.let_go(member, offset)) is not None:
                self._retries.add(retry)
        self._set_alarm()

    def done(self, member: Session, leases: Iterable[Lease]) -> None:
        """The member acknowledged these retries, or what was taken back from it."""
        operations: list[Operation] = []
        for lease in leases:
            offset = lease.offset
            leased = self._leased.get(offset)
            known = self._taken_back.retry(offset)
            if leased is not None and (leased[1] is lease or not lease.attempt):
                del self._leased[offset]
                operations.append(self._delete(leased[0]))
            elif known is not None and not lease.attempt:
                self._fetching.pop(offset, None)
                self.ready = [entry for entry in self.ready if entry[1].offset != offset]
                operations.append(self._delete(known))
            self._taken_back.forget(offset)
        self._store(operations, [])
        self.look()

    # What is tried again

    async def begin(self) -> None:
        """Read the first part of what is to be tried again, before the group's session is open and
        anything new is leased. Raises StoreError."""
        await self._read_part()

    def opened(self, session: Session) -> None:
        """The group's session is open."""
        self._session = session

    def comes(self) -> None:
        """A member that was not there: it may have what all others have still."""
        for retry in self._taken_back.take_waiting():
            self._retries.add(retry)

    async def held_by(self, client_id: str) -> list[tuple[Message, Retry]]:
        """What this client had when the broker stopped, to be leased to it if it is still there to
        `take`. The rest of it waits until the hold is over. Raises StoreError."""
        held = {retry.offset: retry for retry in self._retries.held_by(client_id)}
        if not held:
            return []
        read, _ = await self._delivery.fetch(self._session, sorted(held), HELD_BYTES_MAX)
        now_us = self._log.time.aged_us()
        fit = [m for m in read.messages if not (unfit(m) or m.has_expired(now_us))]
        return [(message, held[message.offset]) for message in fit]

    def take(self, retry: Retry) -> bool:
        """Whether this one still waited for its time, and is needed; it does no more."""
        return self._retries.take(retry) and bool(self._once([retry]))

    def look(self) -> None:
        """Get what is due ready, if there is anything and it has room."""
        if self._reading is not None or len(self.ready) >= READY_MAX:
            return
        if sum([message.cost for message, _ in self.ready]) >= READY_BYTES_MAX:
            return
        if self._retries.used_up:
            self._reading = tasks.start(self._read_on(), self._user.failed)
            return
        now_us = self._log.time.served_at(self.now())
        while due := self._retries.take_due(now_us, READY_MAX - len(self.ready)):
            self._fetching = self._once(due)
            if self._fetching:
                self._reading = tasks.start(self._fetch(), self._user.failed)
                return
        self._set_alarm()

    def _once(self, due: Sequence[Retry]) -> dict[Offset, Retry]:
        """Those of a message that a member has, or is to have, already are not needed: it waits
        twice where the group went back over it."""
        once: dict[Offset, Retry] = {}
        out = {*self._leased, *[retry.offset for _, retry in self.ready]}
        twice = []
        for retry in due:
            if retry.offset in out or retry.offset in once:
                twice.append(self._delete(retry))
            else:
                once[retry.offset] = retry
        self._store(twice, [])
        return once

    def leased(self, retry: Retry, lease: Lease) -> None:
        """This retry, which was ready, is a member's now."""
        self._leased[retry.offset] = retry, lease
        self._counters.redeliveries += 1

    def has_lent(self, retry: Retry, lease: Lease) -> None:
        """A member had this retry before the group came here, and has it still."""
        self._retries.take(retry)
        self._leased[retry.offset] = retry, lease

    def due_of(self, offset: Offset) -> ServedUs:
        """When this retry, which a member has now, was due."""
        return self._leased[offset][0].due_at_us

    def wait_for_another(self, retry: Retry) -> None:
        """This retry, which was ready, waits until a member lets it go, or another comes: all that
        are there have it still."""
        self._taken_back.wait(retry.offset)

    def too_large(self, message: Message, retry: Retry, reason: str) -> None:
        """A retry that no member can take."""
        buried = self._dead_letters.bury(self._group, message.offset, retry.attempts, reason, "")
        self._taken_back.forget(retry.offset)
        self._store([self._delete(retry), *buried], [])

    async def _fetch(self) -> None:
        try:
            await self._fetch_part()
        finally:
            self._reading = None
        self._user.wake()  # Which looks for more.

    async def _read_on(self) -> None:
        try:
            await self._read_part()
        finally:
            self._reading = None
        self.look()

    async def _fetch_part(self) -> None:
        offsets = sorted(self._fetching)
        read, looked_at = await self._delivery.fetch(self._session, offsets, READY_BYTES_MAX)
        due, self._fetching = self._fetching, {}
        found = {message.offset: message for message in read.messages}
        seen = {*offsets[:looked_at]}
        now_us = self._log.time.aged_us()
        operations: list[Operation] = []
        for offset, retry in due.items():
            if offset not in seen:
                self._retries.add(retry)
                continue
            message = found.get(offset)
            damaged = any(offset in lost for lost in read.damaged)
            gone = "damaged" if damaged else "removed by retention"
            if message is not None:
                gone = unfit(message) or ("expired" if message.has_expired(now_us) else "")
            if gone or message is None:
                self._counters.dropped[gone] += 1
                self._taken_back.forget(offset)
                operations.append(self._delete(retry))
            else:
                self.ready.append((message, retry))
        self._store(operations, [])

    async def _read_part(self) -> None:
        after = self._retries.read_begins()
        try:
            stored, on_stored = awaited(None)
            self._log.append([], on_stored, durable=False)
            await stored
            key = None if after is None else (self._group, *after)
            scan = self._log.store.scan_part
            found = await self._looks.until_answered(
                lambda: scan(RetryDocument, (self._group,), key)
            )
        except BaseException:
            self._retries.not_read()
            raise
        out = [*[retry for retry, _ in self._leased.values()], *[retry for _, retry in self.ready]]
        taken = {retry.place for retry in (*out, *self._fetching.values())}
        self._retries.read(found, complete=len(found) < PART_MAX, taken=taken)
        self._set_alarm()

    def _set_alarm(self) -> None:
        due_at_us = self._retries.due_at_us()
        if due_at_us is not None:
            self._times.retry_at(self._group, self._log.time.monotonic_at(due_at_us))

    # What the log keeps

    def _put(self, retry: Retry) -> Operation:
        self._retries.add(retry)
        self._taken_back.goes_on(retry)
        return Put(retry.document(self._group))

    def _delete(self, retry: Retry) -> Operation:
        self._retries.remove(retry)
        return Delete(RetryDocument, (self._group, *retry.place))

    def _store(self, operations: Sequence[Operation], of_window: Sequence[int]) -> None:
        """In the commit of the group's cursor, or a crash would lose a message or repeat it."""
        if of_window:
            self._session.in_flight.puback(of_window)
            self._user.cursor_moved()
        if operations:
            buried = DeadNoticeDocument in [
                type(operation.document) for operation in operations if isinstance(operation, Put)
            ]
            on_stored = self._dead_letters.stored if buried else None
            self._log.append([], on_stored, operations=operations)
            self._log.changed(self._session)
