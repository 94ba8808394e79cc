"""Shared Subscriptions: a group owns the place in the log, members lease messages [MQTT 5, 4.8.2]

A group (`$share/<name>/<filter>`) is a durable session of its own under that name, fed by delivery
like any other. Instead of a client it is emptied into the sessions of its connected members:

    delivery ─▶ group's session ─▶ a lease to the member whose turn it is ─▶ `aside` of its session
                    ▲
                    └─ PUBACK ends the lease; a member that leaves returns what it has

- Each message goes to one member, in turn: one with room in its window and in its socket, that
  has taken what it was handed before and takes packets of that size. What was returned goes out
  again before what is new. A message too large for every member is counted as dropped.
- QoS 0 is leased as well, until the member sent it: who leaves without that returns it.
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
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery, Subscriber
from broker.delivery.sender import TOO_LARGE, Recipient, Sender
from broker.documents import Put, SubscriptionDocument
from broker.errors import QuotaExceeded, StoreError
from broker.log.log import Log
from broker.message import Grant, Lease, Message, Outgoing
from broker.registry.sessions import Owner, Sessions
from broker.session.grants import merge_grants
from broker.session.in_flight import PACKET_IDENTIFIER_MAX
from broker.session.session import Session
from broker.topics import is_shared, parse_shared

logger = logging.getLogger(__name__)

WAITING_MAX = 1000
"""Leases that a member is handed at a time. Their bytes are bounded by what a `Sender` takes."""
UNPLACED_MAX = 64
UNPLACED_BYTES_MAX = 256 * 1024
"""What waits for members that take packets so large; beyond, the group waits for them."""


class Member(Subscriber, Protocol):
    """A client that has a share of a group's messages: leases are put into its session."""

    @property
    def takes_more(self) -> bool:
        """Whether its socket has room. When it has again, it calls `Groups.drained`."""
        ...

    @property
    def limits_packets(self) -> bool:
        """Whether `fits` may be false."""
        ...

    def fits(self, message: Message, grant: Grant) -> bool:
        """Whether it takes packets as large as this message."""
        ...


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

    async def attach(self, session: Session, subscriber: Member) -> None:
        """A client came back to its session: it is a member of its groups again."""
        for subscription in list(session.subscriptions.values()):
            if is_shared(subscription.filter):
                await self.join(session, subscription, subscriber)

    async def join(
        self, session: Session, subscription: SubscriptionDocument, subscriber: Member
    ) -> None:
        """Let the session have its share from now on. Raises StoreError, QuotaExceeded."""
        while True:
            group = self._groups.setdefault(subscription.filter, Group(subscription.filter))
            async with group.lock:
                if self._groups.get(group.name) is not group:
                    continue  # All its members left while we waited.
                try:
                    if group.sender is None:
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
            will=None,
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
            group.leave(session, session.waiting_leases(name))
            self._let_finished_go(group, session)

    def _let_finished_go(self, group: Group, session: Session) -> None:
        """If one that unsubscribed has nothing in flight of this group any more."""
        if session in group.leaving and not session.in_flight.has_lease(group.name):
            self._memberships[session].discard(group)
            self._remove(group, session)

    def detach(self, session: Session) -> None:
        """The client is gone: what it did not acknowledge goes to the others."""
        for group in self._memberships.pop(session, ()):
            sent = session.in_flight.return_leases(group.name)
            group.leave(session, session.waiting_leases(group.name), sent)
            self._remove(group, session)

    def _remove(self, group: Group, session: Session) -> None:
        group.leaving.discard(session)
        if group.empty:
            self._close(group)

    def _close(self, group: Group) -> None:
        """Nobody is there: the group waits in the log."""
        self._groups.pop(group.name, None)
        if group.sender is not None:
            session = group.sender.session
            group.closed()
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

    def stalled(self, session: Session) -> None:
        """The member's socket is full: leases that wait for it go to others."""
        for group in tuple(self._memberships.get(session, ())) if session.aside else ():
            group.return_leases(session.waiting_leases(group.name))

    def drained(self, session: Session) -> None:
        """The member has sent something: it may have room for more."""
        for group in tuple(self._memberships.get(session, ())):
            group.wake()


class Group(Owner, Recipient):
    """One group: empties its session into those of its members."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.sender: Sender | None = None
        """What empties the group's own session; None while that is not open."""
        self.members: dict[Session, tuple[Grant, Member]] = {}
        """And how each gets its share."""
        self.leaving: set[Session] = set()
        """Members no more, but they may still acknowledge what they have."""
        self.lock = asyncio.Lock()
        self._turns: deque[Session] = deque()
        self._not_sent: set[int] = set()
        """Packet Identifiers of returned leases that nobody was sent."""
        self._unplaced: deque[tuple[Outgoing, int]] = deque()
        """Leases, with their Packet Identifiers, that fit only members without room."""
        self._unplaced_bytes = 0
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
        self._delivery = delivery
        self._counters = counters
        self._clock = clock
        self._inflight_max = inflight_max
        session.in_flight.keep_qos0()
        self.sender = Sender(session, self, log, delivery, counters)
        self.sender.resend(session.in_flight.unfinished())

    def closed(self) -> None:
        """The session is not ours any more."""
        if self.sender is not None:
            self.sender.stop()
            self.sender = None
        self._not_sent.clear()
        self._unplaced.clear()
        self._unplaced_bytes = 0

    def add(self, session: Session, subscription: SubscriptionDocument, subscriber: Member) -> None:
        if session not in self.members:
            self._turns.append(session)
        grant = merge_grants([subscription])
        assert grant is not None
        self.members[session] = (grant, subscriber)
        self.leaving.discard(session)
        self.wake()

    def leave(self, session: Session, waiting: Sequence[Lease], sent: Sequence[Lease] = ()) -> None:
        """A member gets no more and returns these, which are leased again."""
        if self.members.pop(session, None) is not None:
            self._turns.remove(session)
            self.leaving.add(session)
        self.return_leases(waiting, sent)

    def return_leases(self, waiting: Sequence[Lease], sent: Sequence[Lease] = ()) -> None:
        """These are leased again; nobody was sent the `waiting` ones."""
        if self.sender is not None:
            window = self.sender.session.in_flight
            packet_ids = [lease.packet_id for lease in (*sent, *waiting)]
            self.sender.resend(window.sent_qos1(packet_ids))
            self._not_sent.update([lease.packet_id for lease in waiting])
        self.wake()

    def acknowledged(self, packet_ids: Sequence[int]) -> None:
        """Leases ended: the group's cursor moves."""
        if self.sender is not None:
            self.sender.session.in_flight.puback(packet_ids)
            self.sender.cursor_moved()

    def wake(self) -> None:
        """Lease out what there is, as far as the members have room."""
        if self._distributing or self.sender is None or not self.members:
            return
        self._distributing = True
        try:
            self._lease_unplaced()
            self._lease_new(self.sender)
        finally:
            self._distributing = False

    def _lease_new(self, sender: Sender) -> None:
        sharing = len(self.members) + len(self.leaving)
        inflight_max = min(self._inflight_max * sharing, PACKET_IDENTIFIER_MAX)
        while room := self.room():
            # Nothing is taken that no member can have now.
            sender.session.in_flight.allow(room, inflight_max=inflight_max)
            taken = sender.take(self._clock.wall_us())
            if taken is None:
                break
            self._lease(taken.outgoing, taken.packet_ids)
        self._delivery.drained(sender.session)

    def room(self) -> int:
        """How many messages all members together can have now."""
        if len(self._unplaced) >= UNPLACED_MAX or self._unplaced_bytes >= UNPLACED_BYTES_MAX:
            return 0
        return sum([self._room_of(member) for member in self.members])

    def _room_of(self, member: Session) -> int:
        """What was handed to it goes first: so a member whose client does not read holds little."""
        _, client = self.members[member]
        return 0 if member.aside or not client.takes_more else min(member.room(), WAITING_MAX)

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        """What a member returned goes to others."""
        self._counters.redeliveries += len(set(packet_ids) - self._not_sent)
        self._not_sent.difference_update(packet_ids)
        self._lease(outgoing, packet_ids)

    def _lease_unplaced(self) -> None:
        """As far as they fit a member with room by now, or no member any more."""
        while self._unplaced and self.members:
            out, packet_id = self._unplaced[0]
            fitting = [
                m for m, (grant, client) in self.members.items() if client.fits(out[0], grant)
            ]
            if fitting and not any(self._room_of(member) for member in fitting):
                break
            self._unplaced.popleft()
            self._unplaced_bytes -= out[0].size
            self._lease([out], [packet_id])

    def _lease(self, outgoing: Sequence[Outgoing], packet_ids: Sequence[int]) -> None:
        """Hand these to the members in turn, passing over who has no room or takes no packets of
        that size."""
        room = {member: self._room_of(member) for member in self.members}
        leased: dict[Session, list[Outgoing]] = {}
        too_large: list[int] = []
        for out, packet_id in zip(outgoing, packet_ids, strict=True):
            message, _ = out
            member = self._whose_turn(message, room)
            if member is not None:
                room[member] -= 1
                grant = replace(self.members[member][0], lease=Lease(self.name, packet_id))
                leased.setdefault(member, []).append((message, grant))
            elif any(client.fits(message, grant) for grant, client in self.members.values()):
                self._unplaced.append((out, packet_id))
                self._unplaced_bytes += message.size
            else:
                too_large.append(packet_id)
        for member, its_share in leased.items():
            member.offer_aside(its_share)
        if too_large and self.sender is not None:
            self.sender.discard(too_large, TOO_LARGE)
        for member in leased:
            if member in self.members:
                self.members[member][1].wake()

    def _whose_turn(self, message: Message, room: Mapping[Session, int]) -> Session | None:
        for _ in range(len(self._turns)):
            member = self._turns[0]
            self._turns.rotate(-1)
            grant, client = self.members[member]
            if room[member] > 0 and (not client.limits_packets or client.fits(message, grant)):
                return member
        return None

    def broken(self, error: StoreError) -> None:
        """The log cannot be read: the members get no more until somebody joins anew."""
        logger.error("group %s: %s", self.name, error)

    def failed(self, error: Exception) -> None:
        logger.critical("group %s", self.name, exc_info=error)

    def taken_over(self) -> None:
        raise AssertionError("clients cannot have the name of a group")
