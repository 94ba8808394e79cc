"""Sending: the packets that leave on one MQTT connection, and the client's acknowledgements.

    Delivery ─▶ Session ─▶ Sender.take ─▶ Sending.wake ─▶ Output ─▶ bytes

`Output` carries these messages, and the answers that other modules send. A QoS 2 message is held
until its Packet Identifier is committed, and a PUBREL until its PUBREC is committed. Without that a
crash of the broker could deliver the message twice. [MQTT-4.3.3]

No message is taken from the session for a connection that has closed, also if its DISCONNECT was
read and waits for its turn: QoS 0 would be lost.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import partial

from broker.clients.faces import Transport
from broker.clients.services import Services
from broker.delivery.sender import TOO_LARGE, Recipient, Sender
from broker.errors import StoreError
from broker.log.batch import OnFailed
from broker.log.log import Log
from broker.message import Offset, Outgoing
from broker.mqtt.connection import Connection
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.packets import Ack, FromServer, PacketType, Suback, Unsuback
from broker.mqtt.reasons import ERROR, ReasonCode
from broker.plural import counted
from broker.session.exchange import Stage, Taken
from broker.session.session import Session
from broker.session.withholding import NOT_PERMITTED, still_permitted

logger = logging.getLogger(__name__)

HELD_BYTES_MAX = 512 * 1024
"""Messages held for a commit: much QoS 0 can come behind one QoS 2 message. (P7)"""
PACKET_IDENTIFIER_BYTES = 64
"""Memory of one Packet Identifier while its acknowledgement waits."""


class Output:
    """The way out of one connection: its packets, in the order in which they were sent."""

    __slots__ = (
        "_ended",
        "_flush_scheduled",
        "_log",
        "_transport",
        "closed",
        "connection",
        "failed",
        "lost",
        "why",
        "writable",
    )

    def __init__(
        self,
        connection: Connection,
        transport: Transport,
        log: Log,
        ended: Callable[[], None],
        failed: OnFailed,
    ) -> None:
        """`ended` is called when a packet was too large for the client, which ends the connection,
        or at `close`; `failed` when we made a mistake."""
        self.connection = connection
        self.failed = failed
        self._transport = transport
        self._log = log
        self._ended = ended
        self._flush_scheduled = False
        self.why = "the broker's answer is larger than its Maximum Packet Size"
        """Why the connection ended, if this ended it."""
        self.writable = True
        """Whether the socket's buffer has room."""
        self.lost = False
        """Whether the socket is gone: nothing can be written any more."""
        self.closed = False
        """Whether the client has left: nothing more is sent, and the session may be another's."""

    def lose(self) -> None:
        """The socket is gone."""
        self.lost, self.writable = True, False

    def send(self, *packets: FromServer) -> None:
        """Send these; of no effect once the client has left.

        All packets of one commit, or of one turn of the loop, leave in one write.
        """
        if self.closed:
            return
        for packet in packets:
            self.connection.send(packet)
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._log.acknowledgements.put_off(self.flush)

    def send_when_saved(self, session: Session, ack: Ack | Unsuback) -> None:
        """Send this when the session's state as it is now is committed. [MQTT-4.3.3]"""
        if not session.durable:
            self.send(ack)
            return

        def saved(error: StoreError | None) -> None:
            if error is None:
                self.send(ack)

        size = 0 if isinstance(ack, Unsuback) else PACKET_IDENTIFIER_BYTES * len(ack.packet_ids)
        self._log.changed(session, saved, self.failed, size=size)

    def close(self, code: ReasonCode, why: str) -> None:
        """End the connection, after what is queued, when what was received is dealt with."""
        self.why = why
        self.connection.close(code, why)
        self.send()

    def leave(self) -> None:
        """The client has left. Keep no reference to it: see `Sender.stop`."""
        self.closed = True
        self._ended = _let_go
        self.failed = partial(_failed_later, self._transport)

    def flush(self) -> None:
        """Write the packets that wait. Raises nothing: the loop calls it."""
        self._flush_scheduled = False
        try:
            if self.connection.queued:
                data = self.connection.data_to_send()
                if not self.lost:
                    self._transport.write(data)
            if self.connection.closed and not self.closed:
                self._ended()
        except Exception as error:
            self.failed(error)


def _let_go() -> None:
    """The client has left: nobody has to be told."""


def _failed_later(transport: Transport, error: Exception) -> None:
    """We made a mistake after the client had left."""
    logger.critical("a connection whose client has left is cut off", exc_info=error)
    transport.abort()


class Sending(Recipient):
    """The messages of one session on their way to its client, from `take` to the last
    acknowledgement."""

    __slots__ = (
        "_counters",
        "_delivery",
        "_groups",
        "_held",
        "_held_size",
        "_log",
        "_output",
        "_sender",
        "_session",
        "_time",
        "_unsubacks",
    )

    def __init__(self, services: Services, session: Session, output: Output) -> None:
        self._log = services.log
        self._time = services.log.time
        self._delivery = services.delivery
        self._groups = services.groups
        self._counters = services.counters
        self._session = session
        self._output = output
        self._sender = Sender(session, self, services.log, services.delivery, services.counters)
        self._held: list[Taken] = []
        """Few, and a list: an empty deque is 0.7 KB for each idle connection."""
        self._held_size = 0
        """Bytes in memory."""
        self._unsubacks: list[tuple[Offset, Unsuback]] = []
        """Each is sent when the outbox has been sent up to its offset."""

    def begin(self) -> None:
        """Continue every unfinished exchange under its Packet Identifier. [MQTT-4.4.0-1]"""
        unfinished = self._session.in_flight.unfinished()
        released = [e.packet_id for e in unfinished if e.stage is Stage.RELEASED]
        if released:
            self._output.send(Ack(PacketType.PUBREL, released))
        self._sender.resend(e for e in unfinished if e.stage is not Stage.RELEASED)

    def stop(self) -> None:
        """The client has left. QoS 0 that was held for a commit is not sent again, so it counts as
        dropped (P5)."""
        self._sender.stop()
        dropped = sum([taken.packet_ids.count(0) for taken in self._held])
        if dropped:
            self._counters.dropped["client left before it was sent"] += dropped
        self._held.clear()
        self._held_size = 0

    def wake(self) -> None:
        """Send the messages of the session, as far as window and socket permit."""
        session, output, sender = self._session, self._output, self._sender
        if output.closed or output.connection.closed:
            return
        owed = session.owed
        supply = session.supply
        # This is `supply.waiting` without a call. Most wakes find nothing to send: they follow an
        # acknowledgement, or the commit of a cursor.
        while output.writable and (supply.aside or supply.outbox or owed.waiting or sender.left):
            if self._held_size > HELD_BYTES_MAX:
                break  # The next messages wait in the outbox, and then in the log.
            now_us = self._time.aged_us()
            taken = sender.take(now_us)
            if taken is None:
                break
            self._counters.payload_bytes_out += taken.payload_bytes
            if session.in_flight.leases.settled:
                self._groups.settle(session)
            if self._held or taken.held:
                self._held.append(taken)
                self._held_size += taken.size
                self._log.changed(session, self._send_held, output.failed)
            else:
                self._send(taken.outgoing, taken.packet_ids, now_us)
        if self._unsubacks:
            self._send_unsubacks()
        if not output.closed:
            self._delivery.drained(session)
            self._groups.drained(session)

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        """Send these QoS 0 messages now, before their commit. False: none was sent, since the
        socket is full or an older message has to go first."""
        output, session = self._output, self._session
        if not output.writable or output.connection.closed or self._held or self._sender.left:
            return False
        if session.supply.aside or (session.outbox and not session.supply.may_pass()):
            return False
        if outgoing:
            payloads = [message.payload for message, _ in outgoing]
            self._counters.payload_bytes_out += sum(map(len, payloads))
            self._send(outgoing, [0] * len(outgoing), self._time.aged_us())
        return True

    def answer(self, packet: Suback | Unsuback) -> None:
        """Send it; an UNSUBACK only after the messages that were routed before it."""
        outbox = self._session.outbox
        if isinstance(packet, Unsuback) and (outbox or self._held):
            self._unsubacks.append((outbox[-1][0].offset if outbox else Offset(0), packet))
            self._send_unsubacks()
        else:
            self._output.send(packet)

    def _send_unsubacks(self) -> None:
        """Send each UNSUBACK whose earlier messages are sent. A client that has to acknowledge some
        of these messages before it can get the others does not wait for them."""
        outbox = self._session.outbox
        while self._unsubacks:
            through, packet = self._unsubacks[0]
            waiting = bool(outbox) and outbox[0][0].offset <= through
            if waiting and (self.room() or not self._output.writable):
                break
            del self._unsubacks[0]
            if self._held:
                self._output.send_when_saved(self._session, packet)
            else:
                self._output.send(packet)

    def _send_held(self, error: StoreError | None) -> None:
        """Packet Identifiers are committed: send the messages that waited for that."""
        if error is None and not (self._output.closed or self._output.connection.closed):
            taken = self._held.pop(0)
            stopped = self._held_size > HELD_BYTES_MAX
            self._held_size -= taken.size
            outgoing, packet_ids, withheld, returned = still_permitted(taken, self._session)
            if withheld:
                self._sender.discard(withheld, NOT_PERMITTED)
            if returned:  # Its group tries or buries it.
                self._groups.refusals.add(self._session, returned, NOT_PERMITTED)
            self._send(outgoing, packet_ids, self._time.aged_us())
            if stopped:
                self.wake()

    def room(self) -> int:
        """The client's Receive Maximum, less what this connection has in flight. [MQTT-3.3.4-9]"""
        if not self._output.writable:
            return 0
        window = self._session.in_flight
        return max(0, window.receive_maximum - (len(window) - len(self._sender.left)))

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        """With DUP = 1. [MQTT-3.3.1-1]"""
        self._counters.redeliveries += len(outgoing)
        self._session.tally.sent_again(len(outgoing))
        self._counters.payload_bytes_out += _payload_bytes(outgoing)
        self._send(outgoing, packet_ids, self._time.aged_us(), dup=True)

    def _send(
        self, outgoing: list[Outgoing], packet_ids: list[int], now_us: int, *, dup: bool = False
    ) -> None:
        connection = self._output.connection
        if connection.packet_bytes_max < PACKET_BYTES_MAX:
            outgoing = self._without_notes_too_large(outgoing, now_us)
        left_out = connection.send_publishes(outgoing, packet_ids, dup=dup, now_us=now_us)
        self._counters.messages_out += len(outgoing) - len(left_out)
        if left_out:
            too_much = _payload_bytes([outgoing[index] for index in left_out])
            self._counters.payload_bytes_out -= too_much
            too_large = [packet_ids[index] for index in left_out]
            self._sender.discard(too_large, TOO_LARGE)
            self._groups.settle(self._session)
        self._output.flush()

    def _without_notes_too_large(self, outgoing: list[Outgoing], now_us: int) -> list[Outgoing]:
        """Leave out the User Properties that we add unasked where they make a message too large.
        Each gap that the client is not told because of that is counted."""
        fits = self._output.connection.fits
        fitting: list[Outgoing] = []
        for message, grant in outgoing:
            if (grant.missing or grant.caught_up) and not fits(message, grant, now_us):
                self._counters.left_out.gap_notes += len(grant.missing)
                grant = replace(grant, missing=(), caught_up=False)
            fitting.append((message, grant))
        return fitting

    def acknowledged(self, ack: Ack) -> bool:
        """PUBACK, PUBREC or PUBCOMP came: the client has these messages, or refuses them.

        False: one of these Packet Identifiers waits for another type. [MQTT-4.13.1-1]
        """
        window = self._session.in_flight
        before = window.repeatable.acknowledged
        refused = ack.reason_code >= ERROR
        if refused:
            self._refused(ack)
        if ack.type == PacketType.PUBACK:
            unknown = window.puback(ack.packet_ids)
        elif ack.type == PacketType.PUBCOMP:
            unknown = window.pubcomp(ack.packet_ids)
        else:
            known = window.pubrec(ack.packet_ids, refused=refused)
            unknown = [*set(ack.packet_ids).difference(known)]
        if unknown and window.is_awaited(unknown):
            return False
        if ack.type == PacketType.PUBREC and not refused:
            self._sender.answered(ack.packet_ids)
            self._release(ack.packet_ids, known)
            return True
        self._sender.answered(ack.packet_ids)
        if window.repeatable.acknowledged != before:
            self._sender.cursor_moved()
        if window.leases.settled:
            self._groups.settle(self._session)
        self.wake()
        return True

    def _refused(self, ack: Ack) -> None:
        """What is of a group is for that to try again, or to give up; all else is dropped. (P5)"""
        of, qos2 = self._session.in_flight.leases, ack.type == PacketType.PUBREC
        leases = (of.refuse_qos2 if qos2 else of.refuse)(ack.packet_ids)
        if count := len(ack.packet_ids) - len(leases):
            self._counters.dropped["refused by the client"] += count
        said = counted(len(ack.packet_ids), "message")
        logger.info(
            "client %r refuses %s with Reason Code 0x%02X",
            *(self._session.client_id, said, ack.reason_code),
        )
        if leases:
            why = ack.reason_string or f"refused with Reason Code 0x{ack.reason_code:02X}"
            if qos2:
                self._groups.dead_letters.refused(leases, why, self._session.client_id)
            else:
                self._groups.refusals.add(self._session, leases, why)

    def _release(self, packet_ids: Sequence[int], known: list[int]) -> None:
        """PUBREC is answered by PUBREL. [MQTT-4.3.3-4]"""
        if len(known) < len(packet_ids):
            found = set(known)
            unknown = [packet_id for packet_id in packet_ids if packet_id not in found]
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._output.send(Ack(PacketType.PUBREL, unknown, code))
        if known:
            self._output.send_when_saved(self._session, Ack(PacketType.PUBREL, known))


def _payload_bytes(outgoing: Iterable[Outgoing]) -> int:
    return sum([len(message.payload) for message, _ in outgoing])
