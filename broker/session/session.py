"""Session: the Session State of one client identifier, put together from its parts.

Delivery feeds a session, from its position in the log on; its client empties it:

    offer ──▶ outbox (bounded) ──▶ take ──▶ in flight (bounded) ──▶ acknowledged: the cursor moves

- The parts: `grants` (subscriptions), `owed` (retained messages), `in_flight`, `received` (the
  client's own QoS 2 messages), `position`, and `supply`: what there is for the client, and what of
  it goes next. What concerns one part is asked of that part; here is what concerns several.
- `take_changes` gives what the next commit must hold of a durable session. PUBREL leaves only after
  the PUBREC is committed, or a crash of the broker could deliver a message twice.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.documents import (
    CursorDocument,
    InFlightDocument,
    Operation,
    Place,
    Put,
    ReceivedQos2Document,
    SubscriptionDocument,
)
from broker.message import Offset
from broker.security.rights import Rights
from broker.session.cursor import Cursor, served_beyond
from broker.session.exchange import Stage
from broker.session.gaps import Gaps
from broker.session.grants import SubscriptionSet
from broker.session.in_flight import InFlightWindow
from broker.session.owed import OwedRetained
from broker.session.position import LivePosition, Position
from broker.session.received import ReceivedQos2
from broker.session.served import NOTHING
from broker.session.standing import Standing
from broker.session.supply import Supply
from broker.session.tally import Tally


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
        self.gaps = Gaps() if gaps is None else gaps
        self.supply = Supply(self.grants, self.owed, self.in_flight, self.standing, self.gaps)
        self.outbox = self.supply.outbox
        self.tally = Tally(created_at_us) if tally is None else tally
        self._cursor = Cursor(client_id, self.in_flight)

    def set_expiry(self, session_expiry_s: int) -> None:
        """Let it outlive its connection by this many seconds. [MQTT-3.1.2-23]"""
        self.session_expiry_s = session_expiry_s
        self.durable = self.in_flight.durable = session_expiry_s > 0

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
        self.supply.forget_replay(subscription.filter)
        self.grants.add(subscription, places)
        self.owed.subscribed(subscription)

    def unsubscribe(self, topic_filter: str) -> SubscriptionDocument | None:
        """Remove it; None if there was none. What is in flight goes on. [MQTT-3.10.4-3]"""
        self.supply.forget_replay(topic_filter)
        self.owed.unsubscribed(topic_filter)
        return self.grants.remove(topic_filter)

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
        if not hears_of_gaps:
            self.gaps.told.clear()
            self.in_flight.tells.clear()
        self.in_flight.open(receive_maximum)

    def detach(self) -> None:
        """The client is gone: forget what waits in memory, the log has it."""
        self.attached = False
        if self.gaps.told:
            self.gaps.forget({entry.offset for entry in self.in_flight.unfinished()})
        self.fall_behind(self.supply.told_through())
        self.outbox.clear()
        self.supply.aside.clear()
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
            self.supply.forget_replay(subscription.filter)
            subscription.replaying = False
        back = through < self.supply.told_through()
        self.in_flight.set_aside()
        self.outbox.clear()
        self.fall_behind(through)
        if back:  # What it was handed already is asked for again.
            self.standing.kept = NOTHING
        return joining

    # What the log keeps of it

    def cursor(self) -> Offset:
        """Everything of the session at or below is acknowledged: its cursor."""
        return self.in_flight.acknowledged_through(self.supply.told_through())

    def take_changes(self) -> list[Operation]:
        """What the next commit must write so that a crash after it breaks no promise."""
        if self.ended or not self.durable:
            return []
        operations: list[Operation] = []
        if self.received.changed:
            packed = self.received.take_packed()
            operations.append(Put(ReceivedQos2Document(self.client_id, packed)))
        operations += self._cursor.take_changes(
            self.supply.told_through(),
            self.standing.served(),
            attached=self.attached and not self.in_flight.leases.lent,
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
            self.gaps.restored_at = cursor.offset
            self.was_told({}, ())

    def was_told(self, told: Mapping[Offset, tuple[range, ...]], missing: Sequence[range]) -> None:
        """Messages that are in flight, by their offsets, tell of these missing ones, beside what is
        known of that. `missing`: what was counted for the session."""
        self.gaps.counted(missing)
        self.gaps.told.update(told)
        for entry in self.in_flight.unfinished():
            tells = self.gaps.told.get(entry.offset)
            if tells and not entry.aside and entry.stage is not Stage.RELEASED:
                self.in_flight.tells[entry.packet_id] = tells[0].start
