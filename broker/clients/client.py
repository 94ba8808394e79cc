"""Client: one connected MQTT client. Only here connection, session and log meet.

    bytes ─▶ Connection ─▶ perform ─▶ Session, Log.append ─▶ (committed) ─▶ acknowledgements
    bytes ◀─ Connection ◀─ wake    ◀─ Session.take        ◀─ Delivery

CONNECT, and a SUBSCRIBE that replays, wait for the log, and many Topic Filters take several turns;
what arrives meanwhile waits its turn, and the socket is not read. Everything else is done at once,
its acknowledgement when it is committed.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Collection, Coroutine, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, islice
from typing import assert_never

from broker.clients.faces import Transport
from broker.clients.services import Services
from broker.documents import WillDocument
from broker.errors import QuotaExceeded, StoreError, StoreFull
from broker.message import Grant, Message, Monotonic, Outgoing, WallUs
from broker.mqtt.connection import Closed, Connection, ControlEvent, Event
from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    PacketType,
    Properties,
    Publish,
    RefusedPublish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.mqtt.properties import Property, has_user_property
from broker.mqtt.reasons import ReasonCode
from broker.registry.sessions import Owner
from broker.session.in_flight import InFlight, Stage
from broker.session.session import Session
from broker.topics import SYS

logger = logging.getLogger(__name__)

TAKE_BYTES_MAX = 256 * 1024
"""What one turn moves from the session to the socket, or reads again from the log."""
RESEND_MAX = 64
"""Messages that are read from the log at a time, to be sent again."""
RECEIPT = ("receipt", "true")
"""User Property of a PUBLISH that asks for the message's offset on its acknowledgement."""
NO_RECEIPTS: Mapping[int, Message] = {}
US = 1_000_000


class Client(Owner):
    def __init__(self, services: Services, transport: Transport, peer: str, now: Monotonic) -> None:
        self._services = services
        self._transport = transport
        self._peer = peer
        self._connection = Connection(
            now=now,
            limits=services.limits,
            methods=services.methods,
            traffic=services.counters.packets,
        )
        self._session: Session | None = None
        self._client_id = ""
        self.closed = False
        self._lost = False
        self._will_withdrawn = False
        self._writable = True
        self._flush_scheduled = False
        self._step: asyncio.Task[None] | None = None
        self._backlog: list[Event] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._may_resend: asyncio.Event | None = None
        """While an earlier connection's messages are sent again: set when there may be room."""
        self._held: list[tuple[list[Outgoing], list[int]]] = []
        """Few, and a list: an empty deque is 0.7 KB for each idle connection."""
        self._reading_paused_by: set[str] = set()

    # The rim calls

    def receive(self, data: bytes, now: Monotonic) -> None:
        """Bytes came from the socket."""
        if self.closed:
            return
        events = self._connection.receive_data(data, now)
        if self._step is not None:
            self._backlog.extend(events)
        else:
            self._perform(events)
        self._flush()

    def deadline(self) -> Monotonic | None:
        """Monotonic second at which `expire` is to be called, or None."""
        return self._connection.deadline()

    def expire(self, now: Monotonic) -> None:
        if self._reading_paused_by:
            return  # It is we who do not listen.
        closed = self._connection.expire(now)
        if closed is not None:
            self._perform([closed])
            self._flush()

    def writable(self, *, yes: bool) -> None:
        """The socket's buffer has room again, or is full."""
        self._writable = yes
        if yes:
            self.wake()

    def lost(self) -> None:
        """The connection is gone, whoever ended it. What came before that still counts."""
        self._lost = True
        if self._step is None:
            self._leave()

    def shut_down(self) -> None:
        """The broker stops."""
        self._connection.close(ReasonCode.SERVER_SHUTTING_DOWN)
        self._end()

    # Others call

    def wake(self) -> None:
        """Send what the session has, as far as window and socket permit."""
        session = self._session
        if session is None or self.closed:
            return
        if self._may_resend is not None:
            self._may_resend.set()
            return
        counters = self._services.counters
        while self._writable and (session.aside or session.outbox):
            now_us = self._services.clock.wall_us()
            taken = session.take(now_us, TAKE_BYTES_MAX)
            outgoing, packet_ids = taken.outgoing, taken.packet_ids
            counters.payload_bytes_out += taken.payload_bytes
            if taken.expired:
                counters.dropped["expired"] += len(taken.expired)
            if not outgoing:
                break
            if 0 in packet_ids and session.durable:
                # Nobody acknowledges QoS 0, and a crash must not repeat all of it.
                self._services.log.changed(session)
            self._services.groups.settle(session)
            if self._held or taken.held:
                self._held.append((outgoing, packet_ids))
                self._services.log.changed(session, self._send_held)
            else:
                self._send_publishes(outgoing, packet_ids, now_us)
        if not self.closed:
            self._services.delivery.drained(session)
            self._services.groups.drained(session)

    def broken(self, error: StoreError) -> None:
        """What the session is owed cannot be read."""
        logger.error("client %r: %s", self._client_id, error)
        self._connection.close(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, "the log is damaged")
        self._end()

    def taken_over(self) -> None:
        """Another connection uses the client identifier: let go of the session. [MQTT-3.1.4-3]"""
        logger.info("client %r taken over from %s", self._client_id, self._peer)
        self._connection.close(ReasonCode.SESSION_TAKEN_OVER)
        self._end()

    # Incoming packets

    def _perform(self, events: Sequence[Event]) -> None:
        """Obey in order; stop at what has to wait and go on when it is done."""
        publishes: list[Publish] = []
        for index, event in enumerate(events):
            if type(event) is Publish:
                publishes.append(event)
                continue
            if publishes:
                self._publish(publishes)
                publishes = []
            self._obey(event)
            if self.closed:
                return
            if self._step is not None:
                self._backlog.extend(events[index + 1 :])
                return
        if publishes:
            self._publish(publishes)

    def _obey(self, event: ControlEvent) -> None:
        match event:
            case Ack():
                self._acknowledged(event)
            case RefusedPublish():
                self._refuse(event)
            case Subscribe() | Unsubscribe():
                self._subscribe(event)
            case Disconnect():
                self._disconnect(event)
            case Connect():
                self._wait_for(self._connect(event))
            case Closed():
                self._services.counters.protocol_errors += 1
                logger.info("client %r at %s: %s", self._client_id, self._peer, event.reason)
                self._end()
            case _:
                assert_never(event)

    def _wait_for(self, step: Coroutine[None, None, None]) -> None:
        """Do this before anything else that came or comes from the client."""
        self._pause_reading("step")

        async def then_go_on() -> None:
            try:
                await step
            finally:
                self._step = None
            if self.closed:
                return
            events, self._backlog = self._backlog, []
            self._perform(events)
            self._flush()
            if self._step is None and self._lost:
                self._leave()
            elif self._step is None:
                self._resume_reading("step")

        self._step = self._spawn(then_go_on())

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._task_done)
        return task

    def _task_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.critical("client %r is cut off", self._client_id, exc_info=error)
            self._end()

    async def _connect(self, packet: Connect) -> None:
        services = self._services
        services.counters.connects += 1
        connack = Connack(session_present=False, reason_code=0)
        self._client_id = packet.client_id
        if not packet.client_id:
            self._client_id = f"auto-{uuid.uuid4().hex}"
            connack.properties[Property.ASSIGNED_CLIENT_IDENTIFIER] = self._client_id
        expiry_s = self._session_expiry_s(packet)
        if packet.session_expiry_s not in (None, expiry_s):
            connack.properties[Property.SESSION_EXPIRY_INTERVAL] = expiry_s
        connack.properties |= self._properties_asked_for(packet)
        try:
            session, connack.session_present = await services.sessions.open(
                self._client_id,
                self,
                clean_start=packet.clean_start,
                session_expiry_s=expiry_s,
                receive_maximum=packet.receive_maximum,
                operations=lambda: services.wills.connected(self._client_id, self._will(packet)),
                now=services.clock.now(),
            )
        except (QuotaExceeded, StoreError) as error:
            self._refuse_connect(error)
            return
        self._session = session
        if self.closed:
            now = services.clock.now()
            services.wills.client_lost(self._client_id, session_expiry_s=expiry_s, now=now)
            services.sessions.close(session, self, now)
            return
        self._connection.accept(connack)
        self._transport.deadline_moved()  # From the connect timeout to the keep alive.
        self._continue(session)
        self._flush()
        try:
            await services.groups.attach(session, self)
        except (QuotaExceeded, StoreError) as error:
            # Better to come again than to stay and not to get its share.
            self._refuse_connect(error)
            return
        self.wake()

    def _refuse_connect(self, error: QuotaExceeded | StoreError) -> None:
        self._services.counters.refused_connects += 1
        full = isinstance(error, QuotaExceeded | StoreFull)
        code = ReasonCode.QUOTA_EXCEEDED if full else ReasonCode.SERVER_UNAVAILABLE
        logger.warning("client %r refused: %s", self._client_id, error)
        self._connection.close(code, str(error))
        self._end()

    def _properties_asked_for(self, packet: Connect) -> Properties:
        """Response Information and Server Keep Alive. [MQTT-3.1.2-28, MQTT-3.2.2-21]

        3.1.1 has no way to tell a client another Keep Alive, and who was not told would be cut off
        while it keeps to its own: it is left with that.
        """
        config = self._services.config
        properties: Properties = {}
        if packet.request_response_information and config.response_information:
            properties[Property.RESPONSE_INFORMATION] = config.response_information
        longest_s = config.keep_alive_max_s
        if packet.version == MQTT_5 and longest_s and not 0 < packet.keep_alive_s <= longest_s:
            properties[Property.SERVER_KEEP_ALIVE] = longest_s
        return properties

    def _session_expiry_s(self, packet: Connect) -> int:
        """How long the session outlives the connection. [MQTT-3.1.2-23, MQTT3-3.1.2-4]"""
        config = self._services.config
        if packet.version == MQTT_5:
            return min(packet.session_expiry_s or 0, config.session_expiry_max_s)
        return 0 if packet.clean_start else config.session_expiry_default_s

    def _will(self, packet: Connect) -> WillDocument | None:
        will = packet.will
        if will is None:
            return None
        return WillDocument(
            self._client_id,
            will.topic,
            will.payload,
            will.qos,
            will.retain,
            will.properties,
            will.message_expiry_s,
            will.delay_s,
            None,
        )

    def _continue(self, session: Session) -> None:
        """Continue every unfinished exchange under its Packet Identifier. [MQTT-4.4.0-1]"""
        unfinished = session.in_flight.unfinished()
        released = [e.packet_id for e in unfinished if e.stage is Stage.RELEASED]
        if released:
            self._connection.send(Ack(PacketType.PUBREL, released))
        sent = deque(e for e in unfinished if e.stage is not Stage.RELEASED)
        if sent:
            self._may_resend = asyncio.Event()
            self._spawn(self._resend(session, sent))

    async def _resend(self, session: Session, waiting: deque[InFlight]) -> None:
        """Send again what is not acknowledged, and only then what is new, or the order is lost.

        A part at a time: this client may permit less in flight than the one before, and the
        messages are to be read from the log.
        """
        assert self._may_resend is not None
        while waiting:
            window = session.in_flight
            room = window.receive_maximum - (len(window) - len(waiting))
            if room <= 0 or not self._writable:
                self._may_resend.clear()
                await self._may_resend.wait()
            else:
                part = [*islice(waiting, min(room, RESEND_MAX))]
                try:
                    stored = await self._services.log.store.fetch(
                        [entry.offset for entry in part], bytes_max=TAKE_BYTES_MAX
                    )
                except StoreError as error:
                    self.broken(error)
                    return
                # What is above the last that was found was maybe not looked for.
                last = stored[-1].offset if stored else part[-1].offset
                part = [entry for entry in part if entry.offset <= last]
                for _ in part:
                    waiting.popleft()
                self._send_again(session, part, stored)
            if self.closed:
                return
        self._may_resend = None
        self.wake()

    def _send_again(
        self, session: Session, entries: Sequence[InFlight], stored: Sequence[Message]
    ) -> None:
        if self.closed:
            return
        messages = {message.offset: message for message in stored}
        outgoing: list[Outgoing] = []
        packet_ids: list[int] = []
        for entry in entries:
            message = messages.get(entry.offset)
            if message is None:
                self._discard(session, [entry.packet_id], "removed by retention")
                continue
            qos = 1 if entry.stage is Stage.SENT_QOS1 else 2
            grant = session.grants.of(message) or Grant(qos)
            outgoing.append((message, replace(grant, qos=qos, retained=entry.retained)))
            packet_ids.append(entry.packet_id)
        self._services.counters.redeliveries += len(outgoing)
        self._services.counters.payload_bytes_out += _payload_bytes(outgoing)
        now_us = self._services.clock.wall_us()
        self._send_publishes(outgoing, packet_ids, now_us, dup=True)

    def _publish(self, publishes: Sequence[Publish]) -> None:
        """Append a read's worth of messages; PUBACK, PUBREC leave when they are committed (P1)."""
        session, log, counters = self._session, self._services.log, self._services.counters
        assert session is not None
        client_id = self._client_id
        now_us = self._services.clock.wall_us()
        messages: list[Message] = []
        pubacks: list[int] = []
        pubrecs: list[int] = []
        received: list[int] = []
        receipts: dict[int, Message] = {}
        for packet in publishes:
            qos = packet.qos
            if qos == 1:
                pubacks.append(packet.packet_id)
            elif qos == 2:
                pubrecs.append(packet.packet_id)
                if not session.received.receive(packet.packet_id):
                    continue
                received.append(packet.packet_id)
            expiry_s = packet.message_expiry_s
            message = Message(
                packet.topic,
                packet.payload,
                qos,
                packet.retain,
                client_id,
                now_us,
                None if expiry_s is None else now_us + expiry_s * US,
                packet.properties,
            )
            messages.append(message)
            if packet.properties and qos and has_user_property(packet.properties, RECEIPT):
                receipts[packet.packet_id] = message

        def committed(error: StoreError | None) -> None:
            if error is None:
                unwanted = self._unwanted(messages, pubacks, received)
                self._acknowledge(PacketType.PUBACK, pubacks, 0, receipts, unwanted)
                self._acknowledge(PacketType.PUBREC, pubrecs, 0, receipts, unwanted)
            elif isinstance(error, StoreFull):
                # The client may be gone, but not its session: what it sends again is new.
                session.received.release(received)
                counters.dropped["no space"] += sum(not message.qos for message in messages)
                before = [packet_id for packet_id in pubrecs if packet_id not in received]
                self._acknowledge(PacketType.PUBACK, pubacks, ReasonCode.QUOTA_EXCEEDED)
                self._acknowledge(PacketType.PUBREC, received, ReasonCode.QUOTA_EXCEEDED)
                self._acknowledge(PacketType.PUBREC, before, 0)

        if pubacks or pubrecs:
            # MQTT 5 can say that there is no space, to 3.1.1 we do not listen until there is.
            keep_if_full = self._connection.version != MQTT_5 or not messages
            log.append(messages, committed, keep_if_full=keep_if_full)
            if pubrecs and session.durable:
                log.changed(session)
        else:
            log.append(messages, durable=False)
        if log.congested:
            self._pause_reading("log")
            log.when_uncongested(lambda: self._resume_reading("log"))

    def _refuse(self, publish: RefusedPublish) -> None:
        """Acknowledge it, after all that came before it.

        3.1.1 cannot say that it was refused, and is to be answered all the same. [MQTT3-3.3.5-2]
        """
        self._services.counters.dropped[f"published to {SYS}"] += 1
        if not publish.qos:
            return
        kind = PacketType.PUBACK if publish.qos == 1 else PacketType.PUBREC
        ack = Ack(kind, [publish.packet_id], publish.reason_code, publish.reason)

        def committed(error: StoreError | None) -> None:
            if error is None and not self.closed:
                self._connection.send(ack)
                self._schedule_flush()

        self._services.log.append([], committed, durable=False)

    def _unwanted(
        self, messages: Sequence[Message], pubacks: Sequence[int], received: Sequence[int]
    ) -> Collection[int]:
        """Packet Identifiers of messages of QoS 1 and 2 that nobody is subscribed to, as far as is
        known and the client can be told. [section 3.4.2.1]"""
        if self._connection.version != MQTT_5:
            return ()
        topics = self._services.sessions.nobody_gets(messages)
        if not topics:
            return ()
        return {
            packet_id
            for qos, packet_ids in ((1, pubacks), (2, received))
            for packet_id, message in zip(
                packet_ids, [m for m in messages if m.qos == qos], strict=True
            )
            if message.topic in topics
        }

    def _acknowledge(
        self,
        kind: PacketType,
        packet_ids: Sequence[int],
        code: int,
        receipts: Mapping[int, Message] = NO_RECEIPTS,
        unwanted: Collection[int] = (),
    ) -> None:
        if not packet_ids or self.closed:
            return
        if unwanted:
            for nobody, run in groupby(packet_ids, unwanted.__contains__):
                answer = ReasonCode.NO_MATCHING_SUBSCRIBERS if nobody else code
                self._acknowledge(kind, [*run], answer, receipts)
        elif receipts:
            for packet_id in packet_ids:
                ack = Ack(kind, [packet_id], code)
                if packet_id in receipts:
                    ack.user_properties = [("offset", str(receipts[packet_id].offset))]
                self._connection.send(ack)
        else:
            self._connection.send(Ack(kind, packet_ids, code))
        self._schedule_flush()

    def _acknowledged(self, ack: Ack) -> None:
        """The client's side of QoS 1 and 2, in both directions."""
        session = self._session
        assert session is not None
        refused = ack.reason_code >= 0x80
        if refused:
            self._services.counters.dropped["refused by the client"] += len(ack.packet_ids)
        match ack.type:
            case PacketType.PUBACK:
                session.in_flight.puback(ack.packet_ids)
                self._moved(session)
            case PacketType.PUBREC:
                self._pubrec(session, ack.packet_ids, refused=refused)
            case PacketType.PUBREL:
                self._pubrel(session, ack.packet_ids)
            case PacketType.PUBCOMP:
                session.in_flight.pubcomp(ack.packet_ids)
                self._moved(session)

    def _moved(self, session: Session) -> None:
        """The cursor moved: it is committed in its turn, and the window may have room."""
        if session.durable:
            self._services.log.changed(session, self._cursor_committed, urgent=False)
        self._services.groups.settle(session)
        self.wake()

    def _cursor_committed(self, error: StoreError | None) -> None:
        """What a crash could repeat has become less, so more may be in flight (P4); or the disk is
        full, which is no reason not to read."""
        if error is None or isinstance(error, StoreFull):
            self.wake()

    def _pubrec(self, session: Session, packet_ids: Sequence[int], *, refused: bool) -> None:
        known = session.in_flight.pubrec(packet_ids, refused=refused)
        if refused:
            self._moved(session)
            return
        if len(known) < len(packet_ids):
            found = set(known)
            unknown = [packet_id for packet_id in packet_ids if packet_id not in found]
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._connection.send(Ack(PacketType.PUBREL, unknown, code))
        if known:
            self._when_saved(session, Ack(PacketType.PUBREL, known))

    def _pubrel(self, session: Session, packet_ids: Sequence[int]) -> None:
        """Unknown ones wait as well: what released them may not be committed yet."""
        known = session.received.release(packet_ids)
        if known:
            self._when_saved(session, Ack(PacketType.PUBCOMP, known))
        if len(known) < len(packet_ids):
            found = set(known)
            unknown = [packet_id for packet_id in packet_ids if packet_id not in found]
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._when_saved(session, Ack(PacketType.PUBCOMP, unknown, code))

    def _when_saved(self, session: Session, ack: Ack) -> None:
        """Send this when the session's state as it is now is committed. [MQTT-4.3.3]"""
        if not session.durable:
            self._connection.send(ack)
            return

        def saved(error: StoreError | None) -> None:
            if error is None and not self.closed:
                self._connection.send(ack)
                self._schedule_flush()

        self._services.log.changed(session, saved)

    def _disconnect(self, packet: Disconnect) -> None:
        session = self._session  # None: it leaves before it is authenticated.
        if session is not None and packet.session_expiry_s is not None and session.durable:
            longest_s = self._services.config.session_expiry_max_s
            session.set_expiry(min(packet.session_expiry_s, longest_s))
        self._will_withdrawn = packet.reason_code == ReasonCode.SUCCESS
        self._end()

    def _subscribe(self, packet: Subscribe | Unsubscribe) -> None:
        session, subscriptions = self._session, self._services.subscriptions
        assert session is not None
        if isinstance(packet, Subscribe):
            waiting = subscriptions.subscribe(session, packet, self)
        else:
            waiting = subscriptions.unsubscribe(session, packet, self)
        if waiting is not None:
            self._wait_for(waiting)

    # Outgoing bytes

    def answer(self, packet: Suback | Unsuback) -> None:
        """What the client asked for is done."""
        if not self.closed:
            self._connection.send(packet)
            self._schedule_flush()

    def _send_held(self, error: StoreError | None) -> None:
        """Packet Identifiers are committed: what waited for that may go."""
        if error is None and not self.closed:
            outgoing, packet_ids = self._held.pop(0)
            self._send_publishes(outgoing, packet_ids, self._services.clock.wall_us())

    def _send_publishes(
        self, outgoing: list[Outgoing], packet_ids: list[int], now_us: WallUs, *, dup: bool = False
    ) -> None:
        left_out = self._connection.send_publishes(outgoing, packet_ids, dup=dup, now_us=now_us)
        self._services.counters.messages_out += len(outgoing) - len(left_out)
        if left_out:
            assert self._session is not None
            too_much = _payload_bytes([outgoing[index] for index in left_out])
            self._services.counters.payload_bytes_out -= too_much
            too_large = [packet_ids[index] for index in left_out]
            self._discard(self._session, too_large, "packet too large for the client")
        self._flush()

    def _discard(self, session: Session, packet_ids: Sequence[int], reason: str) -> None:
        """Give up these deliveries. The window has room again once that is committed."""
        self._services.counters.dropped[reason] += len(packet_ids)
        session.in_flight.finish(packet_ids)
        self._services.groups.settle(session)
        self._services.log.changed(session, self._cursor_committed, urgent=False)

    def _schedule_flush(self) -> None:
        """Write once per turn of the loop, however many acknowledgements became due in it."""
        if not self._flush_scheduled:
            self._flush_scheduled = True
            asyncio.get_running_loop().call_soon(self._flush)

    def _flush(self) -> None:
        self._flush_scheduled = False
        data = self._connection.data_to_send()
        if data and not self._lost:
            self._transport.write(data)
        if self._connection.closed and not self.closed and self._step is None:
            self._end()

    def _pause_reading(self, reason: str) -> None:
        if not self._reading_paused_by:
            self._transport.pause_reading()
        self._reading_paused_by.add(reason)

    def _resume_reading(self, reason: str) -> None:
        if reason in self._reading_paused_by:
            self._reading_paused_by.discard(reason)
            if not self._reading_paused_by and not self.closed:
                self._transport.resume_reading()

    # The end

    def _end(self) -> None:
        """Send what is queued, close the connection and let go of the session."""
        self._leave()
        self._flush()
        self._transport.close()

    def _leave(self) -> None:
        if self.closed:
            return
        self.closed = True
        if self._may_resend is not None:
            self._may_resend.set()
        session = self._session
        if session is None:
            return
        wills, now = self._services.wills, self._services.clock.now()
        if self._will_withdrawn:
            wills.withdrawn(self._client_id)
        else:
            expiry_s = session.session_expiry_s
            wills.client_lost(self._client_id, session_expiry_s=expiry_s, now=now)
        self._services.groups.detach(session)
        self._services.sessions.close(session, self, now)


def _payload_bytes(outgoing: Iterable[Outgoing]) -> int:
    return sum([len(message.payload) for message, _ in outgoing])
