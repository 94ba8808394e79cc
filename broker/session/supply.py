"""Supply: what a session has for its client, and what of it goes next.

- `aside` holds messages that do not come from the session's own place in the log: replays, leases
  from groups, $SYS. They go first, being older, and the cursor does not wait for them.
- Retained messages wait in `owed`, aside as well, but each for its place: it goes when everything
  of the outbox at or below its offset was taken, and before anything above. So nobody gets an older
  message of a topic after a newer one. [MQTT-4.6.0-6]
- QoS 0 goes past all of this while nothing else waits: an *ahead* session is handed each message as
  it comes, before its commit. Once it cannot take one, it stays back and gets what follows from
  the log, until it has had all of it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Sequence

from broker.message import Lease, Message, Offset, Outgoing
from broker.session.exchange import Taken
from broker.session.gaps import TOLD_MAX, Gaps
from broker.session.grants import SubscriptionSet
from broker.session.in_flight import OFFSET_MAX, InFlightWindow
from broker.session.leases import without_leases
from broker.session.outbox import Outbox, with_missing
from broker.session.owed import OwedRetained
from broker.session.served import NOTHING
from broker.session.standing import Standing

PASSED_MAX = 100
"""QoS 0 goes past no more messages than this."""


class Supply:
    """Of one session."""

    def __init__(
        self,
        grants: SubscriptionSet,
        owed: OwedRetained,
        in_flight: InFlightWindow,
        standing: Standing,
        gaps: Gaps,
    ) -> None:
        self.grants = grants
        self.owed = owed
        self.in_flight = in_flight
        self.standing = standing
        self.gaps = gaps
        self.outbox = Outbox()
        self.aside: deque[Outgoing] = deque()

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
            and not self.in_flight.room()
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
        taken = self.in_flight.take(queue, now_us, bytes_max, aside=aside, through=through)
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
                self.in_flight.tells[packet_id] = grant.missing[0].start
        if len(self.gaps.told) > TOLD_MAX:
            self.gaps.forget({entry.offset for entry in self.in_flight.unfinished()})

    def waiting_leases(self, group: str | None = None) -> list[Lease]:
        """Give back to the group, or to all, what waits here and was not sent."""
        self.aside, waiting = without_leases(self.aside, group)
        return waiting

    def _taken_through(self) -> Offset:
        through = self.standing.position.through
        return Offset(self.outbox[0][0].offset - 1) if self.outbox else through

    def told_through(self) -> Offset:
        """Everything of its own place up to here was taken, and what is missing of it told."""
        first = self.outbox.first()
        return self.standing.position.through if first is None else Offset(first - 1)

    def forget_waiting(self) -> Offset:
        """Forget what waits of its own place: above what is returned it has to be read again."""
        through = self.told_through()
        self.outbox.clear()
        return through

    def forget_replay(self, topic_filter: str) -> None:
        """Drop what waits of a replay: whoever goes on with it begins after what was taken."""
        if self.grants.is_replaying(topic_filter):
            self.aside = deque(entry for entry in self.aside if entry[1].replay != topic_filter)
