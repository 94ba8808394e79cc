"""LineClient: one connection of the line protocol. It may carry several subscribers.

A subscriber is a durable session of that client identifier, fed like any other; the protocol has no
acknowledgement, so a message counts as acknowledged when the operating system has taken its bytes.
Commands are answered in their order, PUBLISH when the message is committed (P1).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice

from broker.clients.client import RESEND_MAX, TAKE_BYTES_MAX
from broker.clients.faces import Transport
from broker.clients.services import Services
from broker.documents import Delete, Operation, Put, SubscriptionDocument
from broker.errors import (
    ClientIdentifierNotValid,
    PeerError,
    QuotaExceeded,
    SharedSubscriptionsNotSupported,
    StoreError,
    StoreFull,
)
from broker.lines.connection import (
    LineConnection,
    LineError,
    LineEvent,
    LinePublish,
    LineSubscribe,
    LineUnsubscribe,
)
from broker.message import Message
from broker.registry.sessions import Owner
from broker.replay import placing
from broker.session.in_flight import InFlight
from broker.session.session import Session
from broker.topics import REPLAY_PREFIX, SHARE_PREFIX, is_shared

logger = logging.getLogger(__name__)

NOT_STORED = "not stored: the broker's disk is full or failing, try again later"
TAKEN_OVER = "another connection took the subscriber over"


class _Answer:
    """The place of a command's answer in the order of answers. `reason` is empty for OK."""

    __slots__ = ("given", "reason")

    def __init__(self) -> None:
        self.given = False
        self.reason = ""


class LineClient:
    def __init__(self, services: Services, transport: Transport, peer: str, now: float) -> None:
        config = services.config
        self.services = services
        self._transport = transport
        self._peer = peer
        self._connection = LineConnection(
            now=now,
            line_bytes_max=config.packet_bytes_max,
            topic_bytes_max=config.topic_bytes_max,
            topic_levels_max=config.topic_levels_max,
        )
        self._subscribers: dict[str, _LineSubscriber] = {}
        self._answers: deque[_Answer] = deque()
        self._events: deque[LineEvent] = deque()
        self._step: asyncio.Task[None] | None = None
        self.input_ended = False
        self._closed = False
        self.writable_now = True

    # The rim calls

    def receive(self, data: bytes, now: float) -> None:
        self._events.extend(self._connection.receive_data(data, now))
        self._perform()

    def end_of_input(self) -> bool:
        """No more commands will come; whether answers are still due.

        Nothing is delivered any more: a peer that is gone and one that only has no more to say look
        the same, and what the former does not get must not count as acknowledged.
        """
        self.input_ended = True
        return not self._done()

    def deadline(self) -> float | None:
        return self._connection.deadline()

    def expire(self, now: float) -> None:
        """A line connection has no keep alive."""

    def writable(self, *, yes: bool) -> None:
        """The operating system has taken everything, or not yet."""
        self.writable_now = yes
        if yes:
            for subscriber in list(self._subscribers.values()):
                subscriber.taken()
                subscriber.wake()

    def lost(self) -> None:
        self._closed = True
        if self._step is None:
            self._leave()

    def shut_down(self) -> None:
        self._leave()
        self._closed = True
        self._transport.close()

    # Commands

    def _perform(self) -> None:
        """Obey in order; a SUBSCRIBE may have to wait for the log, and what follows for it."""
        while self._events and self._step is None:
            if isinstance(self._events[0], LinePublish):
                self._publish()
                continue
            event = self._events.popleft()
            answer = _Answer()
            self._answers.append(answer)
            match event:
                case LineError(reason):
                    self._answer(answer, reason)
                case LineSubscribe() | LineUnsubscribe():
                    self._transport.pause_reading()
                    self._step = asyncio.create_task(self._then_go_on(event, answer))

    def _publish(self) -> None:
        """Append all consecutive messages at once."""
        now_us = self.services.clock.wall_us()
        messages: list[Message] = []
        while self._events and isinstance(event := self._events[0], LinePublish):
            self._events.popleft()
            messages.append(Message(event.topic, event.payload, 1, False, event.publisher, now_us))
        answers = [_Answer() for _ in messages]
        self._answers.extend(answers)

        def committed(error: StoreError | None) -> None:
            for answer in answers:
                answer.given = True
                answer.reason = "" if error is None else NOT_STORED
            self._flush_answers()

        log = self.services.log
        log.append(messages, committed, keep_if_full=False)
        if log.congested:
            self._transport.pause_reading()
            log.when_uncongested(self._resume)

    async def _then_go_on(self, event: LineSubscribe | LineUnsubscribe, answer: _Answer) -> None:
        try:
            await self._change(event)
            self._answer(answer)
        except PeerError as error:
            self._answer(answer, error.reason)
        except StoreError as error:
            logger.warning("line client at %s: %s", self._peer, error)
            self._answer(answer, NOT_STORED)
        finally:
            self._step = None
        self._perform()
        if self._step is not None:
            return
        if self._closed:
            self._leave()
        else:
            self._resume()

    async def _change(self, event: LineSubscribe | LineUnsubscribe) -> None:
        """Subscribe or unsubscribe, and return when that is committed."""
        services = self.services
        subscriber = await self._subscriber(event.subscriber)
        session = subscriber.session
        if session is None:
            raise QuotaExceeded(TAKEN_OVER)
        operation: Operation
        if isinstance(event, LineUnsubscribe):
            topic_filter = placing.kept_as(event.filter)
            services.delivery.unsubscribe(session, topic_filter)
            operation = Delete(SubscriptionDocument, (session.client_id, topic_filter))
        elif event.filter in session.subscriptions:
            return
        elif is_shared(event.filter):
            raise SharedSubscriptionsNotSupported("shared subscriptions are not supported")
        else:
            through = services.log.high_watermark
            subscription = SubscriptionDocument(
                session.client_id,
                event.filter,
                qos=1,
                no_local=False,
                retain_as_published=False,
                retain_handling=1,
                subscription_id=None,
                start_offset=through,
            )
            if event.filter.startswith(REPLAY_PREFIX):
                await placing.place(
                    services.log.store, session, subscription, {}, services.clock.wall_us()
                )
                if subscriber.session is not session:
                    raise QuotaExceeded(TAKEN_OVER)
            if not subscription.replaying:
                subscription.retained_through = through
            services.delivery.subscribe(session, subscription)
            operation = Put(replace(subscription))
        services.log.changed(session)
        await services.log.commit_now([operation])
        if (
            isinstance(event, LineSubscribe)
            and not subscription.replaying
            and subscriber.session is session
        ):
            session.offer_aside(services.sys_tree.matching([subscription]))
            services.delivery.send_retained(session)

    async def _subscriber(self, client_id: str) -> _LineSubscriber:
        """The subscriber of this connection, who takes the session from wherever it was."""
        subscriber = self._subscribers.get(client_id)
        if subscriber is not None:
            return subscriber
        if client_id.startswith(SHARE_PREFIX):
            raise ClientIdentifierNotValid(
                f"subscribers with {SHARE_PREFIX} are groups: use another name"
            )
        subscriber = _LineSubscriber(self, client_id)
        subscriber.session, _ = await self.services.sessions.open(
            client_id,
            subscriber,
            clean_start=False,
            session_expiry_s=self.services.config.session_expiry_default_s,
            receive_maximum=self.services.config.inflight_max,
            operations=lambda: self.services.wills.connected(client_id, None),
            now=self.services.clock.now(),
        )
        self._subscribers[client_id] = subscriber
        subscriber.begin()
        return subscriber

    def let_go(self, client_id: str) -> None:
        """Another connection has this subscriber now."""
        self._subscribers.pop(client_id, None)

    # Outgoing bytes

    def deliver(self, messages: Sequence[Message]) -> None:
        if not self._closed:
            self._connection.deliver_many(messages)
            self._transport.write(self._connection.data_to_send())

    def _answer(self, answer: _Answer, reason: str = "") -> None:
        answer.given = True
        answer.reason = reason
        self._flush_answers()

    def _flush_answers(self) -> None:
        """Send the answers whose turn it is."""
        while self._answers and self._answers[0].given:
            answer = self._answers.popleft()
            if answer.reason:
                self._connection.error(answer.reason)
            else:
                self._connection.ok()
        data = self._connection.data_to_send()
        if data and not self._closed:
            self._transport.write(data)
        if self.input_ended and self._done() and not self._closed:
            self._transport.close()

    def _done(self) -> bool:
        return not (self._answers or self._step)

    def _resume(self) -> None:
        if not self._closed:
            self._transport.resume_reading()

    def _leave(self) -> None:
        for subscriber in list(self._subscribers.values()):
            subscriber.leave()
        self._subscribers.clear()


class _LineSubscriber(Owner):
    """One subscriber id of a connection: empties its session into the connection's socket."""

    def __init__(self, client: LineClient, client_id: str) -> None:
        self._client = client
        self._client_id = client_id
        self.session: Session | None = None
        self._resending: asyncio.Task[None] | None = None
        """Delivers again what an earlier connection left: nothing new goes before it."""
        self._may_resend = asyncio.Event()
        """Set when there may be room for more of that."""
        self._written: list[int] = []
        """Packet Identifiers of what was written and not yet taken by the operating system."""

    def begin(self) -> None:
        """The session is ours: deliver again what an earlier connection may not have got."""
        assert self.session is not None
        unfinished = deque(
            sorted(self.session.in_flight.unfinished(), key=lambda entry: entry.offset)
        )
        if unfinished:
            self._resending = asyncio.create_task(self._resend(self.session, unfinished))
        else:
            self.wake()

    def wake(self) -> None:
        session, client = self.session, self._client
        if session is None or client.input_ended:
            return
        if self._resending is not None:
            self._may_resend.set()
            return
        counters = client.services.counters
        while client.writable_now and (session.aside or session.outbox):
            taken = session.take(client.services.clock.wall_us(), TAKE_BYTES_MAX)
            outgoing, packet_ids = taken.outgoing, taken.packet_ids
            counters.payload_bytes_out += taken.payload_bytes
            if taken.expired:
                counters.dropped["expired"] += len(taken.expired)
            if not outgoing:
                break
            self._written += [packet_id for packet_id in packet_ids if packet_id]
            if 0 in packet_ids:
                client.services.log.changed(session)  # Nobody acknowledges QoS 0.
            client.deliver([message for message, _ in outgoing])
            counters.messages_out += len(outgoing)
            if client.writable_now:
                self.taken()
        client.services.delivery.drained(session)

    def taken(self) -> None:
        """The operating system took all that was written: so much is acknowledged."""
        session, log = self.session, self._client.services.log
        if self._written and session is not None:
            session.in_flight.puback(self._written)
            self._written = []
            log.changed(session, self._cursor_committed, urgent=False)

    def _cursor_committed(self, error: StoreError | None) -> None:
        if error is None or isinstance(error, StoreFull):
            self.wake()

    async def _resend(self, session: Session, waiting: deque[InFlight]) -> None:
        """A part at a time, as the messages are to be read from the log."""
        client, counters = self._client, self._client.services.counters
        while waiting:
            while not client.writable_now:
                self._may_resend.clear()
                await self._may_resend.wait()
            part = [*islice(waiting, RESEND_MAX)]
            try:
                messages = await client.services.log.store.fetch(
                    [entry.offset for entry in part], bytes_max=TAKE_BYTES_MAX
                )
            except StoreError as error:
                self.broken(error)
                return
            if client.input_ended:
                return
            # What is above the last that was found was maybe not looked for.
            last = messages[-1].offset if messages else part[-1].offset
            packet_ids = [waiting.popleft().packet_id for entry in part if entry.offset <= last]
            found = {message.offset for message in messages}
            if gone := sum([e.offset <= last and e.offset not in found for e in part]):
                counters.dropped["removed by retention"] += gone
            counters.redeliveries += len(messages)
            counters.messages_out += len(messages)
            counters.payload_bytes_out += sum([len(message.payload) for message in messages])
            session.in_flight.pubrec(packet_ids, refused=True)
            session.in_flight.pubcomp(packet_ids)
            self._written += packet_ids
            client.deliver(messages)
            if client.writable_now:
                self.taken()
        self._resending = None
        self.wake()

    def broken(self, error: StoreError) -> None:
        logger.error("subscriber %r: %s", self._client_id, error)
        self.leave()

    def taken_over(self) -> None:
        self._client.let_go(self._client_id)
        self.leave()

    def leave(self) -> None:
        """Let go of the session, which may be another's from now on."""
        session, self.session = self.session, None
        if self._resending is not None:
            self._resending.cancel()
        if session is not None:
            services = self._client.services
            services.sessions.close(session, self, services.clock.now())
