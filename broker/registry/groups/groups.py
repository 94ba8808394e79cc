"""Shared Subscriptions: a group owns the place in the log, members lease messages [MQTT 5, 4.8.2]

A group (`$share/<name>/<filter>`) is a durable session of its own under that name, fed by delivery
like any other. Instead of a client it is emptied into the sessions of its connected members
(`group`). Here is who is a member, and how long a group is there.

- The group outlives the absence of all members, and a restart: it costs an offset, like any
  subscriber. It ends when the last session unsubscribes, or some time after the last one ended
  (`lingering`).
- Who unsubscribes finishes what it has [MQTT-3.10.4-3]; until it has, or is gone, the group stays
  open for that. If the group ends, what it has is its own.
- A crash repeats at most `inflight_max` acknowledged messages for each member (P4).
- One that was made by a command (`GroupDocument`) ends by a command alone.
- A QoS 2 message belongs to the member it was sent to: the lease ends in the same commit that makes
  its Packet Identifier durable, and nobody else gets it. [MQTT-4.8.2-4, MQTT-4.8.2-5]
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from functools import partial

from broker import tasks
from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import SubscriptionDocument
from broker.documents.queues import GroupDocument
from broker.errors import NotAuthorized, QuotaExceeded, StoreConflict
from broker.log.log import Log
from broker.message import Offset
from broker.registry.faces import Member, Nobody
from broker.registry.groups.borrowing import Borrowing
from broker.registry.groups.dead_letters import DeadLetters
from broker.registry.groups.group import Group, WithoutRoom
from broker.registry.groups.lending import Lending
from broker.registry.groups.lingering import Lingering
from broker.registry.groups.openings import Openings
from broker.registry.groups.partings import Partings
from broker.registry.groups.policy import subscription_of
from broker.registry.groups.refusals import Refusal, Refusals, fail
from broker.registry.groups.times import GroupTimes
from broker.registry.ownership import OPEN_TRIES, AtAnotherBroker
from broker.registry.sessions import Sessions
from broker.session.grants import merge_grants
from broker.session.in_flight import OF_NO_GROUP
from broker.session.leases import by_group
from broker.session.session import Session
from broker.topics import is_shared

logger = logging.getLogger(__name__)

JOINED_AT_ONCE_MAX = 500
"""Groups that a client who comes back joins in one turn of the loop: about 5 ms."""


class Groups:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        sessions: Sessions,
        counters: Counters,
        config: Config,
        clock: Clock,
        deadline_moved: Callable[[], None] = lambda: None,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._sessions = sessions
        self._config = config
        self._clock = clock
        self._groups: dict[str, Group] = {}
        self.created: dict[str, GroupDocument] = {}
        """Those that were made by a command, by name."""
        self.lingering = Lingering(log, sessions, counters, config, clock, self.created)
        self.dead_letters = DeadLetters(log, counters, config, clock)
        self.refusals = Refusals(self.refused)
        self.times = GroupTimes(self, deadline_moved)
        ownership, is_here = sessions.ownership, sessions.has_durable
        self.borrowing = Borrowing(log, delivery, self, ownership, clock)
        self.lending = Lending(log, delivery, counters, self, self.borrowing, ownership, is_here)
        self.borrowing.owner, self.lingering.came_here = self.lending, self.lending.arrived
        self._openings = Openings(
            *(log, delivery, sessions, counters, config, clock),
            *(self.dead_letters, self.times, self.lingering, self.lending),
        )
        self._memberships: dict[Session, set[Group]] = {}
        """The groups that a session is a member of, or has leases of."""
        self._partings = Partings(log, delivery, self._close_if_empty)
        self._without_room: WithoutRoom = {}
        delivery.changes.groups = self

    async def start(self) -> None:
        """Before the sessions: which groups are to stay. Raises StoreError."""
        self.created |= {d.client_id: d for d in await self._log.store.scan(GroupDocument)}
        await self.dead_letters.start()

    def get(self, name: str) -> Group | None:
        """The group, if it is open."""
        group = self._groups.get(name)
        return None if group is None or group.sender is None else group

    def everybody(self) -> Mapping[Session, set[Group]]:
        """The members of all groups, and who is leaving one."""
        return self._memberships

    @property
    def open_count(self) -> int:
        return len(self._groups)

    def members(self, name: str) -> tuple[Session, set[Session]] | None:
        """The session of an open group, and its members."""
        if (group := self.get(name)) is None or group.sender is None:
            return None
        return group.sender.session, {*group.members}

    async def has_no_subscriber(self, name: str) -> bool:
        """Whether no session is subscribed to this absent group. Raises StoreError."""
        return name in await self.lingering.without_subscriber([name])

    async def attach(self, session: Session, subscriber: Member) -> None:
        """A client came back to its session: it is a member of its groups again."""
        shared = [s for s in session.subscriptions.values() if is_shared(s.filter)]
        for number, subscription in enumerate(shared, 1):
            try:
                await self.join(session, subscription, subscriber)
            except NotAuthorized as error:  # It has a new owner by now. All others go on.
                logger.warning("client %r: %s: %s", session.client_id, subscription.filter, error)
            if number % JOINED_AT_ONCE_MAX == 0:
                await asyncio.sleep(0)

    def refuse_if_many(self, session: Session, name: str) -> None:
        """Raises QuotaExceeded: the session may not join this group beside its others."""
        groups, most = self._memberships.get(session, ()), self._config.groups_per_session_max
        elsewhere = self.borrowing.groups_of(session)
        is_in = name in elsewhere or self._groups.get(name) in groups
        if len(groups) + len(elsewhere) >= most and not is_in:
            raise QuotaExceeded(f"Shared Subscriptions above groups_per_session_max, {most}")

    async def join(
        self,
        session: Session,
        subscription: SubscriptionDocument,
        subscriber: Member,
        here: Offset | None = None,
    ) -> None:
        """Let the session have its share. A new group begins at `here`, or where the log ends, and
        is that user's. Raises StoreError, QuotaExceeded; NotAuthorized: it is another's."""
        name, tries = subscription.filter, OPEN_TRIES
        while True:
            if name in self.borrowing.groups_of(session):
                await self.borrowing.join(session, subscription, subscriber)
                return
            group = self._groups.setdefault(name, Group(name, self._without_room))
            if group.ending is not None:
                await asyncio.wait([group.ending])
                continue
            try:
                async with group.lock:
                    if self._groups.get(group.name) is not group or group.ending is not None:
                        continue  # All its members left while we waited.
                    await self._join(group, session, subscription, subscriber, here)
                    return
            except AtAnotherBroker:
                if not session.attached:
                    raise
            try:
                await self.borrowing.join(session, subscription, subscriber)
                return
            except StoreConflict:  # It has just ended.
                tries -= 1
                if not tries:
                    raise
                await self._sessions.ownership.hear()

    async def _join(
        self,
        group: Group,
        session: Session,
        subscription: SubscriptionDocument,
        subscriber: Member,
        here: Offset | None,
    ) -> None:
        user = "" if group.name in self.created else session.tally.user
        try:
            if group.sender is None:
                start = self._log.high_watermark if here is None else here
                await self._openings.open(group, self.created.get(group.name), start, user)
            else:
                group.sender.session.tally.refuse_another(user)
        except Exception:
            if group.empty:
                self._close(group)
            raise
        if session.attached:
            self.admit(session, group)
            grant = merge_grants([subscription])
            assert grant is not None
            await group.add(session, grant, subscriber)
        elif group.empty:
            self._close(group)
        else:
            group.wake()

    def admit(self, session: Session, group: Group) -> None:
        """The session has to do with the group."""
        self._memberships.setdefault(session, set()).add(group)

    async def open(self, name: str, here: Offset) -> None:
        """As `join`, without a member: a group that has none is closed again."""
        nobody = Session("", created_at_us=0, start=here, inflight_max=1)
        await self.join(nobody, subscription_of("", name, here), Nobody(), here)

    async def until_opened(self, name: str, *, for_others: bool) -> Group | None:
        """The group, if it is open, or just being opened; `for_others`: or if it is here, as it is
        opened then. Raises StoreError, QuotaExceeded."""
        if (opening := self._groups.get(name)) is not None:
            async with opening.lock:
                pass
        if self.get(name) is None and for_others and self._sessions.has_durable(name):
            await self.open(name, self._log.high_watermark)
        return self.get(name)

    def leave(
        self,
        session: Session,
        *names: str,
        left: Callable[[], None] | None = None,
    ) -> None:
        """The session unsubscribed: it gets no more, and finishes what it has. [MQTT-3.10.4-3]

        The groups that nobody is subscribed to any more end. `left` is called when that is stored.
        """
        self.refusals.flush()
        last = [group for name in names if (group := self._leave(session, name)) is not None]
        if not last:
            if left is not None:
                left()
        elif self._sessions.absent_may_subscribe:
            known = asyncio.get_running_loop().create_future()
            for group in last:
                group.ending = known
            failed = partial(self._delivery.failed, session)
            tasks.start(self._end_without_subscriber(last, known, session, left), failed)
        else:
            for group in last:
                self._end(group)
            self._when_stored(session, left)

    def _leave(self, session: Session, name: str) -> Group | None:
        """The group, if no member is left."""
        if self.borrowing.leave(session, name):
            return None
        group = self._groups.get(name)
        if group is None:
            if self._sessions.is_absent(name):
                self.lingering.unsubscribed(name)
            return None
        if group in self._memberships.get(session, ()):
            group.leave(session, session.supply.waiting_leases(name))
        stays = group.members or name in self.created
        if stays:
            self._let_finished_go(group, session)
        return None if stays or group.ending is not None else group

    async def _end_without_subscriber(
        self,
        groups: Sequence[Group],
        known: asyncio.Future[None],
        session: Session,
        left: Callable[[], None] | None,
    ) -> None:
        """End those of the groups, which have no member now, that no absent session is subscribed
        to either. Who joins meanwhile waits, and makes a new group."""
        try:
            async with AsyncExitStack() as locks:
                for group in groups:  # None may be just opening.
                    await locks.enter_async_context(group.lock)
                names = [group.name for group in groups]
                free = await self.lingering.without_subscriber(names)
        finally:
            for group in groups:
                group.ending = None
            known.set_result(None)
        for group in groups:
            if group.name in free and not group.members:
                self._end(group)
            elif group.empty:
                self._close(group)
        self._when_stored(session, left)

    def _when_stored(self, session: Session, left: Callable[[], None] | None) -> None:
        if left is not None:
            failed = partial(self._delivery.failed, session)
            self._log.append([], lambda error: None if error else left(), failed)

    def _end(self, group: Group) -> None:
        """Nobody is subscribed to it. What was sent is its members' own from here on."""
        self._groups.pop(group.name, None)
        if group.sender is None:
            return
        session = group.sender.session
        for member in group.leaving:
            self._memberships[member].discard(group)
            if kept := member.in_flight.keep_leases(group.name):
                session.in_flight.puback([e.packet_id for e in kept if e.packet_id])
                self._log.changed(member)
        group.closed()
        self.lending.ended(group.name)
        self.times.closed(group.name)
        session.set_expiry(0)
        self._sessions.close(session, group, self._clock.now())
        self.lingering.ended(session, self._delivery.live.through, group.redelivery.waiting)

    def _let_finished_go(self, group: Group, session: Session) -> None:
        """If one that unsubscribed has nothing in flight of this group any more."""
        if session in group.leaving and not session.in_flight.leases.has(group.name):
            self._memberships[session].discard(group)
            self._remove(group, session)

    def detach(self, session: Session, *, lost: bool = False, hold: bool = False) -> None:
        """The client is gone: what it did not acknowledge goes to the others, of many groups in
        several turns of the loop. `lost`: without a word, which may be because of the message that
        it had longest; `hold`: as its broker stops, be it another one."""
        self.refusals.flush()  # They count, whatever becomes of the group.
        groups = self._memberships.pop(session, ())
        self._without_room.pop(session, None)
        stopping = self.lingering.stopping
        hold |= stopping
        oldest = session.in_flight.leases.oldest() if lost and not stopping else None
        sent = by_group(session.in_flight.return_leases())
        for name, leases in sent.items():
            if (open_group := self.get(name)) is not None:
                part_with = open_group.redelivery.part_with
                sent[name] = part_with(session, leases, oldest, hold=hold)
        if ended := sent.pop(OF_NO_GROUP.group, ()):
            self.lingering.lost(session, len(ended))
        waiting = by_group(session.supply.waiting_leases())
        if session in self.borrowing.work:
            self.borrowing.detach(session, oldest, waiting, hold=stopping)
        for group in groups:
            group.forget(session)
        self._partings.part(session, groups, waiting, sent)

    def _remove(self, group: Group, session: Session) -> None:
        group.forget(session)
        self._close_if_empty(group)

    def _close_if_empty(self, group: Group) -> None:
        if group.empty and group.ending is None and self._groups.get(group.name) is group:
            self._close(group)

    def _close(self, group: Group) -> None:
        """Nobody is there: the group waits in the log."""
        self._groups.pop(group.name, None)
        self._openings.close(group)

    def settle(self, session: Session) -> None:
        """Tell the groups which leases of this member ended."""
        if not session.in_flight.leases.settled:
            return
        for name, leases in by_group(session.in_flight.leases.take_settled()).items():
            if self.borrowing.acknowledged(session, name, leases):
                continue
            if (group := self._groups.get(name)) is not None:
                group.acknowledged(session, leases)
                self._let_finished_go(group, session)

    def refused(self, name: str, refusals: Sequence[Refusal]) -> None:
        """Members refuse these. In a group that no command made that is final. [MQTT-4.8.2-6]"""
        refusals = [each for each in refusals if not self.borrowing.refused(*each)]
        if refusals and (group := self.get(name)) is not None:
            for member in fail(group, refusals):
                self._let_finished_go(group, member)

    def stalled(self, session: Session) -> None:
        """The member's socket is full: leases that wait for it go to others."""
        if session in self.borrowing.work:
            self.borrowing.return_unsent(session, stalled=True)
        if session.supply.aside and session in self._memberships:
            for name, waiting in by_group(session.supply.waiting_leases()).items():
                self._groups[name].return_leases(waiting)

    def drained(self, session: Session) -> None:
        """The member has sent something: it may have room for more."""
        if session in self.borrowing.work:
            self.borrowing.drained(session)
        groups = iter(self._without_room.pop(session, ()))
        for group in groups:
            # It leases, which wakes the member, and so comes here again: with no group to go on to.
            group.drained(session)
            if session.supply.aside or not session.in_flight.room():
                break
        if left := dict.fromkeys(groups):
            self._without_room[session] = left | self._without_room.get(session, {})
