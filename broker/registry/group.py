"""Group: one group of a Shared Subscription, which empties its session into those of its members.

    delivery ─▶ group's session ─▶ a lease to the member whose turn it is ─▶ `aside` of its session
                    ▲
                    └─ PUBACK ends the lease; a member that leaves returns what it has

- Each message goes to one member, in turn: one with room in its window and in its socket, that
  has taken what it was handed before and takes packets of that size. What was returned goes out
  again before what is new. A message too large for every member is counted as dropped.
- Only members that may have room have a turn. Who is found without room has one again when its
  client has sent something or has acknowledged (`drained`): an acknowledgement costs the same
  however many members there are.
- QoS 0 comes to a group when it is logged, which begins at once: a lease needs its offset.
- QoS 0 is leased as well, until the member sent it: who leaves without that returns it.
- If the group's own log cannot be read, its members are cut off: who stayed would wait for ever.
  The group opens anew when they come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from broker import tasks
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.delivery.routes import parts
from broker.delivery.sender import RESEND_MESSAGES_MAX, TOO_LARGE, Recipient, Sender
from broker.delivery.subscribers import Subscriber
from broker.documents import SubscriptionDocument
from broker.errors import StoreError, StoreUnavailable
from broker.log.log import Log
from broker.message import Grant, Lease, Message, Outgoing
from broker.registry.faces import Owner
from broker.session.grants import merge_grants
from broker.session.in_flight import PACKET_IDENTIFIER_MAX
from broker.session.session import Session

logger = logging.getLogger(__name__)

WAITING_MAX = 1000
"""Leases that a member is handed at a time. Their bytes are bounded by what a `Sender` takes."""
UNPLACED_MAX = 64
UNPLACED_BYTES_MAX = 256 * 1024
"""What waits for members that take packets so large; beyond, the group waits for them."""


CUT_OFF_AT_ONCE_MAX = 100
"""Members that are cut off in one turn of the loop: about 10 ms."""


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


WithoutRoom = dict[Session, "dict[Group, None]"]
"""By member: the groups that found it without room, and wait for it to have some."""


class Group(Owner, Recipient):
    """One group: empties its session into those of its members."""

    def __init__(self, name: str, without_room: WithoutRoom) -> None:
        self.name = name
        self._without_room = without_room
        self.sender: Sender | None = None
        """What empties the group's own session; None while that is not open."""
        self.members: dict[Session, tuple[Grant, Member]] = {}
        """And how each gets its share."""
        self.leaving: set[Session] = set()
        """Members no more, but they may still acknowledge what they have."""
        self.lock = asyncio.Lock()
        self.ending: asyncio.Future[None] | None = None
        """Done when it is known whether anybody is subscribed; None: nobody has asked."""
        self._turns: OrderedDict[Session, None] = OrderedDict()
        """The members that may have room, in their turn."""
        self._drained: set[Session] = set()
        """Members that may have room for what is unplaced."""
        self._not_sent: set[int] = set()
        """Packet Identifiers of returned leases that nobody was sent."""
        self._unplaced: deque[tuple[Outgoing, int]] = deque()
        """Leases, with their Packet Identifiers, that fit only members without room."""
        self._unplaced_bytes = 0
        self._member_left = False
        """Since then, what is unplaced may fit no other member."""
        self._distributing = False
        self._cut_off = False
        """Whether the members are being cut off."""
        self._cutting: asyncio.Task[None] | None = None

    @property
    def member_names(self) -> list[str]:
        return [session.client_id for session in self.members]

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
        inflight_max: int,
    ) -> None:
        """The session is ours. What an earlier run had leased is leased again."""
        self._delivery = delivery
        self._counters = counters
        self._time = log.time
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
        self._drained.clear()
        self._unplaced.clear()
        self._unplaced_bytes = 0

    def add(self, session: Session, subscription: SubscriptionDocument, subscriber: Member) -> None:
        grant = merge_grants([subscription])
        assert grant is not None
        self.members[session] = (grant, subscriber)
        self.leaving.discard(session)
        self.drained(session)

    def leave(self, session: Session, waiting: Sequence[Lease], sent: Sequence[Lease] = ()) -> None:
        """A member gets no more and returns these, which are leased again."""
        if self._remove(session):
            self.leaving.add(session)
        self.return_leases(waiting, sent)

    def forget(self, session: Session) -> None:
        """It is gone, and has nothing of this group any more."""
        self._remove(session)
        self.leaving.discard(session)

    def _remove(self, member: Session) -> bool:
        """Whether it was a member."""
        self._turns.pop(member, None)
        self._member_left = True
        return self.members.pop(member, None) is not None

    def return_leases(self, waiting: Sequence[Lease], sent: Sequence[Lease] = ()) -> None:
        """These are leased again; nobody was sent the `waiting` ones."""
        if self.sender is not None:
            window = self.sender.session.in_flight
            packet_ids = [lease.packet_id for lease in (*sent, *waiting)]
            self.sender.resend(window.sent_qos1(packet_ids))
            self._not_sent.update([lease.packet_id for lease in waiting])
        self.wake()

    def acknowledged(self, packet_ids: Sequence[int]) -> None:
        """Leases ended: the group's cursor moves, in the commit that makes a member's Packet
        Identifiers durable."""
        if self.sender is not None:
            self.sender.session.in_flight.puback(packet_ids)
            self.sender.cursor_moved(with_others=True)

    def drained(self, member: Session) -> None:
        """The member's client has sent something, or may send more: it may have room."""
        if member in self.members:
            self._turns.setdefault(member)
            if self._unplaced:
                self._drained.add(member)
        self.wake()

    def wake(self) -> None:
        """Lease out what there is, as far as the members have room."""
        if self._distributing or self._cut_off or self.sender is None or not self.members:
            return
        self._distributing = True
        try:
            while True:
                self._lease_unplaced()
                self._lease_new(self.sender)
                if not self._drained:
                    break
            for member in self.members if self._unplaced else ():
                self._without_room.setdefault(member, {})[self] = None
        except Exception as error:
            self.failed(error)
        finally:
            self._distributing = False

    def _lease_new(self, sender: Sender) -> None:
        session = sender.session
        sharing = len(self.members) + len(self.leaving)
        inflight_max = min(self._inflight_max * sharing, PACKET_IDENTIFIER_MAX)
        while (session.waiting or sender.left) and (room := self.room()):
            # Nothing is taken that no member can have now.
            session.in_flight.allow(room, inflight_max=inflight_max)
            taken = sender.take(self._time.aged_us())
            if taken is None:
                break
            self._lease(taken.outgoing, taken.packet_ids)
        self._delivery.drained(session)

    def room(self) -> int:
        """How many messages the members together can have now, as far as there are any."""
        if len(self._unplaced) >= UNPLACED_MAX or self._unplaced_bytes >= UNPLACED_BYTES_MAX:
            return 0
        waiting = 0 if self.sender is None else len(self.sender.session.outbox)
        enough = min(max(waiting, RESEND_MESSAGES_MAX), WAITING_MAX)
        room = 0
        without: list[Session] = []
        for member in self._turns:
            its_room = self._room_of(member)
            room += its_room
            if not its_room:
                without.append(member)
            elif room >= enough:
                break
        for member in without:
            self._wait_for(member)
        return room

    def _wait_for(self, member: Session) -> None:
        """It has no room: it has no turn until it has some."""
        del self._turns[member]
        self._without_room.setdefault(member, {})[self] = None

    def _room_of(self, member: Session) -> int:
        """What was handed to it goes first: so a member whose client does not read holds little."""
        _, client = self.members[member]
        return 0 if member.aside or not client.takes_more else min(member.room(), WAITING_MAX)

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        """What a member returned goes to others."""
        again = len(set(packet_ids) - self._not_sent)
        self._counters.redeliveries += again
        if self.sender is not None:
            self.sender.session.tally.sent_again(again)
        self._not_sent.difference_update(packet_ids)
        self._lease(outgoing, packet_ids)

    def _lease_unplaced(self) -> None:
        """As far as it fits a member that has room by now, or no member any more."""
        if self._member_left:
            self._member_left = False
            unplaced, self._unplaced, self._unplaced_bytes = self._unplaced, deque(), 0
            for out, packet_id in unplaced:
                self._lease([out], [packet_id])
        while self._drained:
            member = self._drained.pop()
            while self._unplaced and member in self.members and self._room_of(member):
                out, packet_id = self._unplaced[0]
                if not self._fits(member, out[0]):
                    break
                self._unplaced.popleft()
                self._unplaced_bytes -= out[0].cost
                self._lease([out], [packet_id])

    def _lease(self, outgoing: Sequence[Outgoing], packet_ids: Sequence[int]) -> None:
        """Hand these to the members in turn, passing over who has no room or takes no packets of
        that size."""
        room: dict[Session, int] = {}
        leased: dict[Session, list[Outgoing]] = {}
        too_large: list[int] = []
        for out, packet_id in zip(outgoing, packet_ids, strict=True):
            message, shared = out
            member = self._whose_turn(message, room)
            if member is not None:
                room[member] -= 1
                lease = Lease(self.name, packet_id)
                grant = replace(self.members[member][0], lease=lease, missing=shared.missing)
                leased.setdefault(member, []).append((message, grant))
            elif any(self._fits(member, message) for member in self.members):
                self._unplaced.append((out, packet_id))
                self._unplaced_bytes += message.cost
            else:
                too_large.append(packet_id)
        for member, its_share in leased.items():
            member.offer_aside(its_share)
        if too_large and self.sender is not None:
            self.sender.discard(too_large, TOO_LARGE)
        for member in leased:
            self._delivery.wake(member)

    def _whose_turn(self, message: Message, room: dict[Session, int]) -> Session | None:
        """The next member with room that takes such a message. `room`: as far as it was asked."""
        for _ in range(len(self._turns)):
            member = next(iter(self._turns))
            if member not in room:
                room[member] = self._room_of(member)
            if room[member] <= 0:
                self._wait_for(member)
                continue
            self._turns.move_to_end(member)
            if self._fits(member, message):
                return member
        return None

    def _fits(self, member: Session, message: Message) -> bool:
        grant, client = self.members[member]
        try:
            return not client.limits_packets or client.fits(message, grant)
        except Exception as error:
            # In the next turn, as it leaves the group then, which is busy with its members now.
            asyncio.get_running_loop().call_soon(self._delivery.failed, member, error)
            return False

    def broken(self, error: StoreError) -> None:
        logger.error("group %s: %s", self.name, error)
        self._cut_members_off(error)

    def failed(self, error: Exception) -> None:
        logger.critical("group %s is cut off", self.name, exc_info=error)
        if self.sender is not None:
            self.sender.session.end()
        self._cut_members_off(StoreUnavailable(f"group {self.name} cannot be served"))

    def _cut_members_off(self, error: StoreError) -> None:
        """In several turns of the loop if they are many. Nothing is leased meanwhile, and whoever
        joins waits."""
        self._cut_off = True
        first, *more = [*parts([*self.members, *self.leaving], CUT_OFF_AT_ONCE_MAX)] or [[]]
        if more:
            self._cutting = tasks.start(self._cut_more_off(more, error), self._not_cut_off)
        self._cut_some_off(first, error)
        self._cut_off = bool(more)

    async def _cut_more_off(self, more: Sequence[Sequence[Session]], error: StoreError) -> None:
        async with self.lock:
            for part in more:
                await asyncio.sleep(0)
                self._cut_some_off(part, error)
            self._cut_off = False

    def _cut_some_off(self, part: Sequence[Session], error: StoreError) -> None:
        for member in part:
            if member in self.members or member in self.leaving:
                self._delivery.failed(member, error)

    def _not_cut_off(self, error: Exception) -> None:
        logger.critical("members of group %s are not cut off", self.name, exc_info=error)

    def taken_over(self) -> None:
        raise AssertionError("clients cannot have the name of a group")
