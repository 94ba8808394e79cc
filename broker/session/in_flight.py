"""In flight: the QoS 1 and 2 messages that were sent and are not acknowledged, and room for more.

The window keeps offsets and Packet Identifiers, no payloads: a message that must be sent again is
read from the log. `aside` marks a message that did not come from the session's own place in the log
but from a replay, a group or the retained messages; the cursor does not wait for it.

What the log keeps of the window is the business of `cursor.py`. A window with much in flight is
kept in pages by Packet Identifier, and tells which pages changed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from broker.message import MESSAGE_BYTES, Lease, Offset, Outgoing, PacketIdentifier
from broker.session.exchange import ASIDE, InFlight, Row, Stage, Taken
from broker.session.leases import Leases
from broker.session.pages import PAGE_SHIFT, ChangedPages
from broker.session.repeatable import Repeatable

PACKET_IDENTIFIER_MAX = 65_535
OFFSET_MAX = Offset(2**63 - 1)

OF_NO_GROUP = Lease("", 0)


class InFlightWindow:
    """The unfinished QoS 1 and 2 exchanges of one session, by Packet Identifier. An acknowledgement
    of an unknown one changes nothing."""

    def __init__(self, inflight_max: int) -> None:
        self.inflight_max = inflight_max
        """Acknowledged and unacknowledged messages that a crash of the broker may repeat. (P4)"""
        self.receive_maximum = inflight_max
        """The connected client's Receive Maximum, or `inflight_max` if that is less."""
        self.next_packet_id = 1
        self.durable = False
        """Whether its session is kept in the log."""
        self.keeps_qos0 = False
        """Whether QoS 0 is in flight as well: in the session of a group."""
        self._qos1: dict[int, Offset] = {}
        self._qos2: dict[int, Offset] = {}
        self._released: dict[int, Offset] = {}
        """In the order of the PUBRECs."""
        self._released_as: dict[int, int] = {}
        """The same order as numbers that rise, for pages, which are by Packet Identifier."""
        self._aside: dict[int, bool] = {}
        """Packet Identifiers of messages that came from aside, and whether as retained."""
        self.tells: dict[int, int] = {}
        """The first of the missing offsets that a message tells of, until the client has it."""
        self.leases = Leases()
        """QoS 1 messages leased from a group, which keeps them for the session."""
        self.changed = ChangedPages()
        self.repeatable = Repeatable()

    def __len__(self) -> int:
        """How many exchanges are unfinished."""
        return len(self._qos1) + len(self._qos2) + len(self._released)

    # How many may go

    def open(self, receive_maximum: int) -> None:
        """A client with this Receive Maximum is there."""
        self.receive_maximum = min(receive_maximum, self.inflight_max)

    def keep_qos0(self) -> None:
        """Let QoS 0 messages be in flight too, like QoS 1: a group's, until a member sent them."""
        self.keeps_qos0 = True

    def allow(self, more: int, *, inflight_max: int) -> None:
        """Let `more` messages into flight beside the unfinished ones, with a new `inflight_max`."""
        self.inflight_max = inflight_max
        self.receive_maximum = len(self) + more

    def room(self) -> int:
        """How many more QoS 1 and 2 messages may go: Receive Maximum bounds them. [MQTT-3.3.4-9]

        For a durable session `inflight_max` bounds what a crash of the broker could repeat (P4),
        unless the disk is full: that must not keep subscribers from reading.
        """
        unfinished = len(self._qos1) + len(self._qos2) + len(self._released)
        known = self.repeatable
        bound = self.durable and known.committing
        repeatable = known.sent - (known.acknowledged_committed if bound else known.acknowledged)
        return max(0, min(self.receive_maximum - unfinished, self.inflight_max - repeatable))

    def take(
        self,
        queue: deque[Outgoing],
        now_us: int,
        bytes_max: int,
        *,
        aside: bool,
        through: Offset = OFFSET_MAX,
    ) -> Taken:
        """Move messages from the head of `queue` into flight, as far as there is room.

        Stops beyond `bytes_max`, but takes one message at least; and before the first with an
        offset above `through`. A message that finds no room holds up the messages after it, which
        keeps the order. Hot: `make bench`.
        """
        room = could_go = self.room()
        packet_id = self.next_packet_id
        qos1, qos2, released = self._qos1, self._qos2, self._released
        qos2_before = len(qos2)
        forgets_qos0 = not self.keeps_qos0
        outgoing: list[Outgoing] = []
        packet_ids: list[int] = []
        expired: list[Outgoing] = []
        size = expired_size = beside = 0
        topic: str | None = None
        ends = through < OFFSET_MAX
        while queue and size < bytes_max:
            head = queue[0]
            message, grant = head
            if ends and message.offset > through:
                break
            if (at := message.expires_at_us) and message.published_at_us != at <= now_us:
                queue.popleft()
                expired.append(head)
                expired_size += message.cost
                continue
            qos = message.qos if message.qos < grant.qos else grant.qos
            if not qos and forgets_qos0:
                outgoing.append(head)
                packet_ids.append(0)
            elif not room:
                break
            else:
                room -= 1
                while packet_id in qos1 or packet_id in qos2 or packet_id in released:
                    packet_id = packet_id % PACKET_IDENTIFIER_MAX + 1
                (qos2 if qos == 2 else qos1)[packet_id] = message.offset
                if aside:
                    self._aside[packet_id] = grant.retained
                outgoing.append(head)
                packet_ids.append(packet_id)
                packet_id = packet_id % PACKET_IDENTIFIER_MAX + 1
            queue.popleft()
            if message.topic is not topic:  # `message.cost`, without a call for each.
                topic = message.topic
                beside = MESSAGE_BYTES + len(topic)
            size += beside + message.size
        self.next_packet_id = packet_id
        self.repeatable.sent += could_go - room
        if self.changed.pages is not None:
            self.changed.note(packet_ids)
        payload_bytes = sum(map(len, [message.payload for message, _ in outgoing]))
        held = self.durable and len(qos2) > qos2_before
        return Taken(outgoing, packet_ids, expired, payload_bytes, size + expired_size, held)

    # Acknowledgements

    def puback(self, packet_ids: Iterable[int]) -> list[int]:
        """QoS 1 acknowledged, or refused for good; returns the unknown ones."""
        before = len(self._qos1)
        pop = self._qos1.pop
        unknown = []
        for packet_id in packet_ids:
            if pop(packet_id, None) is None:
                unknown.append(packet_id)
        self.repeatable.acknowledged += before - len(self._qos1)
        if unknown:
            packet_ids = set(packet_ids).difference(unknown)
        self._heard(packet_ids)
        if self._aside:
            self._end_aside(packet_ids)
        if self.changed.pages is not None:
            self.changed.note(packet_ids)
        return unknown

    def pubrec(self, packet_ids: Iterable[int], *, refused: bool) -> list[int]:
        """QoS 2 received; returns the known ones. Refused ones are finished. [MQTT-4.3.3-4]"""
        known = []
        number = next(reversed(self._released_as.values()), 0)
        for packet_id in packet_ids:
            offset = self._qos2.pop(packet_id, None)
            if offset is not None:
                known.append(packet_id)
                if not refused:
                    self._released[packet_id] = offset
                    number += 1
                    self._released_as[packet_id] = number
            elif packet_id in self._released and not refused:
                known.append(packet_id)
        self.leases.taken_qos2(known)
        self._heard(known)
        if refused:
            self._finished(len(known), known)
        elif self.changed.pages is not None:
            self.changed.note(known)
        return known

    def pubcomp(self, packet_ids: Iterable[int]) -> list[int]:
        """QoS 2 complete; returns the unknown ones."""
        known, unknown = [], []
        for packet_id in packet_ids:
            if self._released.pop(packet_id, None) is not None:
                del self._released_as[packet_id]
                known.append(packet_id)
            else:
                unknown.append(packet_id)
        self._finished(len(known), known)
        return unknown

    def is_awaited(self, packet_ids: Iterable[int]) -> bool:
        """Whether an acknowledgement is awaited under one of these."""
        return any(p in flight for flight in self._by_stage().values() for p in packet_ids)

    def finish(self, packet_ids: Sequence[int]) -> None:
        """These are over, however far they got: they can never be sent to this client
        [MQTT-3.1.2-25], or its protocol knows no acknowledgement."""
        before = len(self)
        for flight in self._by_stage().values():
            for packet_id in packet_ids if flight else ():
                flight.pop(packet_id, None)
                self._released_as.pop(packet_id, None)
        self.leases.taken_qos2(packet_ids)
        self._heard(packet_ids)
        self._finished(before - len(self), packet_ids)

    def _heard(self, packet_ids: Iterable[int]) -> None:
        """The client knows what these told as missing."""
        for packet_id in packet_ids if self.tells else ():
            self.tells.pop(packet_id, None)

    def _finished(self, count: int, packet_ids: Iterable[int]) -> None:
        self.repeatable.acknowledged += count
        if self._aside:
            self._end_aside(packet_ids)
        if self.changed.pages is not None:
            self.changed.note(packet_ids)

    def _end_aside(self, packet_ids: Iterable[int]) -> None:
        for packet_id in packet_ids:
            self._aside.pop(packet_id, None)
        if self.leases.held:
            self.leases.end(packet_ids)

    def set_aside(self) -> None:
        """The cursor waits for none of these any more: the session goes on elsewhere in the log."""
        sent = [packet_id for flight in self._by_stage().values() for packet_id in flight]
        self._aside = dict.fromkeys(sent, False) | self._aside
        self.tells.clear()
        self.changed.note(sent)

    def is_at(self, entry: InFlight) -> bool:
        """Whether this exchange is still where it was when `unfinished` listed it."""
        return self._by_stage()[entry.stage].get(entry.packet_id) == entry.offset

    def sent_qos1(self, packet_ids: Iterable[int]) -> list[InFlight]:
        """The exchanges under these that wait for a PUBACK."""
        return [
            InFlight(self._qos1[packet_id], PacketIdentifier(packet_id), Stage.SENT_QOS1)
            for packet_id in packet_ids
            if packet_id in self._qos1
        ]

    # Leases from groups

    def lease(self, leased: Iterable[tuple[int, Lease]]) -> None:
        """These were taken, with their Packet Identifiers."""
        self.leases.add(leased, self._qos1)

    def return_leases(self) -> list[Lease]:
        """Give back to the groups what they leased and is not acknowledged."""
        returned, self.leases.held = self.leases.held, {}
        self._qos1 = {p: offset for p, offset in self._qos1.items() if p not in returned}
        self._finished(len(returned), returned)
        return list(returned.values())

    def keep_leases(self, group: str) -> list[Lease]:
        """The group ended: what it leased is the session's own, or of no group. [MQTT-3.10.4-3]"""
        held = self.leases.held
        kept = {p: lease for p, lease in held.items() if lease.group == group}
        others = {p: lease for p, lease in held.items() if p not in kept}
        self.leases.held = others | ({} if self.durable else dict.fromkeys(kept, OF_NO_GROUP))
        self.changed.note(kept)
        return list(kept.values())

    # What the log keeps of it

    def unfinished(self) -> list[InFlight]:
        """Every exchange to continue on a new connection. [MQTT-4.4.0-1]

        First the released ones, in the order of the PUBRECs [MQTT-4.6.0-4], then the sent ones, in
        order of delivery. Not what is leased: that goes back to its group.
        """
        released = self._entries(self._released, Stage.RELEASED)
        sent = self._entries(self._qos2, Stage.SENT_QOS2)
        sent += self._entries(self._qos1, Stage.SENT_QOS1)
        return released + sorted(sent, key=itemgetter(0))

    def _entries(self, flight: Mapping[int, Offset], stage: Stage) -> list[InFlight]:
        aside, leases = self._aside, self.leases.held
        return [
            InFlight(
                offset,
                PacketIdentifier(packet_id),
                stage,
                aside.get(packet_id, False),
                packet_id in aside,
            )
            for packet_id, offset in flight.items()
            if packet_id not in leases
        ]

    def page(self, number: int) -> list[Row]:
        """The `unfinished` exchanges whose Packet Identifier is on this page."""
        first = number << PAGE_SHIFT
        ids = range(first, first + (1 << PAGE_SHIFT))
        leases, aside = self.leases.held, self._aside
        flags = {p: ASIDE | aside[p] for p in ids if p in aside} if aside else {}
        rows: list[Row] = [
            (flight[p], p, stage, flags.get(p, 0), 0)
            for stage, flight in ((1, self._qos1), (2, self._qos2))
            if flight
            for p in ids
            if p in flight and p not in leases
        ]
        if self._released:
            released, numbers = self._released, self._released_as
            rows += [(released[p], p, 3, flags.get(p, 0), numbers[p]) for p in ids if p in released]
        return rows

    def pages(self) -> set[int]:
        """The pages that have unfinished exchanges, leased ones too."""
        return {p >> PAGE_SHIFT for flight in self._by_stage().values() for p in flight}

    def _by_stage(self) -> dict[Stage, dict[int, Offset]]:
        flights = self._qos1, self._qos2, self._released
        return dict(zip((Stage.SENT_QOS1, Stage.SENT_QOS2, Stage.RELEASED), flights, strict=True))

    def acknowledged_through(self, taken_through: Offset) -> Offset:
        """Everything of the session's own place at or below is acknowledged, given that everything
        up to `taken_through` was taken; of what is missing, that the client was told."""
        oldest = min(taken_through + 1, min(self.tells.values(), default=OFFSET_MAX))
        aside = self._aside
        for flight in (self._qos1, self._qos2):
            for packet_id, offset in flight.items():
                if packet_id not in aside:
                    # What came from the outbox was put in flight in offset order.
                    oldest = min(oldest, offset)
                    break
        released = self._released
        if released:
            own = [o for p, o in released.items() if p not in aside] if aside else released.values()
            oldest = min(oldest, min(own, default=oldest))
        return Offset(oldest - 1)

    def in_order(self) -> bool:
        """Whether the compact form of a cursor says it all: everything was acknowledged in order,
        so that the newest Packet Identifiers are in flight, each at QoS 1 and none from aside."""
        if self._qos2 or self._released or self._aside:
            return False
        if not self._qos1:
            return True
        span = self.next_packet_id - next(iter(self._qos1))
        return span % PACKET_IDENTIFIER_MAX == len(self._qos1)

    def restore(
        self, next_packet_id: int, entries: Iterable[InFlight], ranks: Sequence[int] = ()
    ) -> None:
        """Take up what the log kept of it, in the order of `unfinished`; `ranks` are the numbers of
        the released ones, as `page` gave them."""
        self.next_packet_id = next_packet_id
        flights = self._by_stage()
        for entry in entries:
            flights[entry.stage][entry.packet_id] = entry.offset
            if entry.aside:
                self._aside[entry.packet_id] = entry.retained
        numbers = ranks or range(len(self._released))
        self._released_as = dict(zip(self._released, numbers, strict=True))
        self.repeatable.sent = len(self)
