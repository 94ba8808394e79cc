"""Sender: empties a session into whoever it is for: a client, a line subscriber, a group's members.

Each connection begins with what an earlier one left: sent, and not acknowledged. That is read from
the log a part at a time, whenever there is room for one, and sent again before anything new, or the
order would be lost. Then `take` gives what is new. Who sends the messages is the `Recipient`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import islice
from typing import Protocol

from broker import tasks
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.delivery.readers import unfit
from broker.errors import StoreBusy, StoreError, StoreFull
from broker.log.log import Log
from broker.message import Grant, Message, Outgoing
from broker.plural import counted
from broker.session.exchange import InFlight, Stage, Taken
from broker.session.session import Session
from broker.session.withholding import NOT_PERMITTED, withhold

logger = logging.getLogger(__name__)

TAKE_BYTES_MAX = 512 * 1024
"""What is taken from the session, or read from the log to be sent again, at a time."""
RESEND_MESSAGES_MAX = 64
"""Messages that are read from the log at a time, to be sent again."""

TOO_LARGE = "packet too large for the client"
"""Why `discard` gives up what exceeds the client's Maximum Packet Size."""


class Recipient(Protocol):
    """Where the messages go: an MQTT connection, a line connection, the members of a group."""

    def room(self) -> int:
        """How many messages can be sent again now. Who had none calls `take` when there is."""
        ...

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        """Send these, which an earlier connection left, with the same Packet Identifiers."""
        ...


class _Nobody(Recipient):
    """Whoever has left."""

    def room(self) -> int:
        return 0

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        raise AssertionError("there is no room")


NOBODY = _Nobody()


class Sender:
    """The sending side of one session, as long as one connection, or one run of a group, has it."""

    __slots__ = ("_counters", "_delivery", "_log", "_recipient", "_resending", "left", "session")

    def __init__(
        self,
        session: Session,
        recipient: Recipient,
        log: Log,
        delivery: Delivery,
        counters: Counters,
    ) -> None:
        self.session = session
        self._recipient = recipient
        self._log = log
        self._delivery = delivery
        self._counters = counters
        self.left: dict[int, InFlight] = {}
        """What is still to be sent again, by Packet Identifier; oldest message first."""
        self._resending: asyncio.Task[None] | None = None

    def resend(self, entries: Iterable[InFlight]) -> None:
        """Send these again before anything new, and in the order of the log."""
        for entry in entries:
            self.left[entry.packet_id] = entry
        oldest_first = sorted(self.left.values(), key=lambda entry: entry.offset)
        self.left = {entry.packet_id: entry for entry in oldest_first}
        self._resend_if_room()

    def take(self, now_us: int) -> Taken | None:
        """The next of what is new; None: nothing may go now. `now_us` is aged time.

        What had expired is counted. Nothing is new while something is to be sent again.
        """
        if self.left:
            self._resend_if_room()
            return None
        session = self.session
        if session.grants.rights_changed() and (withheld := withhold(session)):
            self.count_withheld(withheld)
        while True:
            taken = session.supply.take(now_us, TAKE_BYTES_MAX)
            if taken.expired:
                self._counters.dropped["expired"] += len(taken.expired)
            if taken.outgoing:
                break
            if not taken.expired:
                return None
        if 0 in taken.packet_ids and session.durable:
            # Nobody acknowledges QoS 0, and a crash must not repeat all of it.
            self._log.changed(session, urgent=False)
        return taken

    def count_withheld(self, count: int) -> None:
        """So many that waited may not be read any more. (P5)"""
        self._counters.dropped[NOT_PERMITTED] += count
        messages = counted(count, "message")
        logger.info(
            "client %r does not get %s: %s", self.session.client_id, messages, NOT_PERMITTED
        )
        if self.session.durable:
            self._log.changed(self.session, urgent=False)

    def discard(self, packet_ids: Sequence[int], reason: str) -> None:
        """Give up these deliveries: `reason` counts them (P5)."""
        self._counters.dropped[reason] += len(packet_ids)
        logger.info(
            "client %r does not get %s: %s",
            self.session.client_id,
            counted(len(packet_ids), "message"),
            reason,
        )
        self.session.in_flight.finish(packet_ids)
        self.cursor_moved()

    def answered(self, packet_ids: Iterable[int]) -> None:
        """The client acknowledged these. It may do so for an earlier connection's messages before
        they are sent again; then they are not, and count as in flight, not as left. [MQTT-4.4.0-1]
        """
        for packet_id in packet_ids if self.left else ():
            entry = self.left.get(packet_id)
            if entry is not None and not self.session.in_flight.is_at(entry):
                del self.left[packet_id]

    def cursor_moved(self, *, with_others: bool = False) -> None:
        """Messages were acknowledged: that is committed in its turn, and may make room; soon, where
        a crash could repeat half of what it may at most. `with_others`: in the same commit as what
        else has changed by now."""
        session, log, window = self.session, self._log, self.session.in_flight
        if not session.durable:
            return
        if with_others:
            log.changed(session)
        elif 2 * window.repeatable.uncommitted < window.inflight_max:
            log.unhurried.add(session, self._cursor_committed, self._failed)
            return
        log.changed(session, self._cursor_committed, self._failed, urgent=False)

    def _cursor_committed(self, error: StoreError | None) -> None:
        """What a crash could repeat has become less, so more may be in flight (P4); or the disk is
        full, or locked, which is no reason not to read."""
        if error is None or isinstance(error, StoreFull | StoreBusy):
            self._delivery.wake(self.session)

    def _failed(self, error: Exception) -> None:
        self._delivery.failed(self.session, error)

    def stop(self) -> None:
        """The session is not the recipient's any more, who is let go: a cycle would keep it, with
        what it has received, until the collector runs."""
        self._recipient = NOBODY
        self.left.clear()
        if self._resending is not None:
            self._resending.cancel()

    def _resend_if_room(self) -> None:
        if self.left and self._resending is None and self._recipient.room():
            self._resending = tasks.start(self._resend(), self._failed)

    async def _resend(self) -> None:
        try:
            while self.left and (room := self._recipient.room()):
                await self._resend_part(min(room, RESEND_MESSAGES_MAX))
        finally:
            self._resending = None
        if not self.left:
            self._delivery.wake(self.session)

    async def _resend_part(self, messages_max: int) -> None:
        """Read the next messages, and send those that are still left and have room by then."""
        part = [*islice(self.left.values(), messages_max)]
        read, looked_at = await self._delivery.fetch(
            self.session, [entry.offset for entry in part], TAKE_BYTES_MAX
        )
        found = {message.offset: message for message in read.messages}
        outgoing: list[Outgoing] = []
        packet_ids: list[int] = []
        gone: dict[str, list[int]] = {}
        left = [entry for entry in part[:looked_at] if self.left.get(entry.packet_id) is entry]
        for entry in left[: self._recipient.room()]:
            del self.left[entry.packet_id]
            message = found.get(entry.offset)
            if message is None:
                damaged = any(entry.offset in lost for lost in read.damaged)
                reason = "damaged" if damaged else "removed by retention"
                gone.setdefault(reason, []).append(entry.packet_id)
                continue
            reason = unfit(message)
            if not reason and not self._may_go(entry, message):
                reason = NOT_PERMITTED
            if reason:
                gone.setdefault(reason, []).append(entry.packet_id)
                continue
            qos = 1 if entry.stage is Stage.SENT_QOS1 else 2
            grant = self.session.grants.of(message) or Grant(qos)
            missing = self.session.gaps.told.get(entry.offset, ())
            grant = replace(grant, qos=qos, retained=entry.retained, missing=missing)
            outgoing.append((message, grant))
            packet_ids.append(entry.packet_id)
        for reason, gone_ids in gone.items():
            self.discard(gone_ids, reason)
        if outgoing:
            self._recipient.send_again(outgoing, packet_ids)

    def _may_go(self, entry: InFlight, message: Message) -> bool:
        """Whether what an earlier connection left may be read still; of a replay, read again."""
        grants = self.session.grants
        rights = grants.rights
        if not rights.limited:
            return True
        replayed = entry.aside and not entry.retained and grants.is_history(message)
        return (rights.may_replay if replayed else rights.may_receive)(message.topic)
