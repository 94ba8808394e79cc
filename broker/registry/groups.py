"""Shared Subscriptions: the group owns the place in the log, its members lease messages. [4.8.2]

A group (`$share/<name>/<filter>`) is a durable session of its own under that name, fed by delivery
like any other. Instead of a client it is emptied into the sessions of its connected members:

    delivery ─▶ group's session ─▶ a lease to the member whose turn it is ─▶ `aside` of its session
                    ▲
                    └─ PUBACK ends the lease; a member that leaves returns what it has

- Each message goes to one member, in turn, and to none without room in its window. What was
  returned goes out again before what is new.
- The group outlives the absence of all members, and a restart: it costs an offset, like any
  subscriber, until it was without members for `session_expiry_default_s`.
- Who unsubscribes finishes what it has; until it has, or is gone, the group stays open for that.
- A crash repeats at most `inflight_max` acknowledged messages for each member (P4).
- A QoS 2 message belongs to the member it was sent to: the lease ends in the same commit that makes
  its Packet Identifier durable, and nobody else gets it. [MQTT-4.8.2-4, MQTT-4.8.2-5]
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import replace

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery, Subscriber
from broker.documents import Put, SubscriptionDocument
from broker.errors import QuotaExceeded, StoreError, StoreFull
from broker.log.log import Log
from broker.message import Lease, Message, Outgoing
from broker.registry.sessions import Owner, Sessions
from broker.session.grants import merge_grants
from broker.session.in_flight import PACKET_IDENTIFIER_MAX
from broker.session.session import Session
from broker.topics import is_shared, parse_shared

logger = logging.getLogger(__name__)

WAITING_MAX = 1000
"""Leases that may wait in one member's session beside those in flight."""
TAKE_BYTES_MAX = 64 * 1024
RETURNED_MAX = 64
"""Returned messages that are read from the log at a time."""


class Groups:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        sessions: Sessions,
        counters: Counters,
        config: Config,
        clock: Clock,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._sessions = sessions
        self._counters = counters
        self._config = config
        self._clock = clock
        self._groups: dict[str, Group] = {}
        self._memberships: dict[Session, set[Group]] = {}
        """The groups that a session is a member of, or has leases of."""

    @property
    def open_count(self) -> int:
        """Groups that are not waiting in the log."""
        return len(self._groups)

    async def attach(self, session: Session, subscriber: Subscriber) -> None:
        """A client came back to its session: it is a member of its groups again."""
        for subscription in list(session.subscriptions.values()):
            if is_shared(subscription.filter):
                await self.join(session, subscription, subscriber)

    async def join(
        self, session: Session, subscription: SubscriptionDocument, subscriber: Subscriber
    ) -> None:
        """Let the session have its share from now on. Raises StoreError, QuotaExceeded."""
        while True:
            group = self._groups.setdefault(subscription.filter, Group(subscription.filter))
            async with group.lock:
                if self._groups.get(group.name) is not group:
                    continue  # All its members left while we waited.
                try:
                    if group.session is None:
                        await self._open(group)
                except (StoreError, QuotaExceeded):
                    del self._groups[group.name]
                    raise
                if session.attached:
                    self._memberships.setdefault(session, set()).add(group)
                    group.add(session, subscription, subscriber)
                elif group.empty:
                    self._close(group)
                return

    async def _open(self, group: Group) -> None:
        shared = parse_shared(group.name)
        assert shared is not None
        session, _ = await self._sessions.open(
            group.name,
            group,
            clean_start=False,
            session_expiry_s=self._config.session_expiry_default_s,
            receive_maximum=self._config.inflight_max,
            operations=list,
            now=self._clock.now(),
        )
        group.opened(
            session,
            self._log,
            self._delivery,
            self._counters,
            self._clock,
            self._config.inflight_max,
        )
        _, topic_filter = shared
        if topic_filter not in session.subscriptions:
            subscription = SubscriptionDocument(
                group.name,
                topic_filter,
                qos=1,
                no_local=False,
                retain_as_published=False,
                retain_handling=2,
                subscription_id=None,
                start_offset=self._log.high_watermark,
            )
            self._delivery.subscribe(session, subscription)
            # With the cursor: whatever comes from here on is owed, also after a crash.
            self._log.changed(session)
            await self._log.commit_now([Put(replace(subscription))])

    def leave(self, session: Session, name: str) -> None:
        """The session unsubscribed: it gets no more, and finishes what it has. [MQTT-3.10.4-3]"""
        for group in [g for g in self._memberships.get(session, ()) if g.name == name]:
            group.leave(session, session.return_leases(name, inflight=False))
            self._let_finished_go(group, session)

    def _let_finished_go(self, group: Group, session: Session) -> None:
        """If one that unsubscribed has nothing in flight of this group any more."""
        if session in group.leaving and not session.in_flight.has_lease(group.name):
            self._memberships[session].discard(group)
            self._remove(group, session)

    def detach(self, session: Session) -> None:
        """The client is gone: what it did not acknowledge goes to the others."""
        for group in self._memberships.pop(session, ()):
            group.leave(session, session.return_leases(group.name, inflight=True))
            self._remove(group, session)

    def _remove(self, group: Group, session: Session) -> None:
        group.leaving.discard(session)
        if group.empty:
            self._close(group)

    def _close(self, group: Group) -> None:
        """Nobody is there: the group waits in the log."""
        session, group.session = group.session, None
        self._groups.pop(group.name, None)
        if session is not None:
            self._sessions.close(session, group, self._clock.now())

    def settle(self, session: Session) -> None:
        """Tell the groups which leases of this member ended."""
        if not session.in_flight.settled:
            return
        ended: dict[str, list[int]] = {}
        for lease in session.in_flight.take_settled():
            ended.setdefault(lease.group, []).append(lease.packet_id)
        for name, packet_ids in ended.items():
            group = self._groups.get(name)
            if group is not None:
                group.acknowledged(packet_ids)
                self._let_finished_go(group, session)

    def drained(self, session: Session) -> None:
        """The member has sent something: it may have room for more."""
        for group in tuple(self._memberships.get(session, ())):
            group.wake()


class Group(Owner):
    """One group: empties its session into those of its members."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.session: Session | None = None
        self.members: dict[Session, tuple[SubscriptionDocument, Subscriber]] = {}
        self.leaving: set[Session] = set()
        """Members no more, but they may still acknowledge what they have."""
        self.lock = asyncio.Lock()
        self._turns: deque[Session] = deque()
        self._returned: deque[int] = deque()
        """The group's Packet Identifiers of what is to be leased again, in offset order."""
        self._returning: asyncio.Task[None] | None = None
        self._distributing = False

    @property
    def empty(self) -> bool:
        """Nobody has a lease, and nobody can get one."""
        return not (self.members or self.leaving)

    def opened(
        self,
        session: Session,
        log: Log,
        delivery: Delivery,
        counters: Counters,
        clock: Clock,
        inflight_max: int,
    ) -> None:
        """The session is ours. What an earlier run had leased is leased again."""
        self.session = session
        self._log = log
        self._delivery = delivery
        self._counters = counters
        self._clock = clock
        self._inflight_max = inflight_max
        self._returned = deque(entry.packet_id for entry in session.in_flight.unfinished())

    def add(
        self, session: Session, subscription: SubscriptionDocument, subscriber: Subscriber
    ) -> None:
        if session not in self.members:
            self._turns.append(session)
        self.members[session] = (subscription, subscriber)
        self.leaving.discard(session)
        self.wake()

    def leave(self, session: Session, leases: Iterable[Lease]) -> None:
        """A member gets no more and returns these."""
        if self.members.pop(session, None) is not None:
            self._turns.remove(session)
            self.leaving.add(session)
        packet_ids = [lease.packet_id for lease in leases]
        if self.session is not None and packet_ids:
            offsets = self.session.in_flight.offsets({*packet_ids, *self._returned})
            self._returned = deque(sorted(offsets, key=lambda packet_id: offsets[packet_id]))
        self.wake()

    def acknowledged(self, packet_ids: Sequence[int]) -> None:
        """Leases ended: the group's cursor moves."""
        if self.session is not None:
            self.session.in_flight.puback(packet_ids)
            self._log.changed(self.session, self._cursor_committed, urgent=False)

    def _cursor_committed(self, error: StoreError | None) -> None:
        if error is None or isinstance(error, StoreFull):
            self.wake()

    def wake(self) -> None:
        """Lease out what there is, as far as the members have room."""
        if self._distributing or self.session is None or not self.members:
            return
        if self._returned:
            if self._returning is None and self._room():
                self._returning = asyncio.create_task(self._lease_returned(self.session))
            return
        self._distributing = True
        try:
            self._lease_new(self.session)
        finally:
            self._distributing = False

    def _lease_new(self, session: Session) -> None:
        sharing = len(self.members) + len(self.leaving)
        inflight_max = min(self._inflight_max * sharing, PACKET_IDENTIFIER_MAX)
        while room := self._room():
            # Nothing is taken that no member can have now.
            session.in_flight.allow(room, inflight_max=inflight_max)
            taken = session.take(self._clock.wall_us(), TAKE_BYTES_MAX)
            if taken.expired:
                self._counters.dropped["expired"] += len(taken.expired)
            if not taken.outgoing:
                break
            if 0 in taken.packet_ids:
                # Nobody acknowledges QoS 0, and a crash must not repeat all of it.
                self._log.changed(session)
            self._lease([message for message, _ in taken.outgoing], taken.packet_ids)
        self._delivery.drained(session)

    async def _lease_returned(self, session: Session) -> None:
        try:
            while self._returned and (room := self._room()) and self.session is session:
                count = min(room, RETURNED_MAX, len(self._returned))
                packet_ids = [self._returned[i] for i in range(count)]
                offsets = session.in_flight.offsets(packet_ids)
                messages = await self._log.store.fetch(
                    list(offsets.values()), bytes_max=TAKE_BYTES_MAX
                )
                if self.session is not session or not self._room():
                    break
                if messages:  # What is above the last that was found was maybe not looked for.
                    last = messages[-1].offset
                    packet_ids = [p for p in packet_ids if offsets.get(p, last) <= last]
                found = {message.offset: message for message in messages}
                gone = [p for p in packet_ids if offsets.get(p) not in found]
                leased = [p for p in packet_ids if offsets.get(p) in found]
                self._returned = deque(p for p in self._returned if p not in packet_ids)
                if gone:
                    self._counters.dropped["removed by retention"] += len(gone)
                    session.in_flight.discard(gone)
                self._lease([found[offsets[p]] for p in leased], leased)
        except StoreError as error:
            self.broken(error)
        finally:
            self._returning = None
        if not self._returned:
            self.wake()

    def _room(self) -> int:
        """How many messages all members together can have now."""
        return sum([_room_of(member) for member in self.members])

    def _lease(self, messages: Sequence[Message], packet_ids: Sequence[int]) -> None:
        """Hand these to the members in turn, passing over who has no room."""
        room = {member: _room_of(member) for member in self.members}
        grants = {
            member: merge_grants([subscription])
            for member, (subscription, _) in self.members.items()
        }
        leased: dict[Session, list[Outgoing]] = {}
        for message, packet_id in zip(messages, packet_ids, strict=True):
            member = self._turns[0]
            for _ in range(len(self._turns)):
                member = self._turns[0]
                self._turns.rotate(-1)
                if room[member] > 0:
                    break
            room[member] -= 1
            grant = grants[member]
            assert grant is not None
            if packet_id:
                grant = replace(grant, lease=Lease(self.name, packet_id))
            leased.setdefault(member, []).append((message, grant))
        for member, outgoing in leased.items():
            member.offer_aside(outgoing)
        for member in leased:
            if member in self.members:
                self.members[member][1].wake()

    def broken(self, error: StoreError) -> None:
        """The log cannot be read: the members get no more until somebody joins anew."""
        logger.error("group %s: %s", self.name, error)

    def taken_over(self) -> None:
        raise AssertionError("clients cannot have the name of a group")


def _room_of(member: Session) -> int:
    return max(0, min(member.room(), WAITING_MAX) - len(member.aside))
