"""Group: one group of a Shared Subscription, which empties its session into those of its members.

    delivery ─▶ group's session ─▶ a lease to the member whose turn it is ─▶ `aside` of its session
                    ▲
                    └─ PUBACK ends the lease; a member that leaves returns what it has

- Each message goes to one member, in turn: one with room in its window and in its socket, that
  has taken what it was handed before, takes packets of that size and may read it. What was returned
  goes out again before what is new. A message too large for every member is a dead letter.
- Only members that may have room have a turn: who is found without, has one again when its client
  has sent something or has acknowledged (`drained`). So that costs the same with many members.
- QoS 0 is leased as well, when it is logged and until the member sent it.
- What a member refused, held too long or died of is tried again later, or is a dead letter: see
  `redelivery`. It is out of the way of everything else meanwhile.
- If the group's own log cannot be read, its members are cut off: who stayed would wait for ever.
  The group opens anew when they come again.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.delivery.sender import RESEND_MESSAGES_MAX, Recipient, Sender
from broker.errors import StoreError, StoreUnavailable
from broker.log.log import Log
from broker.message import Grant, Lease, Message, Offset, Outgoing
from broker.registry.faces import Member, Owner
from broker.registry.groups.cutting_off import CuttingOff
from broker.registry.groups.readership import FOR_NOBODY, fits, why_not
from broker.registry.groups.redelivery import Redelivery
from broker.registry.groups.retries import Failure, Retry
from broker.registry.groups.unplaced import Unplaced
from broker.session.exchange import InFlight
from broker.session.in_flight import PACKET_IDENTIFIER_MAX
from broker.session.session import Session

logger = logging.getLogger(__name__)

WAITING_MAX = 1000
"""Leases that a member is handed at a time. Their bytes are bounded by what a `Sender` takes."""

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
        """Members that may have room for what is unplaced or is to be tried again."""
        self._not_sent: set[int] = set()
        """Packet Identifiers of returned leases that nobody was sent."""
        self._unplaced = Unplaced()
        self._member_left = False
        """Since then, what is unplaced may fit no other member."""
        self._distributing = False
        self._cutting = CuttingOff(name, self.lock)

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
        redelivery: Redelivery,
        left: Iterable[InFlight],
    ) -> None:
        """The session is ours. What an earlier run has `left` is leased again."""
        self.redelivery = redelivery
        redelivery.opened(session)
        self._delivery, self._counters = delivery, counters
        self._time, self._inflight_max = log.time, inflight_max
        session.in_flight.keep_qos0()
        self.sender = Sender(session, self, log, delivery, counters)
        self.sender.resend(left)

    def closed(self) -> None:
        """The session is not ours any more."""
        if self.sender is not None:
            self.sender.stop()
            self.sender = None
            self.redelivery.close()
        self._not_sent.clear()
        self._drained.clear()
        self._unplaced.take_all()

    async def add(self, member: Session, grant: Grant, subscriber: Member) -> None:
        """It has its turn when it has what it had when the broker stopped. Raises StoreError."""
        self.admit(member, grant, subscriber)
        for message, retry in await self.redelivery.held_by(member.client_id):
            here = member in self.members and self._fits(member, message)
            if here and self.redelivery.take(retry):
                self._lease_again(member, message, retry)
        if member.supply.aside:
            self._delivery.wake(member)
        self.drained(member)

    def admit(self, member: Session, grant: Grant, client: Member) -> None:
        """It is a member, which may have leases."""
        self.members[member] = (grant, client)
        self.leaving.discard(member)
        self.redelivery.comes()
        if member.in_flight.leases.held:
            self.redelivery.lease_begins()
        self._turns.setdefault(member)

    def leave(self, session: Session, waiting: Sequence[Lease]) -> None:
        """A member gets no more and returns these, which are leased again."""
        if self._remove(session):
            self.leaving.add(session)
        self.return_leases(waiting)

    def forget(self, session: Session) -> None:
        """It is gone, with all of this group."""
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
            returned = [*sent, *waiting]
            packet_ids = [lease.packet_id for lease in returned if lease.packet_id]
            self.sender.resend(window.sent_qos1(packet_ids))
            self._not_sent.update([lease.packet_id for lease in waiting if lease.packet_id])
            if len(packet_ids) < len(returned):
                self.redelivery.returned([lease for lease in returned if not lease.packet_id])
        self.wake()

    def acknowledged(self, member: Session, leases: Sequence[Lease]) -> None:
        """Leases ended: the group's cursor moves, in the commit that makes a member's Packet
        Identifiers durable."""
        if self.sender is None:
            return
        packet_ids = [lease.packet_id for lease in leases if lease.packet_id]
        if packet_ids:
            self.sender.session.in_flight.puback(packet_ids)
            self.cursor_moved()
        if len(packet_ids) < len(leases):
            self.redelivery.done(member, [lease for lease in leases if not lease.packet_id])

    def cursor_moved(self) -> None:
        if self.sender is not None:
            self.sender.cursor_moved(with_others=True)

    def failed_at(self, failures: Sequence[Failure]) -> None:
        """These leases did not end well."""
        if self.sender is not None:
            self.redelivery.failed(failures)
        self.wake()

    def rights_changed(self) -> None:
        """What fitted no member may fit one by now, or no member any more."""
        self._member_left = True
        if self._unplaced or self.redelivery.ready:  # Few groups have any, and all are asked.
            self.wake()

    def drained(self, member: Session) -> None:
        """The member's client has sent something, or may send more: it may have room."""
        if member in self.members:
            self._turns.setdefault(member)
            if self._unplaced or self.redelivery.ready:
                self._drained.add(member)
        self.wake()

    def wake(self) -> None:
        """Lease out what there is, as far as the members have room."""
        if self._distributing or self._cutting.under_way or self.sender is None or not self.members:
            return
        self._distributing = True
        try:
            while True:
                self._lease_unplaced()
                self._lease_ready()
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
        while (session.supply.waiting or sender.left) and (room := self.room()):
            # Nothing is taken that no member can have now.
            session.in_flight.allow(room, inflight_max=inflight_max)
            taken = sender.take(self._time.aged_us())
            if taken is None:
                break
            self._lease(taken.outgoing, taken.packet_ids)
        self._delivery.drained(session)

    def room(self) -> int:
        """How many messages the members together can have now, as far as there are any."""
        if self._unplaced.full:
            return 0
        waiting = len(self.sender.session.outbox) if self.sender else 0
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
        self._turns.pop(member, None)
        self._without_room.setdefault(member, {})[self] = None

    def _room_of(self, member: Session) -> int:
        """What was handed to it goes first: so a member whose client does not read holds little."""
        _, client = self.members[member]
        may = client.takes_more and not member.supply.aside
        return min(member.in_flight.room(), WAITING_MAX) if may else 0

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
            for out, packet_id in self._unplaced.take_all():
                self._lease([out], [packet_id])
        while self._drained:
            member = self._drained.pop()
            while self._unplaced and member in self.members and self._room_of(member):
                if not self._fits(member, self._unplaced.first()):
                    break
                out, packet_id = self._unplaced.take()
                self._lease([out], [packet_id])

    def _lease_ready(self) -> None:
        """What is to be tried again, to members that do not have this message still."""
        redelivery = self.redelivery
        ready: list[tuple[Message, Retry]] = []
        if self._turns:  # Else nobody can have any, nor does it matter who could.
            ready, redelivery.ready = redelivery.ready, []
        room: dict[Session, int] = {}
        leased: set[Session] = set()
        for message, retry in ready:
            member = self._whose_turn(message, room, redelivery.has_had)
            if member is not None:
                room[member] -= 1
                self._lease_again(member, message, retry)
                leased.add(member)
            elif self.members and not any(self._fits(each, message) for each in self.members):
                redelivery.too_large(message, retry, why_not(self.members, message))
            elif self.members and all(
                redelivery.has_had(each, message.offset) for each in self.members
            ):
                redelivery.wait_for_another(retry)
            else:
                redelivery.ready.append((message, retry))
        for member in leased:
            self._delivery.wake(member)
        redelivery.look()

    def _lease_again(self, member: Session, message: Message, retry: Retry) -> None:
        now = self.redelivery.now()
        lease = Lease(self.name, 0, message.offset, retry.attempts + 1, now)
        self.redelivery.leased(retry, lease)
        self.redelivery.lease_begins()
        member.supply.offer_aside([(message, replace(self.members[member][0], lease=lease))])

    def _lease(self, outgoing: Sequence[Outgoing], packet_ids: Sequence[int]) -> None:
        """Hand these to the members in turn, passing over who has no room or cannot have them."""
        room: dict[Session, int] = {}
        leased: dict[Session, list[Outgoing]] = {}
        unfit: list[Failure] = []
        forbidden: list[int] = []
        passes_over = self.redelivery.policy.refusals_are_final  # No operator made it.
        now = self.redelivery.now()
        for out, packet_id in zip(outgoing, packet_ids, strict=True):
            message, shared = out
            member = self._whose_turn(message, room)
            if member is not None:
                room[member] -= 1
                lease = Lease(self.name, packet_id, message.offset, 1, now)
                grant = replace(self.members[member][0], lease=lease, missing=shared.missing)
                leased.setdefault(member, []).append((message, grant))
            elif any(self._fits(member, message) for member in self.members):
                self._unplaced.add(out, packet_id)
            elif (why := why_not(self.members, message)) == FOR_NOBODY and passes_over:
                forbidden.append(packet_id)
            else:
                lease = Lease(self.name, packet_id, message.offset, 1)
                unfit.append(Failure(lease, why, "", counts=False, final=True))
        for member, its_share in leased.items():
            member.supply.offer_aside(its_share)
        if leased:
            self.redelivery.lease_begins()
        if unfit:
            self.failed_at(unfit)
        if forbidden and self.sender is not None:
            self.sender.discard(forbidden, FOR_NOBODY)
        for member in leased:
            self._delivery.wake(member)

    def _whose_turn(
        self,
        message: Message,
        room: dict[Session, int],
        barred: Callable[[Session, Offset], bool] | None = None,
    ) -> Session | None:
        """The next member with room that takes such a message. `room`: as far as it was asked;
        `barred`: whether a member must not have it."""
        for _ in range(len(self._turns)):
            member = next(iter(self._turns))
            if member not in room:
                room[member] = self._room_of(member)
            if room[member] <= 0:
                self._wait_for(member)
                continue
            self._turns.move_to_end(member)
            if barred is not None and barred(member, message.offset):
                continue
            if self._fits(member, message):
                return member
        return None

    def _fits(self, member: Session, message: Message) -> bool:
        return fits(member, *self.members[member], message, self._delivery.failed)

    def broken(self, error: StoreError) -> None:
        logger.error("group %s: %s", self.name, error)
        self._cut_off(error)

    def failed(self, error: Exception) -> None:
        logger.critical("group %s is cut off", self.name, exc_info=error)
        if self.sender is not None:
            self.sender.session.end()
        self._cut_off(StoreUnavailable(f"group {self.name} cannot be served"))

    def _cut_off(self, error: StoreError) -> None:
        def cut_one(member: Session) -> None:
            if member in self.members or member in self.leaving:
                self._delivery.failed(member, error)

        self._cutting.cut_off([*self.members, *self.leaving], cut_one)

    def taken_over(self) -> None:
        self._cut_off(StoreUnavailable(f"another broker has the group {self.name}"))
