"""Session: the Session State of one client identifier, put together from its parts.

Delivery feeds a session, from its position in the log on; its client empties it:

    offer ──▶ outbox (bounded) ──▶ take ──▶ in flight (bounded) ──▶ acknowledged: the cursor moves

- The parts: `grants` (subscriptions), `owed` (retained messages), `in_flight`, `received` (the
  client's own QoS 2 messages) and `position`. What concerns one part is asked of that part; here is
  what concerns several.
- `aside` holds messages that do not come from the session's own place in the log: replays, leases
  from groups, $SYS. They go first, being older, and the cursor does not wait for them.
- Retained messages wait in `owed`, aside as well, but each for its place: it goes when everything
  of the outbox at or below its offset was taken, and before anything above. So nobody gets an older
  message of a topic after a newer one. [MQTT-4.6.0-6]
- QoS 0 goes past all of this while nothing else waits: an *ahead* session is handed each message as
  it comes, before its commit. Once it cannot take one, it stays back and gets what follows from
  the log, until it has had all of it.
- `take_changes` gives what the next commit must hold of a durable session. PUBREL leaves only after
  the PUBREC is committed, or a crash of the broker could deliver a message twice.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence

from broker.documents import (
    CursorDocument,
    InFlightDocument,
    Operation,
    Place,
    Put,
    ReceivedQos2Document,
    SubscriptionDocument,
)
from broker.message import Lease, Message, Offset, Outgoing
from broker.security.rights import Rights
from broker.session.cursor import Cursor, served_beyond
from broker.session.exchange import Taken
from broker.session.gaps import TOLD_MAX, Gaps
from broker.session.grants import SubscriptionSet
from broker.session.in_flight import OFFSET_MAX, InFlightWindow
from broker.session.leases import without_leases
from broker.session.outbox import Outbox, with_missing
from broker.session.owed import OwedRetained
from broker.session.position import LivePosition, Position
from broker.session.received import ReceivedQos2
from broker.session.served import NOTHING
from broker.session.standing import Standing
from broker.session.tally import Tally

PASSED_MAX = 100
"""QoS 0 goes past no more messages than this."""


class Session:
    """The state that MQTT keeps per client identifier, connected or not."""

    def __init__(
        self,
        client_id: str,
        *,
        created_at_us: int,
        start: Offset,
        inflight_max: int,
        gaps: Gaps | None = None,
        tally: Tally | None = None,
    ) -> None:
        self.client_id = client_id
        self.session_expiry_s = 0
        self.durable = False
        """Whether it outlives the connection, and so is kept in the log."""
        self.ended = False
        """Its Session State is to be forgotten, whatever still refers to it."""
        self.attached = False

        self.grants = SubscriptionSet(client_id)
        self.owed = OwedRetained(client_id, self.grants)
        self.in_flight = InFlightWindow(inflight_max)
        self.received = ReceivedQos2()
        self.standing = Standing(start)
        self.outbox = Outbox()
        self.aside: deque[Outgoing] = deque()
        self.gaps = Gaps() if gaps is None else gaps
        self.tally = Tally(created_at_us) if tally is None else tally
        self._cursor = Cursor(client_id, self.in_flight)

    def set_expiry(self, session_expiry_s: int) -> None:
        """Let it outlive its connection by this many seconds. [MQTT-3.1.2-23]"""
        self.session_expiry_s = session_expiry_s
        self.durable = session_expiry_s > 0

    def end(self) -> None:
        """Forget its Session State: nothing of it is committed any more, whatever refers to it.

        Also when a mistake of ours left it half changed: then the log has what is true.
        """
        self.ended = True

    def not_ended(self) -> None:
        """The commit that ended it failed."""
        self.ended = False

    # Subscriptions

    @property
    def subscriptions(self) -> Mapping[str, SubscriptionDocument]:
        """By Topic Filter."""
        return self.grants.by_filter

    def subscribe(
        self, subscription: SubscriptionDocument, places: Mapping[str, Place] | None = None
    ) -> None:
        """Add or replace it. [MQTT-3.8.4-3] `places`: the fields that its commit will fill in."""
        self._forget_replay(subscription.filter)
        self.grants.add(subscription, places)
        self.owed.subscribed(subscription)

    def unsubscribe(self, topic_filter: str) -> SubscriptionDocument | None:
        """Remove it; None if there was none. What is in flight goes on. [MQTT-3.10.4-3]"""
        self._forget_replay(topic_filter)
        self.owed.unsubscribed(topic_filter)
        return self.grants.remove(topic_filter)

    def _forget_replay(self, topic_filter: str) -> None:
        """And what waits of it: whoever goes on with it begins after what was taken."""
        if self.grants.is_replaying(topic_filter):
            self.aside = deque(entry for entry in self.aside if entry[1].replay != topic_filter)

    # Outgoing messages

    @property
    def waiting(self) -> bool:
        """Whether there is anything to take, now or when something else has come."""
        return bool(self.aside or self.outbox or self.owed.waiting)

    @property
    def up_to_date(self) -> bool:
        """Whether everything of the log that was routed was offered to it, and taken."""
        return self.standing.position.is_live and not (self.outbox or self.owed.waiting)

    @property
    def may_go_ahead(self) -> bool:
        """Whether it has taken all that it was offered, and nothing makes it wait for the log."""
        owed, grants = self.owed, self.grants
        return not (
            self.standing.changing
            or self.aside
            or self.outbox
            or owed.waiting
            or not self.standing.position.is_live
            or owed.reading
            or owed.unread
            or grants.unplaced
            or grants.joined
            or grants.by_log
            or self.outbox.first() is not None
        )

    def may_pass(self) -> bool:
        """Whether QoS 0 may go past what waits in the outbox: a little of QoS 1 and 2, for which
        its window has no room. Their order is another. [MQTT-4.6.0-5]"""
        return (
            len(self.outbox) <= PASSED_MAX
            and not self.room()
            and all(message.qos and grant.qos for message, grant in self.outbox)
        )

    def offer_aside(self, outgoing: Iterable[Outgoing]) -> None:
        """Put messages beside the session's own place in the log: they go before the outbox."""
        self.aside.extend(outgoing)

    def miss(self, missing: Sequence[range]) -> None:
        """What is offered next lacks these offsets, damaged or removed: its client is told with the
        next message, and the cursor stays before them until then. A client that cannot be told is
        not waited for."""
        if self.gaps.heard and missing:
            self.standing.begins_to_wait()
            self.outbox.miss(missing)

    def offer(self, outgoing: Sequence[Outgoing], size: int) -> None:
        """Put messages, `size` bytes, into the outbox; whoever reads moves the position."""
        standing = self.standing
        if standing.kept is None:  # `begins_to_wait`, without a call where it is nothing.
            standing.kept = standing.served() if standing.position.ahead.parts else NOTHING
        self.outbox.offer(outgoing, size)

    def take(self, now_us: int, bytes_max: int) -> Taken:
        """Move what the window permits into flight: what is aside first, then the outbox, with
        retained messages in their places.

        Stops beyond `bytes_max`; one message at least. No `outgoing`: nothing may go now.
        """
        queue: deque[Outgoing] = self.outbox
        through, aside = OFFSET_MAX, False
        owed = self.owed
        if self.aside:
            queue, aside = self.aside, True
        elif owed.waiting or owed.reading or owed.unread or self.grants.unplaced:
            queue, through, aside = self._in_between()
        taken = self.in_flight.take(
            queue, now_us, bytes_max, durable=self.durable, aside=aside, through=through
        )
        if taken.expired and (aside or self.outbox.tells):
            self._tell_with_next(taken, queue)
        if aside:
            self._note_aside(taken.expired, [0] * len(taken.expired))
            self._note_aside(taken.outgoing, taken.packet_ids)
        else:
            self.outbox.size -= taken.size
            standing = self.standing
            if not self.outbox and standing.position.is_live and not self.outbox.untold:
                standing.kept = None
            if self.outbox.tells:
                self._note_told(taken.outgoing, taken.packet_ids)
                self.outbox.tells = bool(self.outbox)
            if self.grants.joined:
                self.grants.mark_caught_up(taken.outgoing)
        return taken

    def _tell_with_next(self, taken: Taken, queue: deque[Outgoing]) -> None:
        """Messages have expired that were to tell of missing offsets: those after them do."""
        left = [gap for _, grant in taken.expired for gap in grant.missing]
        if left:
            taken.outgoing[:], left = with_missing(taken.outgoing, left)
        if left and queue:
            (queue[0],), _ = with_missing([queue[0]], left)
        elif left and queue is self.outbox:
            self.outbox.miss(left)

    def _in_between(self) -> tuple[deque[Outgoing], Offset, bool]:
        """Outbox or retained messages: which to take from, through which offset, and whether that
        is aside."""
        owed, taken_through = self.owed, self._taken_through()
        if owed.ahead is not None and not (owed.unread or self.grants.unplaced):
            through = owed.free_through(self.outbox)
            if self.outbox and self.outbox[0][0].offset <= through:
                return self.outbox, through, False
            return owed.waiting, OFFSET_MAX, True
        first = owed.waiting[0][0].offset if owed.waiting else OFFSET_MAX
        if first <= taken_through:
            return owed.waiting, taken_through, True
        to_be_read = owed.unread or self.grants.unplaced or (owed.reading and not owed.waiting)
        if to_be_read and (owed.reading or self.in_flight.repeatable.committing):
            return owed.waiting, taken_through, True  # It may be older than the outbox.
        # A full disk holds up a SUBSCRIBE, and that must hold up nothing else.
        return self.outbox, first, False

    def _note_aside(self, taken: Iterable[Outgoing], packet_ids: Iterable[int]) -> None:
        """A replay goes on after what was taken of it, and so do retained messages."""
        retained: list[Message] = []
        replayed: dict[str, Offset] = {}
        leased: list[tuple[int, Lease]] = []
        for (message, grant), packet_id in zip(taken, packet_ids, strict=True):
            if grant.retained:
                retained.append(message)
            if grant.replay:
                replayed[grant.replay] = message.offset
            if grant.lease:
                leased.append((packet_id, grant.lease))
            if grant.missing and packet_id:
                self.gaps.told[message.offset] = grant.missing
        self.owed.handed_on(retained)
        for topic_filter, through in replayed.items():
            self.grants.replayed(topic_filter, through)
        self.in_flight.lease(leased)

    def _note_told(self, taken: Iterable[Outgoing], packet_ids: Iterable[int]) -> None:
        """They are sent again with the missing offsets that they tell of."""
        for (message, grant), packet_id in zip(taken, packet_ids, strict=True):
            if grant.missing and packet_id:
                self.gaps.told[message.offset] = grant.missing
        if len(self.gaps.told) > TOLD_MAX:
            self.gaps.forget({entry.offset for entry in self.in_flight.unfinished()})

    def waiting_leases(self, group: str | None = None) -> list[Lease]:
        """Give back to the group, or to all, what waits here and was not sent."""
        self.aside, waiting = without_leases(self.aside, group)
        return waiting

    def room(self) -> int:
        """How many more QoS 1 and 2 messages may go."""
        return self.in_flight.room(durable=self.durable)

    # Its client and its place in the log

    @property
    def position(self) -> Position:
        return self.standing.position

    def attach(
        self, receive_maximum: int, rights: Rights = Rights.ALL, *, hears_of_gaps: bool = True
    ) -> None:
        """A client with these rights is there: from now on its window counts. `hears_of_gaps`: its
        protocol can tell it which offsets are missing."""
        self.attached = True
        self.grants.allow(rights)
        self.gaps.heard = hears_of_gaps
        self.in_flight.open(receive_maximum)

    def detach(self) -> None:
        """The client is gone: forget what waits in memory, the log has it."""
        self.attached = False
        if self.gaps.told:
            self.gaps.forget({entry.offset for entry in self.in_flight.unfinished()})
        self.fall_behind(self.told_through())
        self.outbox.clear()
        self.aside.clear()
        self.owed.stop_read()

    def go_live(self, live: LivePosition) -> None:
        """It was offered everything that was routed: from now on each batch comes to it."""
        self.standing.go_live(live, waits=self.outbox.first() is not None)
        self.grants.forget()

    def fall_behind(self, through: Offset | None = None) -> None:
        """Batches go past it from now on: a reader has to fetch them from the log, above `through`
        or what was routed last."""
        self.standing.fall_behind(self.standing.position.through if through is None else through)

    def seek(self, through: Offset) -> list[SubscriptionDocument]:
        """Go on right above `through`, forwards or back. What is in flight stays so until it is
        acknowledged, and the cursor does not wait for it.

        Subscriptions that begin above begin there instead. Those that replay without an end go on
        with the session; they are returned, as whoever delivers has to add them anew.
        """
        joining = self.grants.begin_at(through)
        for subscription in joining:
            self._forget_replay(subscription.filter)
            subscription.replaying = False
        back = through < self.told_through()
        self.in_flight.set_aside()
        self.outbox.clear()
        self.fall_behind(through)
        if back:  # What it was handed already is asked for again.
            self.standing.kept = NOTHING
        return joining

    def _taken_through(self) -> Offset:
        through = self.standing.position.through
        return Offset(self.outbox[0][0].offset - 1) if self.outbox else through

    def told_through(self) -> Offset:
        """Everything of its own place up to here was taken, and what is missing of it told."""
        first = self.outbox.first()
        return self.standing.position.through if first is None else Offset(first - 1)

    # What the log keeps of it

    def cursor(self) -> Offset:
        """Everything of the session at or below is acknowledged: its cursor."""
        return self.in_flight.acknowledged_through(self.told_through())

    def take_changes(self) -> list[Operation]:
        """What the next commit must write so that a crash after it breaks no promise."""
        if self.ended or not self.durable:
            return []
        operations: list[Operation] = []
        if self.received.changed:
            packed = self.received.take_packed()
            operations.append(Put(ReceivedQos2Document(self.client_id, packed)))
        operations += self._cursor.take_changes(
            self.told_through(), self.standing.served(), attached=self.attached
        )
        if self.grants.changed:
            operations += self.grants.take_changes()
        self.in_flight.repeatable.commit_begins()
        return operations

    def committed(self) -> None:
        """What `take_changes` last returned is durable."""
        self.in_flight.repeatable.committed()

    def not_committed(self) -> None:
        """What `take_changes` last returned was not stored: the next must write it again."""
        self.in_flight.repeatable.not_committed()
        self._cursor.not_committed()
        self.received.not_committed()
        self.grants.not_committed()

    def restore(
        self,
        cursor: CursorDocument | None,
        pages: Sequence[InFlightDocument],
        received: ReceivedQos2Document | None,
    ) -> None:
        """Take up what the log kept of this session, beside its subscriptions. Raises
        StoreCorrupt."""
        if received is not None:
            self.received.restore(received.packet_ids)
        if cursor is not None:
            self.standing.position = Position(cursor.sent_through)
            self.standing.kept = served_beyond(cursor) if cursor.inflight else NOTHING
            self._cursor.restore(cursor, pages)
