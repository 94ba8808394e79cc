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
from collections.abc import Iterable
from dataclasses import replace

from broker.documents import (
    CursorDocument,
    Operation,
    Put,
    ReceivedQos2Document,
    SubscriptionDocument,
)
from broker.message import Grant, Lease, Message, Offset, Outgoing
from broker.session.in_flight import InFlightWindow, Taken, pack, unpack
from broker.topics import TopicTree, is_shared

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
        self.ended = False
        """Its Session State is to be forgotten, whatever still refers to it."""
        self.attached = False

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

        self.in_flight = InFlightWindow(inflight_max)
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
        """Move what the window permits into flight: what is aside first, then the outbox.

        Stops beyond `bytes_max`; one message at least. No `outgoing`: nothing may go now.
        """
        aside = bool(self.aside)
        queue = self.aside if aside or self._retained_to_come else self.outbox
        taken = self.in_flight.take(queue, now_us, bytes_max, durable=self.durable, aside=aside)
        if aside:
            self._note_aside(taken.expired, [0] * len(taken.expired))
            self._note_aside(taken.outgoing, taken.packet_ids)
        else:
            self.outbox_bytes -= taken.size
        return taken

    def _note_aside(self, taken: Iterable[Outgoing], packet_ids: Iterable[int]) -> None:
        """A replay goes on after what was taken of it, and so do retained messages."""
        leased: list[tuple[int, Lease]] = []
        for (message, grant), packet_id in zip(taken, packet_ids, strict=True):
            if grant.retained:
                for subscription in self._owed_retained(message):
                    subscription.retained_after = message.offset
                    self._moved[subscription.filter] = None
                    if message.offset == subscription.retained_through:
                        self._owing.pop(subscription.filter, None)
            if grant.replay:
                self.replayed(grant.replay, message.offset)
            if grant.lease:
                leased.append((packet_id, grant.lease))
        self.in_flight.lease(leased)

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
        return [*(self.in_flight.return_leases(group) if inflight else ()), *waiting]

    def room(self) -> int:
        """How many more QoS 1 and 2 messages may go."""
        return self.in_flight.room(durable=self.durable)

    def attach(self, receive_maximum: int) -> None:
        """A client is there: from now on its window counts."""
        self.attached = True
        self.in_flight.open(receive_maximum)

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
        return self.in_flight.acknowledged_through(self._taken_through())

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
        self.in_flight.commit_begins()
        return operations

    def committed(self) -> None:
        """What `take_changes` last returned is durable."""
        self.in_flight.committed()

    def not_committed(self) -> None:
        """What `take_changes` last returned was not stored: the next must write it again."""
        self.in_flight.not_committed()
        self._cursor_written = None
        self._received_changed = True
        self._moved |= self._moved_committing

    def _cursor_document(self) -> CursorDocument:
        """The full form once the client has left, and whenever the compact one would not do."""
        offset, window = self.cursor(), self.in_flight
        if self.attached and window.in_order():
            return CursorDocument(self.client_id, offset, offset, window.next_packet_id, b"")
        return CursorDocument(
            self.client_id,
            offset,
            self._taken_through(),
            window.next_packet_id,
            pack(window.unfinished()),
        )

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
        self._cursor_written = cursor
        self.in_flight.restore(cursor.next_packet_id, unpack(cursor.inflight))
