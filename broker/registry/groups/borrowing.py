"""Borrowing: workers here of groups that another broker of the log has.

    LoanDocument ─▶ read from the copy here ─▶ `aside` of the worker's session ─▶ its client
    what it says of it ─▶ ReportDocument, in the commit of the worker's own state

The broker of the group decides everything: who gets what, when it is tried again, and how often. A
worker has here what it was leased, and what its client says is passed on: so a group is the same
wherever its workers are. A report is in the commit that makes the Packet Identifiers of a worker
durable: at QoS 2 nobody else gets what it was sent. [MQTT-4.8.2-4, MQTT-4.8.2-5]
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as replaced
from itertools import count
from typing import Protocol

from broker import tasks
from broker.clock import Clock
from broker.delivery.delivery import Delivery
from broker.delivery.looks import Looks
from broker.delivery.sender import TAKE_BYTES_MAX
from broker.documents import Delete, Put, SubscriptionDocument
from broker.documents.queues import LoanDocument, MemberDocument
from broker.errors import PubSubError, StoreUnavailable
from broker.log.log import Log
from broker.message import Grant, Lease, Message
from broker.registry.faces import Member
from broker.registry.groups.loans import Loaned, Reports, Said, Word, loaned
from broker.registry.groups.readership import fits, why_not
from broker.registry.ownership import Ownership
from broker.session.grants import merge_grants
from broker.session.session import Session

logger = logging.getLogger(__name__)


class Groups(Protocol):
    """Whoever knows all groups."""

    async def join(
        self, session: Session, subscription: SubscriptionDocument, subscriber: Member
    ) -> None: ...


class Owner(Protocol):
    """Of groups that have come here since they were borrowed from."""

    def told(self, group: str, word: Word) -> bool:
        """Whether it is here that this was to be said."""
        ...

    def heard(self, event: MemberDocument) -> None:
        """This worker is here. So may the group be, by now."""
        ...


@dataclass(slots=True)
class Work:
    """What one worker has of one group. `number`: of the time that it joined."""

    number: int
    subscription: SubscriptionDocument
    grant: Grant
    client: Member
    stalled: bool = False
    leaving: bool = False


class Borrowing:
    def __init__(
        self, log: Log, delivery: Delivery, groups: Groups, ownership: Ownership, clock: Clock
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._groups = groups
        self._ownership = ownership
        self.looks = Looks(clock)
        self.owner: Owner
        self.work: dict[Session, dict[str, Work]] = {}
        """Of the workers here, by group."""
        self._workers: dict[tuple[str, int], Session] = {}
        self._numbers = count(1)
        self._reports: dict[str, Reports] = {}
        self._watched: dict[str, list[Word]] = {}
        self._came: deque[tuple[str, list[Loaned]]] = deque()
        """Leases that are to be handed on, in their order."""
        self._handing_on: asyncio.Task[None] | None = None
        self._joining: set[asyncio.Task[None]] = set()

    def groups_of(self, session: Session) -> Mapping[str, Work]:
        return self.work.get(session, {})

    def workers(self) -> list[Session]:
        return [*self.work]

    def has(self, group: str, number: int) -> bool:
        return (group, number) in self._workers

    # Coming

    async def join(
        self, session: Session, subscription: SubscriptionDocument, client: Member
    ) -> None:
        """Let the session be a worker of the group, which another broker has. Raises StoreError;
        StoreConflict: the group has ended."""
        name, grant = subscription.filter, merge_grants([subscription])
        assert grant is not None
        works = self.work.setdefault(session, {})
        work = works.get(name)
        if work is not None:
            work.subscription, work.grant, work.client = subscription, grant, client
            if work.leaving:
                work.leaving = False
                self._say(name, Word(Said.AGAIN, work.number, []))
            return
        number = next(self._numbers)
        work = works[name] = Work(number, subscription, grant, client)
        self._workers[name, number] = session
        window = session.in_flight.receive_maximum
        broker = self._ownership.broker_id
        document = MemberDocument(name, broker, number, session.client_id, window)
        try:
            await self._log.commit_now([Put(document)], keep_if_full=False)
        except BaseException:
            if works.get(name) is work:
                self._forget(session, name)
            raise
        if works.get(name) is work:
            self.owner.heard(document)

    def _forget(self, session: Session, name: str) -> None:
        works = self.work[session]
        del self._workers[name, works.pop(name).number]
        if not works:
            del self.work[session]

    # What the broker of the group says

    def lent(self, document: LoanDocument) -> None:
        self.hand_on(document.client_id, loaned(document.leases))

    def hand_on(self, group: str, leases: list[Loaned]) -> None:
        """The group has leased these to workers here."""
        self._came.append((group, leases))
        if self._handing_on is None:
            self._handing_on = tasks.start(self._hand_on(), self._failed)

    def _failed(self, error: Exception) -> None:
        """A mistake of ours: whoever waits for it is cut off, so that others get it."""
        logger.critical("leases of groups at other brokers", exc_info=error)
        self._came.clear()
        for session in self.workers():
            self._delivery.failed(session, error)

    async def _hand_on(self) -> None:
        try:
            while self._came:
                group, leases = self._came.popleft()
                while leases:
                    leases = await self._hand_on_some(group, leases)
        finally:
            self._handing_on = None

    async def _hand_on_some(self, group: str, leases: Sequence[Loaned]) -> list[Loaned]:
        """Read the messages and hand them on. Returns the leases that are left."""
        for number in {lease.number for lease in leases if not lease.packet_id}:
            if (session := self._workers.get((group, number))) is not None:
                error = StoreUnavailable(f"the broker of the group {group} cannot serve it")
                self._delivery.failed(session, error)
        leases = [lease for lease in leases if lease.packet_id]
        offsets = sorted({lease.offset for lease in leases})
        if not offsets:
            return []
        store = self._log.store
        read = await self.looks.until_answered(
            lambda: store.fetch(offsets, bytes_max=TAKE_BYTES_MAX)
        )
        found = {message.offset: message for message in read.messages}
        woken: dict[Session, None] = {}
        for lease in leases:
            session = self._workers.get((group, lease.number))
            if lease.offset < read.next and session is not None:
                self._offer(session, group, lease, found.get(lease.offset))
                woken[session] = None
        for session in woken:
            self._delivery.wake(session)
        return [lease for lease in leases if lease.offset >= read.next]

    def _offer(self, session: Session, group: str, loan: Loaned, message: Message | None) -> None:
        work = self.work[session][group]
        why = "its broker does not have the message any more"
        if message is not None:
            why = ""
            if not fits(session, work.grant, work.client, message, self._delivery.failed):
                why = why_not([session], message)
        if message is None or why:
            self._say(group, Word(Said.UNFIT, work.number, [loan.packet_id], why))
        elif work.leaving or work.stalled:  # Who has the group by now may not know that.
            self._say(group, Word(Said.UNSENT, work.number, [loan.packet_id]))
            said = Said.LEFT if work.leaving else Said.STALLED
            self._say(group, Word(said, work.number, []))
        else:
            lease = Lease(group, loan.packet_id, loan.offset, loan.attempt)
            gaps = tuple([range(first, stop) for first, stop in loan.gaps])
            grant = replaced(work.grant, lease=lease, missing=gaps)
            session.supply.offer_aside([(message, grant)])

    def ended(self, group: str) -> None:
        """The group has ended: what was sent is its workers' own. Who is a worker still joins
        again."""
        self._reports.pop(group, None)
        for session in self.workers():
            if (work := self.work[session].get(group)) is None:
                continue
            session.supply.waiting_leases(group)
            if session.in_flight.keep_leases(group):
                self._log.changed(session)
            self._forget(session, group)
            if not work.leaving:
                self._start_joining(session, work)

    def _start_joining(self, session: Session, work: Work) -> None:
        async def join() -> None:
            try:
                await self._groups.join(session, work.subscription, work.client)
            except PubSubError as error:
                logger.warning("client %r: %s", session.client_id, error)
                self._delivery.failed(session, error)

        def failed(error: Exception) -> None:
            self._delivery.failed(session, error)

        self._joining.add(task := tasks.start(join(), failed))
        task.add_done_callback(self._joining.discard)

    # What workers say

    def acknowledged(self, session: Session, group: str, leases: Sequence[Lease]) -> bool:
        """Whether these leases, which ended, were of a group elsewhere."""
        work = self.groups_of(session).get(group)
        if work is None:
            return False
        self._say(group, Word(Said.DONE, work.number, [lease.packet_id for lease in leases]))
        self._end_if_finished(session, group, work)
        return True

    def refused(self, session: Session, lease: Lease, why: str) -> bool:
        """As `acknowledged`: the worker refuses it."""
        work = self.groups_of(session).get(lease.group)
        if work is None:
            return False
        self._say(lease.group, Word(Said.REFUSED, work.number, [lease.packet_id], why))
        self._end_if_finished(session, lease.group, work)
        return True

    def return_unsent(self, session: Session, *, stalled: bool) -> None:
        """What waits for the worker goes to others; no more comes while it is `stalled`."""
        for group, work in self.groups_of(session).items():
            if waiting := session.supply.waiting_leases(group):
                unsent = [lease.packet_id for lease in waiting]
                self._say(group, Word(Said.UNSENT, work.number, unsent))
            if stalled and not work.stalled:
                work.stalled = True
                self._say(group, Word(Said.STALLED, work.number, []))

    def drained(self, session: Session) -> None:
        """The worker takes more again."""
        for group, work in self.work[session].items():
            if work.stalled and work.client.takes_more:
                work.stalled = False
                self._say(group, Word(Said.READY, work.number, []))

    def leave(self, session: Session, group: str) -> bool:
        """Whether the worker, who has unsubscribed, was one of a group elsewhere."""
        work = self.groups_of(session).get(group)
        if work is None or work.leaving:
            return work is not None
        work.leaving = True
        if waiting := session.supply.waiting_leases(group):
            unsent = [lease.packet_id for lease in waiting]
            self._say(group, Word(Said.UNSENT, work.number, unsent))
        self._say(group, Word(Said.LEFT, work.number, []))
        self._end_if_finished(session, group, work)
        return True

    def _end_if_finished(self, session: Session, group: str, work: Work) -> None:
        if work.leaving and not session.in_flight.leases.has(group):
            self._say_gone(group, work, Said.GONE, [])
            self._forget(session, group)

    def detach(
        self,
        session: Session,
        oldest: Lease | None,
        waiting: Mapping[str, Sequence[Lease]],
        *,
        hold: bool,
    ) -> None:
        """The worker is gone. `oldest`: the lease that it was lost with; `waiting`: what it was not
        sent; `hold`: as this broker stops."""
        for group, work in [*self.groups_of(session).items()]:
            if unsent := [lease.packet_id for lease in waiting.get(group, ())]:
                self._say(group, Word(Said.UNSENT, work.number, unsent))
            lost = [oldest.packet_id] if oldest is not None and oldest.group == group else []
            self._say_gone(group, work, Said.HELD if hold else Said.GONE, lost)
            self._forget(session, group)

    def _say_gone(self, group: str, work: Work, said: Said, lost: list[int]) -> None:
        key = group, self._ownership.broker_id, work.number
        self._log.append([], operations=[Delete(MemberDocument, key)])
        self._say(group, Word(said, work.number, lost))

    def _say(self, group: str, word: Word) -> None:
        if (watched := self._watched.get(group)) is not None:
            watched.append(word)
        if self.owner.told(group, word):
            return
        reports = self._reports.get(group)
        if reports is None:
            broker = self._ownership.broker_id
            reports = self._reports[group] = Reports(group, broker, self._numbers)
        reports.add(word)
        self._log.changed(reports)

    # The group comes here

    def watch(self, group: str) -> None:
        """Note from now on what is said to it, beside what is not stored yet."""
        reports = self._reports.get(group)
        self._watched[group] = [] if reports is None else reports.not_stored

    def watched(self, group: str) -> list[Word]:
        """What was said, and is heard here from now on."""
        if (reports := self._reports.pop(group, None)) is not None:
            reports.words.clear()  # It may wait for a commit, and would be stored for nobody.
        return self._watched.pop(group, [])
