"""Publishing: what one client publishes, from its packets to their acknowledgements.

The PUBLISH packets of one read become one append. PUBACK and PUBREC are sent when the append is
committed (P1). PUBCOMP is sent when the release of its Packet Identifier is committed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Coroutine, Iterable, Sequence
from itertools import groupby

from broker.clients.acks import acks, on_topics
from broker.clients.asking import receipt_of
from broker.clients.held_back import TOO_FAST, at_pace, refusal, refusals
from broker.clients.mixed import append_asked, append_mixed
from broker.clients.permitted import FORBIDDEN, NO_RIGHT
from broker.clients.sending import Output
from broker.clients.services import Services
from broker.config import CLOSE
from broker.errors import MessageRefused, QuotaExceeded, StoreError, StoreFull
from broker.log.outage import DISK_LOW
from broker.log.publishers import Publisher
from broker.message import NOT_STORED, Message
from broker.mqtt.packets import MQTT_5, Ack, PacketType, Publish, RefusedPublish
from broker.mqtt.properties import has_user_property
from broker.mqtt.reasons import ReasonCode
from broker.plural import counted
from broker.security.quotas import UNLIMITED, Pace, Quota
from broker.session.session import Session

logger = logging.getLogger(__name__)

RECEIPT = ("receipt", "true")
"""User Property of a PUBLISH that asks for the message's offset on its acknowledgement."""
NO_ROOM = "delayed or deduplicated: limit reached"
NOT_KEPT = "delayed: disk"
"""Reasons to drop a message that was to be delayed or deduplicated."""

_new_message: Callable[[type[Message]], Message] = object.__new__


class Publishing:
    """The messages of one client on their way into the log."""

    __slots__ = (
        "_asking",
        "_clock",
        "_closes_3_1_1",
        "_counters",
        "_counts_retained",
        "_gives_reasons",
        "_held",
        "_log",
        "_output",
        "_publisher",
        "_quotas",
        "_session",
        "_sessions",
    )

    def __init__(self, services: Services, session: Session, output: Output) -> None:
        self._asking = services.asking
        self._clock = services.clock
        self._closes_3_1_1 = services.config.forbidden_publish_3_1_1 == CLOSE
        self._log = services.log
        self._sessions = services.sessions
        self._counters = services.counters
        self._quotas = services.quotas
        self._session = session
        self._output = output
        self._gives_reasons = output.connection.version == MQTT_5
        """Whether an acknowledgement has a Reason Code: not in 3.1.1."""
        self._counts_retained = False
        """Whether there is a limit to the retained topics of the user."""
        self._held: list[Publish] = []
        """What waits for room on the disk."""
        self._publisher: Publisher | None = None

    def publish(
        self, packets: Sequence[Publish], publisher: Publisher
    ) -> Coroutine[None, None, None] | None:
        """Append a read's worth of messages, and acknowledge them when they are committed. The
        `publisher` is held while too much waits for that, or its user publishes too fast.

        If it returns something, it has done nothing: await that, and call it again."""
        user = self._session.tally.user
        quota, retained = self._quotas.of(user) if user else UNLIMITED, self._quotas.retained
        if quota.retained is not None and retained.must_count(user, packets):
            return retained.count(user)
        self._publish_now(packets, publisher, quota)
        return None

    def _publish_now(self, packets: Sequence[Publish], publisher: Publisher, quota: Quota) -> None:
        if quota is not UNLIMITED:
            pace = self._quotas.pace_of(self._session.tally.user)
            if pace is not None and not (packets := self._at_pace(packets, publisher, pace)):
                return
        self._counts_retained = quota.retained is not None
        if self._session.grants.rights.limited:
            for permitted, run in groupby(packets, self._is_permitted):
                if permitted:
                    self._publish_permitted([*run], publisher)
                elif self._refuse_forbidden(run):
                    break
        else:
            self._publish_permitted(packets, publisher)

    def _publish_permitted(self, packets: Sequence[Publish], publisher: Publisher) -> None:
        if self._log.outage.low or self._held:
            packets = self._as_far_as_there_is_room(packets, publisher)
        if "$" in [p.topic[0] for p in packets] or [1 for p in packets if p.properties]:
            awaited = False
            for asks, run in groupby(packets, self._asks):
                if asks:
                    for packet in run:
                        awaited |= self._publish_asking(packet)
                elif self._counts_retained:
                    awaited |= self._publish_counted([*run])
                else:
                    awaited |= self._publish([*run])
        elif self._counts_retained:
            awaited = self._publish_counted(packets)
        else:
            awaited = self._publish(packets)
        if awaited:
            self._log.throttle(publisher)

    def _is_permitted(self, packet: Publish) -> bool:
        """Also what was received before, when it may have been."""
        return self._session.grants.rights.may_publish(packet.topic) or self._is_repeated(packet)

    def _refuse_forbidden(self, packets: Iterable[Publish]) -> bool:
        """MQTT 5 is told. 3.1.1 cannot be: it hears that they have arrived, or nothing at all.
        Whether its connection is closed."""
        closes = not self._gives_reasons and self._closes_3_1_1
        for packet in packets:
            refused = RefusedPublish(
                packet.qos, packet.packet_id, ReasonCode.NOT_AUTHORIZED, NO_RIGHT, FORBIDDEN
            )
            self.refuse(refused, answer=not closes)
            if closes:
                self._output.close(ReasonCode.NOT_AUTHORIZED, NO_RIGHT)
                return True
        return False

    def _at_pace(self, packets: Sequence[Publish], by: Publisher, pace: Pace) -> Sequence[Publish]:
        """Those that are taken; then the client is not read from, while its user is ahead."""
        now = self._clock.monotonic()
        taken, refused = at_pace(packets, pace, now, self._is_repeated, tells=self._gives_reasons)
        self._refuse(refused, TOO_FAST, TOO_FAST)
        self._counters.dropped[TOO_FAST] += len(packets) - len(taken) - len(refused)
        if (ahead_s := pace.ahead_s(now)) > 0:
            self._quotas.slowing.slow(by, ahead_s, now)
        return taken

    def _as_far_as_there_is_room(
        self, packets: Sequence[Publish], publisher: Publisher
    ) -> Sequence[Publish]:
        """The disk is nearly full: of QoS 1 and 2 only what was received before. MQTT 5 is told so
        of the others; 3.1.1 cannot be, and waits."""
        taken = [p for p in packets if not p.qos or self._is_repeated(p)]
        others = [p for p in packets if p.qos and not self._is_repeated(p)]
        if others and self._gives_reasons:
            self._refuse(others, self._log.outage.low, DISK_LOW)
        elif others:
            if not self._held:
                self._log.outage.when_room(self._go_on)
            self._held += others
            self._publisher = publisher
            self._log.publishers.hold([publisher])
        return taken

    def _is_repeated(self, packet: Publish) -> bool:
        return packet.qos == 2 and packet.packet_id in self._session.received

    def _refuse(self, packets: Sequence[Publish], reason: str, dropped_as: str) -> None:
        """Refuse them, after all that came before them is acknowledged."""
        if not packets:
            return
        acks = refusals(packets, reason, self._session.client_id)
        self._counters.dropped[dropped_as] += len(packets)

        def committed(error: StoreError | None) -> None:
            self._output.send(*acks)

        self._log.append([], committed, self._output.failed, durable=False, keep_if_full=False)

    def _go_on(self) -> None:
        """There is room again."""
        held, self._held = self._held, []
        if held and self._publisher is not None:
            try:
                quota = self._quotas.of(self._session.tally.user)
                self._publish_now(held, self._publisher, quota)
            except Exception as error:
                self._output.failed(error)

    def stop(self) -> None:
        """The client is gone. What waits was not acknowledged."""
        self._log.outage.forget(self._go_on)
        self._held = []

    def _asks(self, packet: Publish) -> bool:
        return self._asking.asks(packet.topic, packet.properties)

    def _publish_counted(self, packets: Sequence[Publish]) -> bool:
        """As `_publish`. With each message that is to be retained is stored whose it is."""
        awaited = False
        for retains, run in groupby(packets, lambda p: p.retain and not self._is_repeated(p)):
            for part in [[packet] for packet in run] if retains else [[*run]]:
                awaited |= self._publish_retained(part[0]) if retains else self._publish(part)
        return awaited

    def _publish_retained(self, packet: Publish) -> bool:
        session = self._session
        try:
            counted = self._quotas.retained.take(session.tally.user, packet)
        except MessageRefused as error:
            self.refuse(refusal(packet, error, error.dropped_as))
            return packet.qos > 0
        awaited = self._publish([packet])
        self._log.append(
            [],
            durable=False,
            keep_if_full=awaited and not self._gives_reasons,
            operations=counted.operations,
            place=counted.place,
            source=session,
        )
        return awaited

    def _publish(self, packets: Sequence[Publish]) -> bool:
        """As `publish`, for messages without a delay or a `dedup-key`. Whether the client waits for
        an acknowledgement: not if all are QoS 0."""
        session, log, output = self._session, self._log, self._output
        client_id = session.client_id
        now_us = self._clock.wall_us()
        messages: list[Message] = []
        pubacks: list[int] = []
        pubrecs: list[int] = []
        received: list[int] = []
        receipts: dict[int, Message] = {}
        for packet in packets:
            qos = packet.qos
            if qos == 1:
                pubacks.append(packet.packet_id)
            elif qos == 2:
                pubrecs.append(packet.packet_id)
                if not session.received.receive(packet.packet_id):
                    continue
                received.append(packet.packet_id)
            payload, properties = packet.payload, packet.properties
            expiry_s = packet.message_expiry_s
            expires_at_us = None if expiry_s is None else log.time.expires_at_us(now_us, expiry_s)
            # As its constructor, without a call for each: `make bench`, qos1-w1000, 4 % of the CPU.
            message = _new_message(Message)
            message.topic = packet.topic
            message.payload = payload
            message.qos = qos
            message.retain = packet.retain
            message.publisher = client_id
            message.published_at_us = now_us
            message.expires_at_us = expires_at_us
            message.properties = properties
            message.offset = NOT_STORED
            message.size = len(payload) + len(properties) if properties else len(payload)
            messages.append(message)
            if properties and qos and has_user_property(properties, RECEIPT):
                receipts[packet.packet_id] = message

        def committed(error: StoreError | None) -> None:
            if error is None:
                told = self._gives_reasons
                unwanted = self._unwanted(messages, pubacks, received) if told else ()
                if pubacks:
                    self._output.send(*acks(PacketType.PUBACK, pubacks, 0, receipts, unwanted))
                if pubrecs:
                    self._output.send(*acks(PacketType.PUBREC, pubrecs, 0, receipts, unwanted))
            elif isinstance(error, StoreFull):
                # The client may be gone, its session is there: a message sent again is a new one.
                session.received.release(received)
                logger.info(
                    "client %r: %s refused: %s",
                    session.client_id,
                    counted(len(messages), "message is", "messages are"),
                    error,
                )
                before = [packet_id for packet_id in pubrecs if packet_id not in received]
                self._output.send(*acks(PacketType.PUBACK, pubacks, ReasonCode.QUOTA_EXCEEDED))
                self._output.send(*acks(PacketType.PUBREC, received, ReasonCode.QUOTA_EXCEEDED))
                self._output.send(*acks(PacketType.PUBREC, before, 0))

        if pubacks or pubrecs:
            awaited = len(pubacks) + len(received)
            # MQTT 5 is told that there is no space. A 3.1.1 client is not read until there is.
            keep_if_full = not self._gives_reasons or not awaited
            if len(messages) > awaited:
                append_mixed(log, messages, committed, output.failed, keep_if_full=keep_if_full)
            else:
                log.append(messages, committed, output.failed, keep_if_full=keep_if_full)
            if pubrecs and session.durable:
                log.changed(session)
            return True
        log.append(messages, durable=False)
        return False

    def _publish_asking(self, packet: Publish) -> bool:
        """As `publish`, for one message with a delay or a `dedup-key`."""
        session, log, asking = self._session, self._log, self._asking
        qos, packet_id = packet.qos, packet.packet_id
        if qos == 2 and not session.received.receive(packet_id):
            return self._publish([packet])
        expiry_s = packet.message_expiry_s
        now_us = self._clock.wall_us()
        expires_at_us = None if expiry_s is None else log.time.expires_at_us(now_us, expiry_s)
        message = Message(
            packet.topic,
            packet.payload,
            qos,
            packet.retain,
            session.client_id,
            now_us,
            expires_at_us,
            packet.properties,
        )
        try:
            asked = asking.accept(message, expiry_s, session.grants.rights.author)
        except QuotaExceeded as error:
            session.received.release([packet_id] if qos == 2 else ())
            dropped_as = error.dropped_as if isinstance(error, MessageRefused) else NO_ROOM
            self.refuse(refusal(packet, error, dropped_as))
            return qos > 0
        kind = PacketType.PUBACK if qos == 1 else PacketType.PUBREC

        def committed(error: StoreError | None) -> None:
            stored = asking.settle(asked, error)
            if error is not None and not isinstance(error, StoreFull):
                return
            if not qos:
                if not stored and asked.delayed is not None:
                    self._counters.dropped[NOT_KEPT] += 1
            elif stored:
                wanted = has_user_property(packet.properties, RECEIPT)
                receipt = receipt_of(asked) if wanted else []
                self._output.send(Ack(kind, [packet_id], user_properties=receipt))
            else:
                session.received.release([packet_id] if qos == 2 else ())
                self._output.send(Ack(kind, [packet_id], ReasonCode.QUOTA_EXCEEDED))

        keep_if_full = bool(qos) and not self._gives_reasons
        append_asked(
            log, asked, committed, self._output.failed, session, qos=qos, keep_if_full=keep_if_full
        )
        if qos == 2 and session.durable:
            log.changed(session)
        return qos > 0

    def refuse(self, publish: RefusedPublish, *, answer: bool = True) -> None:
        """Acknowledge it, after all earlier packets.

        3.1.1 has no Reason Code that refuses, and still has to be answered. [MQTT3-3.3.5-2]
        """
        self._counters.dropped[publish.dropped_as] += 1
        logger.info("client %r: a message is refused: %s", self._session.client_id, publish.reason)
        if not publish.qos or not answer:
            return
        kind = PacketType.PUBACK if publish.qos == 1 else PacketType.PUBREC
        ack = Ack(kind, [publish.packet_id], publish.reason_code, publish.reason)

        def committed(error: StoreError | None) -> None:
            if error is None:
                self._output.send(ack)

        self._log.append([], committed, self._output.failed, durable=False)

    def release(self, packet_ids: Sequence[int]) -> None:
        """PUBREL came: answer with PUBCOMP.

        Unknown identifiers wait, too: their release by an earlier PUBREL may not be committed yet.
        """
        known = self._session.received.release(packet_ids)
        if known:
            self._output.send_when_saved(self._session, Ack(PacketType.PUBCOMP, known))
        if len(known) < len(packet_ids):
            found = set(known)
            unknown = [packet_id for packet_id in packet_ids if packet_id not in found]
            code = ReasonCode.PACKET_IDENTIFIER_NOT_FOUND
            self._output.send_when_saved(self._session, Ack(PacketType.PUBCOMP, unknown, code))

    def _unwanted(
        self, messages: Sequence[Message], pubacks: Sequence[int], received: Sequence[int]
    ) -> Collection[int]:
        """Packet Identifiers of the QoS 1 and 2 messages to which certainly nobody is subscribed.
        3.1.1 cannot be told. [MQTT 5, section 3.4.2.1]"""
        topics = self._sessions.nobody_gets(messages)
        return on_topics(topics, messages, pubacks, received) if topics else ()
