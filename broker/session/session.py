"""Session State: subscriptions, Packet Identifiers, QoS 1 and 2 in flight, the place in the log.

A session is fed by its reader (delivery.py) and emptied by its client (client.py):

    offer ──▶ outbox (bounded) ──▶ take ──▶ in flight (bounded) ──▶ acknowledged: the cursor moves

- Only offsets are kept in flight, no payloads: what must be sent again is read from the log.
- `aside` holds what does not come from the session's own place in the log: retained messages and
  replays. It goes first, being older, and the cursor does not wait for it. The place of a replay is
  the `start_offset` of its subscription, that of retained messages its `retained_after`: they move
  with what is taken and are stored with the cursor.
- `take_changes` gives what the next commit must hold of a durable session. A QoS 2 message leaves
  only after its Packet Identifier is committed, PUBREL only after the PUBREC, or a crash of the
  broker could deliver it twice.
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

from broker.documents import (
    CursorDocument,
    Operation,
    Put,
    ReceivedQos2Document,
    SubscriptionDocument,
)
from broker.message import Grant, Lease, Message, Offset, Outgoing, PacketIdentifier
from broker.session.in_flight import InFlight, Stage, pack, unpack
from broker.topics import TopicTree, is_shared

PACKET_IDENTIFIER_MAX = 65_535
GRANT_CACHE_MAX = 10_000
"""Topics whose merged grant one session remembers while it reads the log."""

MOVED_MAX = 100
"""Subscriptions that a commit writes again at most because nothing more was found for them. If they
are not written, that is looked for once more on the next connection: no reason to write all of
10,000 at once, in the commit that others wait for."""


def merge_grants(subscriptions: Iterable[SubscriptionDocument]) -> Grant | None:
    """One copy for overlapping subscriptions: highest QoS, all identifiers. [MQTT-3.3.4-2..3]

    None for no subscription.
    """
    matching = list(subscriptions)
    if not matching:
        return None
    identifiers = {s.subscription_id for s in matching if s.subscription_id is not None}
    return Grant(
        qos=max(s.qos for s in matching),
        retain_as_published=any(s.retain_as_published for s in matching),
        subscription_ids=tuple(sorted(identifiers)),
        metadata=any(s.metadata for s in matching),
    )


class Taken(NamedTuple):
    """What one `take` moved out of a session. A tuple, since one is built per batch."""

    outgoing: list[Outgoing]
    packet_ids: list[int]
    """One for each of `outgoing`; 0 for QoS 0."""
    expired: list[Outgoing]
    """Left out: their Message Expiry Interval had passed. [MQTT-3.3.2-5]"""
    payload_bytes: int
    """Of `outgoing`, without properties."""


class Position:
    """How far a reader got: everything that matches up to `through` was offered.

    Every live session shares one, which routing a batch moves, so that a batch costs nothing for
    the sessions that it does not concern; a session that is behind has its own.
    """

    __slots__ = ("through",)

    def __init__(self, through: Offset) -> None:
        self.through = through


class Session:
    """The state that MQTT keeps per client identifier, connected or not."""

    def __init__(
        self, client_id: str, *, created_at_us: int, start: Offset, inflight_max: int
    ) -> None:
        self.client_id = client_id
        self.created_at_us = created_at_us
        self.session_expiry_s = 0
        self.inflight_max = inflight_max
        self.ended = False
        """Its Session State is to be forgotten, whatever still refers to it."""
        self.attached = False
        self.receive_maximum = inflight_max
        """The connected client's Receive Maximum, or ours if that is less."""

        self.subscriptions: dict[str, SubscriptionDocument] = {}
        self._replays: dict[str, SubscriptionDocument] = {}
        """Of the subscriptions, those that replay."""
        self._owing: dict[str, SubscriptionDocument] = {}
        """Of the subscriptions, those that may be owed retained messages."""
        self._owing_unread: set[str] = set()
        """Topic Filters of those that were made since the reading of retained messages began. What
        is taken of these is not handed on to them: what lies before it is still to be read."""
        self._moved: dict[str, None] = {}
        """Topic Filters of those whose replay or retained messages were taken and that are not
        written since."""
        self._moved_committing: dict[str, None] = {}
        self._owed_nothing: dict[str, None] = {}
        """Likewise of those for which nothing more that is retained was found."""
        self._retained_to_come = False
        """Not all that is retained is in `aside` yet. The outbox waits for it, or a topic's older
        message could come after the newer."""
        self._tree: TopicTree[str, SubscriptionDocument] = TopicTree()
        self._grants: dict[str, tuple[list[SubscriptionDocument], Grant | None]] = {}

        self.position = Position(start)
        self.outbox: deque[Outgoing] = deque()
        self.outbox_bytes = 0
        self.aside: deque[Outgoing] = deque()

        self._next_packet_id = 1
        self._qos1: dict[int, Offset] = {}
        self._qos2: dict[int, Offset] = {}
        self._released: dict[int, Offset] = {}
        self._aside_ids: dict[int, bool] = {}
        """Of those in flight: which were taken from `aside`, and whether as retained."""
        self._leases: dict[int, Lease] = {}
        """Of those in flight at QoS 1: which are leased from a group, which keeps them for us."""
        self.settled: list[Lease] = []
        """Leases that ended, for the groups to take."""
        self._sent = 0
        self._acknowledged = 0
        self._acknowledged_committing = 0
        self._acknowledged_committed = 0
        self._committing = True
        """Whether the log takes our state; a full disk must not keep subscribers from reading."""

        self.received_qos2: set[int] = set()
        self._received_changed = False
        self._cursor_written: CursorDocument | None = None

    @property
    def durable(self) -> bool:
        """Whether it outlives the connection, and so is kept in the log."""
        return self.session_expiry_s > 0

    # Subscriptions

    def subscribe(self, subscription: SubscriptionDocument) -> None:
        """Add or replace it. [MQTT-3.8.4-3]"""
        self._forget_replay(subscription.filter)
        if subscription.replaying:
            self._replays[subscription.filter] = subscription
        former = self._owing.pop(subscription.filter, None)
        if subscription.owes_retained(subscription.retained_through):
            self._owing[subscription.filter] = subscription
            if former is None or former.owed_retained != subscription.owed_retained:
                self._owing_unread.add(subscription.filter)
        self.subscriptions[subscription.filter] = subscription
        if not is_shared(subscription.filter):
            self._tree.add(subscription.filter, subscription.filter, subscription)
            self._grants.clear()

    def unsubscribe(self, topic_filter: str) -> SubscriptionDocument | None:
        """Remove it; None if there was none. What is in flight goes on. [MQTT-3.10.4-3]"""
        self._forget_replay(topic_filter)
        for changed in (self._owing, self._moved, self._owed_nothing):
            changed.pop(topic_filter, None)
        self._owing_unread.discard(topic_filter)
        self._tree.remove(topic_filter, topic_filter)
        self._grants.clear()
        return self.subscriptions.pop(topic_filter, None)

    def _forget_replay(self, topic_filter: str) -> None:
        """And what waits of it: whoever goes on with it begins after what was taken."""
        if self._replays.pop(topic_filter, None) is not None:
            self.aside = deque(entry for entry in self.aside if entry[1].replay != topic_filter)

    def grant(self, message: Message) -> Grant | None:
        """How this session gets a message read from the log; None if it does not."""
        entry = self._grants.get(message.topic)
        if entry is None:
            matching = [s for s in self._tree.match(message.topic) if not s.replaying]
            if len(self._grants) >= GRANT_CACHE_MAX:
                self._grants.clear()
            entry = self._grants[message.topic] = (matching, merge_grants(matching))
        subscriptions, merged = entry
        own = message.publisher == self.client_id
        offset = message.offset
        for s in subscriptions:
            if s.start_offset >= offset or (own and s.no_local):
                break
        else:
            return merged
        return merge_grants(
            s for s in subscriptions if s.start_offset < offset and not (own and s.no_local)
        )

    # Outgoing messages

    def owing_retained(self) -> list[SubscriptionDocument]:
        """The subscriptions that may be owed retained messages."""
        return list(self._owing.values())

    def read_retained(self) -> list[SubscriptionDocument]:
        """Begin anew to offer retained messages, for those that may be owed them now. What waits
        of them in `aside` will be offered again."""
        # What has no offset is from $SYS, not from the log.
        self.aside = deque(e for e in self.aside if not (e[1].retained and e[0].offset))
        self._owing_unread.clear()
        self._retained_to_come = True
        return self.owing_retained()

    def offer_retained(self, messages: Iterable[Message], *, last_part: bool) -> None:
        """Put `messages`, the next that are retained on the topics of `read_retained`, into
        `aside` for those that are still owed them, when all that was offered before is taken.

        One copy of each, however many subscriptions match. [MQTT-3.3.1-9]
        """
        last: dict[str, Offset] = {}
        for message in messages:
            wanting = [
                s
                for s in self._owed_retained(message)
                if not (s.no_local and message.publisher == self.client_id)
            ]
            grant = merge_grants(wanting)
            if grant is not None:
                self.aside.append((message, replace(grant, retained=True)))
                last |= dict.fromkeys([s.filter for s in wanting], message.offset)
        if not last_part:
            return
        self._retained_to_come = False
        read = [f for f in self._owing if f not in self._owing_unread]
        for topic_filter in read:
            subscription = self._owing[topic_filter]
            subscription.retained_through = last.get(topic_filter, subscription.retained_after)
            if topic_filter not in last:
                self._owed_nothing[topic_filter] = None
                del self._owing[topic_filter]

    def _owed_retained(self, message: Message) -> list[SubscriptionDocument]:
        """Of the subscriptions that it was read for, those that it was not handed on to yet."""
        return [
            s
            for s in self._tree.match(message.topic)
            if s.owes_retained(message.offset) and s.filter not in self._owing_unread
        ]

    def offer(self, outgoing: Iterable[Outgoing], size: int) -> None:
        """Put messages, `size` bytes, into the outbox; whoever reads moves the position."""
        self.outbox.extend(outgoing)
        self.outbox_bytes += size

    def take(self, now_us: int, bytes_max: int) -> Taken:
        """Move what the window permits into flight.

        Stops beyond `bytes_max`; one message at least. A message that finds no room in the window
        holds up those after it, which keeps the order. No `outgoing`: nothing may go now.
        """
        aside = bool(self.aside)
        queue = self.aside if aside or self._retained_to_come else self.outbox
        room = self.room()
        packet_id = self._next_packet_id
        qos1, qos2, released = self._qos1, self._qos2, self._released
        taken: list[Outgoing] = []
        packet_ids: list[int] = []
        expired: list[Outgoing] = []
        size = payload_bytes = expired_size = 0
        while queue and size < bytes_max:
            outgoing = queue[0]
            message, grant = outgoing
            if message.expires_at_us is not None and message.expires_at_us <= now_us:
                queue.popleft()
                expired.append(outgoing)
                expired_size += message.size
                continue
            if not (qos := message.qos if message.qos < grant.qos else grant.qos):
                taken.append(outgoing)
                packet_ids.append(0)
            elif not room:
                break
            else:
                room -= 1
                while packet_id in qos1 or packet_id in qos2 or packet_id in released:
                    packet_id = packet_id % PACKET_IDENTIFIER_MAX + 1
                (qos1 if qos == 1 else qos2)[packet_id] = message.offset
                if aside:
                    self._aside_ids[packet_id] = grant.retained
                taken.append(outgoing)
                packet_ids.append(packet_id)
                packet_id = packet_id % PACKET_IDENTIFIER_MAX + 1
                self._sent += 1
            queue.popleft()
            size += message.size
            payload_bytes += len(message.payload)
        self._next_packet_id = packet_id
        if aside:
            self._note_aside(expired, [0] * len(expired))
            self._note_aside(taken, packet_ids)
        else:
            self.outbox_bytes -= size + expired_size
        return Taken(taken, packet_ids, expired, payload_bytes)

    def _note_aside(self, taken: Iterable[Outgoing], packet_ids: Iterable[int]) -> None:
        """A replay goes on after what was taken of it, and so do retained messages; a lease ends
        here unless it is of QoS 1."""
        for (message, grant), packet_id in zip(taken, packet_ids, strict=True):
            if grant.retained:
                for subscription in self._owed_retained(message):
                    subscription.retained_after = message.offset
                    self._moved[subscription.filter] = None
                    if message.offset == subscription.retained_through:
                        self._owing.pop(subscription.filter, None)
            if grant.replay:
                self.replayed(grant.replay, message.offset)
            if grant.lease and packet_id in self._qos1:
                self._leases[packet_id] = grant.lease
            elif grant.lease:
                self.settled.append(grant.lease)

    def replayed(self, topic_filter: str, through: Offset) -> None:
        """Everything of this replay up to here was taken, or did not match."""
        subscription = self._replays[topic_filter]
        if subscription.start_offset != through:
            subscription.start_offset = through
            self._moved[topic_filter] = None

    def return_leases(self, group: str, *, inflight: bool) -> list[Lease]:
        """Give back to the group what waits here, and if `inflight` what is not acknowledged."""
        waiting = [g.lease for _, g in self.aside if g.lease and g.lease.group == group]
        self.aside = deque(e for e in self.aside if not (e[1].lease and e[1].lease.group == group))
        if not inflight:
            return waiting
        returned = {p: lease for p, lease in self._leases.items() if lease.group == group}
        for packet_id in returned:
            del self._leases[packet_id]
            del self._qos1[packet_id]
            del self._aside_ids[packet_id]
        self._acknowledged += len(returned)
        return [*returned.values(), *waiting]

    def has_lease(self, group: str) -> bool:
        """Whether anything in flight is leased from this group."""
        return any(lease.group == group for lease in self._leases.values())

    def offsets(self, packet_ids: Iterable[int]) -> dict[int, Offset]:
        """Where in the log those of them are that are in flight at QoS 1."""
        return {p: self._qos1[p] for p in packet_ids if p in self._qos1}

    @property
    def inflight(self) -> int:
        """How many QoS 1 and 2 exchanges are unfinished."""
        return len(self._qos1) + len(self._qos2) + len(self._released)

    def room(self) -> int:
        """How many more QoS 1 and 2 messages may go: the Receive Maximum permits [MQTT-3.3.4-9],
        and no more than `inflight_max` that a crash of the broker could repeat (P4), unless the
        disk is full."""
        bound = self.durable and self._committing
        committed = self._acknowledged_committed if bound else self._acknowledged
        return max(
            0,
            min(
                self.receive_maximum - self.inflight,
                self.inflight_max - (self._sent - committed),
            ),
        )

    def holds(self, packet_ids: Sequence[int]) -> bool:
        """Whether these must be committed before they are sent: QoS 2 of a durable session."""
        return self.durable and bool(self._qos2) and not self._qos2.keys().isdisjoint(packet_ids)

    def puback(self, packet_ids: Iterable[int]) -> None:
        """QoS 1 acknowledged, or refused for good. Unknown identifiers are ignored."""
        before = len(self._qos1)
        pop = self._qos1.pop
        for packet_id in packet_ids:
            pop(packet_id, None)
        self._finished(before - len(self._qos1), packet_ids)

    def pubrec(self, packet_ids: Iterable[int], *, refused: bool) -> list[int]:
        """QoS 2 received; which of these are known. Refused ones are finished. [MQTT-4.3.3-4]"""
        known = []
        for packet_id in packet_ids:
            offset = self._qos2.pop(packet_id, None)
            if offset is not None:
                known.append(packet_id)
                if not refused:
                    self._released[packet_id] = offset
            elif packet_id in self._released and not refused:
                known.append(packet_id)
        if refused:
            self._finished(len(known), known)
        return known

    def pubcomp(self, packet_ids: Iterable[int]) -> None:
        """QoS 2 complete. Unknown identifiers are ignored."""
        before = len(self._released)
        for packet_id in packet_ids:
            self._released.pop(packet_id, None)
        self._finished(before - len(self._released), packet_ids)

    def discard(self, packet_ids: Iterable[int]) -> None:
        """These can never be sent to this client: as if acknowledged. [MQTT-3.1.2-25]"""
        known = [p for p in packet_ids if (self._qos1.pop(p, None) or self._qos2.pop(p, None))]
        self._finished(len(known), known)

    def _finished(self, count: int, packet_ids: Iterable[int]) -> None:
        self._acknowledged += count
        if self._aside_ids:
            for packet_id in packet_ids:
                self._aside_ids.pop(packet_id, None)
                if lease := self._leases.pop(packet_id, None):
                    self.settled.append(lease)

    def unfinished(self) -> list[InFlight]:
        """Every exchange to continue on a new connection. [MQTT-4.4.0-1]

        First what was released, in the order of the PUBRECs [MQTT-4.6.0-4], then what was sent, in
        order of delivery. Not what is leased: that goes back to its group.
        """
        return sorted(self._entries(), key=lambda e: 0 if e.stage is Stage.RELEASED else e.offset)

    def _entries(self) -> Iterator[InFlight]:
        for stage, flight in (
            (Stage.RELEASED, self._released),
            (Stage.SENT_QOS2, self._qos2),
            (Stage.SENT_QOS1, self._qos1),
        ):
            for packet_id, offset in flight.items():
                if packet_id in self._leases:
                    continue
                yield InFlight(
                    offset,
                    PacketIdentifier(packet_id),
                    stage,
                    retained=self._aside_ids.get(packet_id, False),
                    aside=packet_id in self._aside_ids,
                )

    def attach(self, receive_maximum: int) -> None:
        """A client is there: from now on its window counts."""
        self.attached = True
        self.receive_maximum = min(receive_maximum, self.inflight_max)

    def detach(self) -> None:
        """The client is gone: forget what waits in memory, the log has it."""
        self.attached = False
        self.position = Position(self._taken_through())
        self.outbox.clear()
        self.outbox_bytes = 0
        self.aside.clear()
        self._retained_to_come = False

    def _taken_through(self) -> Offset:
        return Offset(self.outbox[0][0].offset - 1) if self.outbox else self.position.through

    # Incoming QoS 2

    def receive_qos2(self, packet_id: int) -> bool:
        """Whether this identifier is new; it counts as received from now on. [MQTT-4.3.3-10]"""
        if packet_id in self.received_qos2:
            return False
        self.received_qos2.add(packet_id)
        self._received_changed = True
        return True

    def release_qos2(self, packet_ids: Iterable[int]) -> list[int]:
        """PUBREL, or a message that could not be stored: the identifiers may be used again. Which
        of them are known."""
        known = [packet_id for packet_id in packet_ids if packet_id in self.received_qos2]
        self.received_qos2.difference_update(known)
        self._received_changed = True
        return known

    # What the log keeps of it

    def cursor(self) -> Offset:
        """Everything of the session at or below is acknowledged: its cursor."""
        oldest = self._taken_through() + 1
        for flight in (self._qos1, self._qos2, self._released):
            for packet_id, offset in flight.items():
                if packet_id not in self._aside_ids:
                    # What came from the outbox was put in flight in offset order.
                    oldest = min(oldest, offset)
                    if flight is not self._released:
                        break
        return Offset(oldest - 1)

    def take_changes(self) -> list[Operation]:
        """What the next commit must write so that a crash after it breaks no promise."""
        if self.ended or not self.durable:
            return []
        operations: list[Operation] = []
        if self._received_changed:
            self._received_changed = False
            packed = struct.pack(f">{len(self.received_qos2)}H", *sorted(self.received_qos2))
            operations.append(Put(ReceivedQos2Document(self.client_id, packed)))
        cursor = self._cursor_document()
        if cursor != self._cursor_written:
            self._cursor_written = cursor
            operations.append(Put(cursor))
        moved, self._moved = self._moved, {}
        while self._owed_nothing and len(moved) < MOVED_MAX:
            moved[self._owed_nothing.popitem()[0]] = None
        self._moved_committing = moved
        # Copies, since a replay goes on while they are written.
        operations += [Put(replace(s)) for s in map(self.subscriptions.get, moved) if s]
        self._acknowledged_committing = self._acknowledged
        return operations

    def committed(self) -> None:
        """What `take_changes` last returned is durable."""
        self._committing = True
        self._acknowledged_committed = self._acknowledged_committing

    def not_committed(self) -> None:
        """What `take_changes` last returned was not stored: the next must write it again."""
        self._committing = False
        self._cursor_written = None
        self._received_changed = True
        self._moved |= self._moved_committing

    def _cursor_document(self) -> CursorDocument:
        """The full form once the client has left, and whenever the compact one would not do."""
        offset = self.cursor()
        compact = self.attached and not (self._qos2 or self._released or self._aside_ids)
        if not compact or not self._contiguous():
            return CursorDocument(
                self.client_id,
                offset,
                self._taken_through(),
                self._next_packet_id,
                pack(self.unfinished()),
            )
        return CursorDocument(self.client_id, offset, offset, self._next_packet_id, b"")

    def _contiguous(self) -> bool:
        """Whether all was acknowledged in order: the identifiers in flight are the newest ones."""
        if not self._qos1:
            return True
        span = self._next_packet_id - next(iter(self._qos1))
        return span % PACKET_IDENTIFIER_MAX == len(self._qos1)

    def restore(
        self,
        cursor: CursorDocument | None,
        received: ReceivedQos2Document | None,
        subscriptions: Iterable[SubscriptionDocument],
    ) -> None:
        """Take up what the log kept of this session. Raises StoreCorrupt."""
        for subscription in subscriptions:
            self.subscribe(subscription)
        if received is not None:
            count = len(received.packet_ids) // 2
            self.received_qos2 = set(struct.unpack(f">{count}H", received.packet_ids))
        if cursor is None:
            return
        self.position = Position(cursor.sent_through)
        self._next_packet_id = cursor.next_packet_id
        self._cursor_written = cursor
        flights = {
            Stage.SENT_QOS1: self._qos1,
            Stage.SENT_QOS2: self._qos2,
            Stage.RELEASED: self._released,
        }
        for entry in unpack(cursor.inflight):
            flights[entry.stage][entry.packet_id] = entry.offset
            if entry.aside:
                self._aside_ids[entry.packet_id] = entry.retained
        self._sent = self.inflight
