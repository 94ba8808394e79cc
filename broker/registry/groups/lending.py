"""Lending: what workers at other brokers have of groups here.

Each such worker is a member of its group here (`Remote`), and what it is leased goes to its broker
as a `LoanDocument`; what becomes of that comes back as a `ReportDocument` (`borrowing`).

- A loan is stored in one commit with the group's cursor, which lists all that is in flight then. So
  whoever has the group next knows what others have, and does not lease that again.
- What was reported is stored with the group's cursor, too, in the commit that removes the report.
- If the broker of a worker dies, the worker is gone, and what it had goes to others. As for any
  broker that dies: what it reported in time counts, and nothing that it says later.
- If the broker of the group dies, the next one takes up its members, loans and reports. What a
  worker has, it keeps.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from typing import Protocol

from broker import tasks
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.delivery.looks import Looks
from broker.delivery.sender import TAKE_BYTES_MAX
from broker.documents import Delete, Operation
from broker.documents.queues import LoanDocument, MemberDocument, ReportDocument
from broker.errors import PubSubError, StoreError
from broker.log.log import Log
from broker.message import Monotonic, Offset
from broker.registry.groups.group import Group
from broker.registry.groups.lent import LOST, Lent
from broker.registry.groups.loans import NO_ROW, Loaned, Said, Word, words
from broker.registry.groups.refusals import Refusal
from broker.registry.groups.remote import Loans, Remote
from broker.registry.groups.retries import Failure
from broker.registry.ownership import Ownership
from broker.session.exchange import InFlight
from broker.session.session import Session

Event = MemberDocument | ReportDocument | str
"""The name of a broker: that it has died."""

AT_ONCE_MAX = 100
"""Workers that join a group, or that go with their broker, in one turn of the loop: some ms."""

logger = logging.getLogger(__name__)


class Groups(Protocol):
    """Those that are here."""

    def get(self, name: str) -> Group | None: ...

    async def until_opened(self, name: str, *, for_others: bool) -> Group | None:
        """The group, if it is open, or just being opened; `for_others`: or if it is here, as it is
        opened then. Raises StoreError, QuotaExceeded."""
        ...

    def admit(self, session: Session, group: Group) -> None: ...

    def settle(self, session: Session) -> None: ...

    def refused(self, name: str, refusals: Sequence[Refusal]) -> None: ...

    def leave(self, session: Session, *names: str) -> None: ...

    def drained(self, session: Session) -> None: ...

    def detach(self, session: Session, *, hold: bool = False) -> None: ...


class Workers(Protocol):
    """Those that are connected here."""

    looks: Looks

    def has(self, group: str, number: int) -> bool: ...

    def hand_on(self, group: str, leases: list[Loaned]) -> None: ...

    def watch(self, group: str) -> None: ...

    def watched(self, group: str) -> list[Word]: ...


class Lending:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        counters: Counters,
        groups: Groups,
        workers: Workers,
        ownership: Ownership,
        is_here: Callable[[str], bool],
    ) -> None:
        """`is_here`: whether this broker has a group, open or not."""
        self._log = log
        self._delivery = delivery
        self._counters = counters
        self._groups = groups
        self._workers = workers
        self._ownership = ownership
        self._is_here = is_here
        self._remotes: dict[tuple[str, str, int], Remote] = {}
        """By group, broker and number."""
        self._loans: dict[str, Loans] = {}
        self._number = 0
        """Of the newest LoanDocument."""
        self._left: Counter[tuple[str, str, int]] = Counter()
        """Of each LoanDocument: how many of its leases have not ended."""
        self._events: dict[str, deque[Event]] = {}
        """By group, where they cannot be dealt with at once."""
        self._tasks: set[asyncio.Task[None]] = set()

    # What is heard

    def heard(self, event: MemberDocument | ReportDocument) -> None:
        """A broker has stored this. It may be about a group here."""
        if self._is_here(event.client_id):
            self._hear(event.client_id, event)

    def told(self, group: str, word: Word) -> bool:
        """A worker here says this. Whether its group is here, too, since the broker is dead that
        the worker had it from."""
        if (open_group := self._groups.get(group)) is None:
            return False
        self._deal_with(open_group, self._ownership.broker_id, [word])
        return True

    def died(self, brokers: Collection[str]) -> None:
        """These are dead. All that they have said was heard."""
        for group, broker in {(group, broker) for group, broker, _ in self._remotes}:
            if broker in brokers:
                self._hear(group, broker)

    def arrived(self, group: str) -> None:
        """It has come here, and opens if it has workers."""
        self._start(self._look_for_members(group))

    async def _look_for_members(self, group: str) -> None:
        scan = self._log.store.scan
        for document in await self._workers.looks.until_answered(
            lambda: scan(MemberDocument, (group,))
        ):
            self.heard(document)

    def _hear(self, name: str, event: Event) -> None:
        events, group = self._events.get(name), self._groups.get(name)
        if events is None and group is not None and isinstance(event, ReportDocument):
            self._deal_with_report(group, event)
        elif events is None:
            events = self._events[name] = deque([event])
            self._start(self._work_off(name, events))
        else:
            events.append(event)

    def _start(self, work: Coroutine[None, None, None]) -> None:
        self._tasks.add(task := tasks.start(work, self._failed))
        task.add_done_callback(self._tasks.discard)

    def _failed(self, error: Exception) -> None:
        logger.critical("workers at other brokers", exc_info=error)

    async def _work_off(self, name: str, events: deque[Event]) -> None:
        try:
            while events:
                if len(events) % AT_ONCE_MAX == 0:
                    await asyncio.sleep(0)
                group = await self._open(name, events)
                if group is None:
                    break  # Whoever opens it later finds all of that in the log.
                event = events.popleft()
                if isinstance(event, MemberDocument):
                    await self._join(group, event)
                elif isinstance(event, ReportDocument):
                    self._deal_with_report(group, event)
                else:
                    await self._take_back(group, event)
        finally:
            del self._events[name]

    async def _open(self, name: str, events: Iterable[Event]) -> Group | None:
        for_others = any(
            isinstance(event, MemberDocument) and self._is_there(event) for event in events
        )
        try:
            return await self._groups.until_opened(name, for_others=for_others)
        except PubSubError as error:
            logger.warning("group %s: its workers at other brokers: %s", name, error)
            for event in events:  # Else they would wait for ever. Their clients come again.
                if isinstance(event, MemberDocument) and self._is_there(event):
                    self._tell_cut_off(Remote(event, self._lend, self._cut_off))
            return None

    def _is_there(self, member: MemberDocument) -> bool:
        """Whether its broker lives and, if it is this one, whether the worker is still there."""
        if member.broker == self._ownership.broker_id:
            return self._workers.has(member.client_id, member.number)
        return self._ownership.lives(member.broker)

    async def _join(self, group: Group, document: MemberDocument) -> None:
        key = document.client_id, document.broker, document.number
        async with group.lock:
            if not self._is_there(document):  # Its broker died meanwhile, maybe: nobody else heard.
                self._log.append([], operations=[Delete(MemberDocument, key)])
            elif key not in self._remotes and self._groups.get(group.name) is group:
                remote = self._add(group, document)
                try:
                    await group.add(remote.session, remote.grant, remote)
                except StoreError as error:  # Others are still to join.
                    remote.broken(error)

    def _add(self, group: Group, document: MemberDocument) -> Remote:
        remote = Remote(document, self._lend, self._cut_off)
        self._remotes[group.name, remote.broker, remote.number] = remote
        self._delivery.subscribers.add(remote.session, remote)
        self._groups.admit(remote.session, group)
        if group.sender is not None:
            group.sender.session.in_flight.leases.lend()
        return remote

    # What it means

    def _deal_with_report(self, group: Group, report: ReportDocument) -> None:
        try:
            self._deal_with(group, report.broker, words(report.report))
        except Exception as error:  # Of one group. It opens again, and finds what is in the log.
            group.failed(error)
            return
        key = report.client_id, report.broker, report.number
        self._log.append([], operations=[Delete(ReportDocument, key)])

    async def _take_back(self, group: Group, broker: str) -> None:
        """The broker is dead: what its workers had goes to others."""
        of = [r for r in self._remotes.values() if (r.group, r.broker) == (group.name, broker)]
        for number, remote in enumerate(of, 1):
            self._gone(remote, hold=False)
            if number % AT_ONCE_MAX == 0:
                await asyncio.sleep(0)
        self._log.append([], operations=[Delete(MemberDocument, (group.name, broker))])

    def _deal_with(self, group: Group, broker: str, said: Iterable[Word]) -> None:
        """All in this turn of the loop, and so in one commit."""
        said_by: dict[Session, None] = {}
        for word in said:
            remote = self._remotes.get((group.name, broker, word.number))
            if remote is not None:
                self._obey(group, remote, word)
                self._end(remote, word.packet_ids)
                said_by[remote.session] = None
        for session in said_by:
            self._groups.drained(session)

    def _obey(self, group: Group, remote: Remote, word: Word) -> None:
        session = remote.session
        match word.said:
            case Said.DONE:
                session.in_flight.puback(word.packet_ids)
                self._groups.settle(session)
            case Said.REFUSED:
                leases = remote.part(word.packet_ids)
                self._groups.refused(group.name, [Refusal(session, e, word.why) for e in leases])
            case Said.UNSENT | Said.UNFIT:
                leases = remote.part(word.packet_ids)
                if word.said is Said.UNFIT:
                    remote.unfit.update([lease.offset for lease in leases])
                taken_back = [lease.offset for lease in leases if not lease.attempt]
                group.redelivery.let_go(session, taken_back)
                group.return_leases([lease for lease in leases if lease.attempt])
            case Said.STALLED | Said.READY:
                remote.stalled = word.said is Said.STALLED
            case Said.LEFT:
                self._groups.leave(session, group.name)
            case Said.AGAIN:
                group.admit(session, remote.grant, remote)
            case Said.GONE | Said.HELD:
                lost = [lease for lease in remote.part(word.packet_ids) if lease.attempt]
                group.failed_at([Failure(lease, LOST, session.client_id) for lease in lost])
                self._gone(remote, hold=word.said is Said.HELD)

    def _gone(self, remote: Remote, *, hold: bool) -> None:
        remote.gone = True
        self._remotes.pop((remote.group, remote.broker, remote.number), None)
        self._delivery.subscribers.remove(remote.session)
        self._end(remote, [*remote.loans])
        self._groups.detach(remote.session, hold=hold)

    def _end(self, remote: Remote, packet_ids: Iterable[int]) -> None:
        """These leases have ended: a LoanDocument goes with the last of its own."""
        operations: list[Operation] = []
        for packet_id in packet_ids:
            if (number := remote.loans.pop(packet_id, None)) is None:
                continue
            key = remote.group, remote.broker, number
            self._left[key] -= 1
            if not self._left[key]:
                del self._left[key]
                operations.append(Delete(LoanDocument, key))
        if operations:
            self._log.append([], operations=operations)

    def ended(self, group: str) -> None:
        """It is over, and so is all that the log has of it."""
        self._loans.pop(group, None)
        for key in [key for key in self._remotes if key[0] == group]:
            remote = self._remotes.pop(key)
            self._delivery.subscribers.remove(remote.session)
            for number in remote.loans.values():
                self._left.pop((group, remote.broker, number), None)

    # What they are lent

    def _lend(self, remote: Remote) -> None:
        """All that waits for it. In the commit of the group's cursor: see the module."""
        group, session = self._groups.get(remote.group), remote.session
        if group is None or group.sender is None or not session.supply.aside:
            return
        leases: list[Loaned] = []
        now_us = self._log.time.aged_us()
        while session.supply.aside:
            taken = session.supply.take(now_us, TAKE_BYTES_MAX)
            self._counters.dropped["expired"] += len(taken.expired)
            if not (taken.outgoing or taken.expired):
                break
            for (message, grant), packet_id in zip(taken.outgoing, taken.packet_ids, strict=True):
                assert grant.lease is not None, "nothing else is offered to it"
                offset, attempt = message.offset, grant.lease.attempt
                due_at_us = group.redelivery.due_of(offset) if not grant.lease.packet_id else NO_ROW
                gaps = [[gap.start, gap.stop] for gap in grant.missing]
                leases.append(Loaned(remote.number, packet_id, offset, attempt, due_at_us, gaps))
        if session.in_flight.leases.settled:
            self._groups.settle(session)
        if leases:
            self._send(remote, leases)
            self._log.changed(group.sender.session)

    def _send(self, remote: Remote, leases: list[Loaned]) -> None:
        if remote.broker == self._ownership.broker_id:
            self._workers.hand_on(remote.group, leases)
            return
        loans = self._loans.get(remote.group)
        if loans is None:
            loans = self._loans[remote.group] = Loans(remote.group, self._next_number, self._left)
        loans.add(remote, leases)
        self._log.changed(loans, loans.stored)  # At once: a worker waits for it.

    def _cut_off(self, remote: Remote) -> None:
        """The group cannot serve it: so does its broker, and its client comes again."""
        self._tell_cut_off(remote)
        self._gone(remote, hold=False)

    def _tell_cut_off(self, remote: Remote) -> None:
        self._send(remote, [Loaned(remote.number, 0, Offset(0), 0)])

    # The group comes here

    async def found(self, group: str) -> Lent:
        """What others have of this group, which is here now. Raises StoreError."""
        lent = Lent(group)
        if self._ownership.others_may_subscribe:
            self._workers.watch(group)
            await lent.read(self._log.store)
        return lent

    def left(self, lent: Lent, session: Session, now: Monotonic) -> list[InFlight]:
        """What the group's session has in flight that nobody has. From here on what workers here
        say of it is heard without the log."""
        lent.say_here(self._ownership.broker_id, self._workers.watched(lent.group))
        return lent.find(session, self._is_there, now)

    def resume(self, group: Group, lent: Lent) -> None:
        """In the turn of `left`, when the group is open."""
        self._number = max(self._number, lent.last_number)
        for worker, document in lent.members.items():
            remote = self._add(group, document)
            remote.resume(lent.held.get(worker, {}), lent.last_packet_ids[worker])
            for packet_id, number in lent.documents.get(worker, {}).items():
                remote.loans[packet_id] = number
                self._left[group.name, remote.broker, number] += 1
            group.admit(remote.session, remote.grant, remote)
        for row, lease in lent.rows:
            group.redelivery.has_lent(row, lease)
        final = group.redelivery.policy.refusals_are_final
        done_by = Session("", created_at_us=0, start=Offset(0), inflight_max=1)
        if lent.done:
            group.acknowledged(done_by, lent.done)
        group.failed_at(
            [Failure(e, r.why, r.worker, final=r.final and final) for e, r in lent.refused]
        )
        if lent.operations:
            self._log.append([], operations=lent.operations)
            group.cursor_moved()

    def _next_number(self) -> int:
        self._number += 1
        return self._number
