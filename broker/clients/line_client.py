"""LineClient: one connection of the line protocol. It may carry several subscribers.

A subscriber is a durable session of that client identifier, fed like any other; the protocol has no
acknowledgement, so a message counts as acknowledged when the operating system has taken its bytes.
A peer that ends its side is delivered to until it closes the other (`half_open.py`).

From CONFIRM on, commands are answered in their order, PUBLISH when the message is committed (P1).
Without it only what went wrong is said: one ERROR a second, and none while the peer has not read
what was sent before. So a publisher that never reads is never waited for.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from contextlib import ExitStack
from functools import partial

from broker import tasks
from broker.clients.asking import Asked
from broker.clients.backlog import cost_of_lines, take_publishes
from broker.clients.faces import Peer
from broker.clients.gate import Gate
from broker.clients.half_open import HalfOpen, TellingTransport
from broker.clients.held_back import slow_down
from broker.clients.line_answers import Answer, Answers
from broker.clients.line_subscriber import (
    LineSubscriber,
    is_plain,
    subscribe,
    subscription_of,
    unsubscribe,
)
from broker.clients.services import Services
from broker.errors import (
    ClientIdentifierNotValid,
    PeerError,
    QuotaExceeded,
    SharedSubscriptionsNotSupported,
    StoreError,
)
from broker.lines.connection import (
    LineConfirm,
    LineConnection,
    LineError,
    LineEvent,
    LineLogin,
    LinePublish,
    LineSubscribe,
    LineUnsubscribe,
)
from broker.message import Message, Monotonic
from broker.replay import placing
from broker.session.session import Session
from broker.topics import SHARE_PREFIX, is_shared

logger = logging.getLogger(__name__)

NOT_STORED = "not stored: the broker's disk is full or failing, try again later"
TAKEN_OVER = "another connection took the subscriber over"
NAMED_MAX = 5
"""Subscribers of a connection that are named when it is cut off."""


class LineClient:
    def __init__(
        self, services: Services, transport: TellingTransport, peer: Peer, now: Monotonic
    ) -> None:
        config = services.config
        self.services = services
        self._transport = transport
        self.peer, self.address = peer, peer.address
        self._connection = LineConnection(
            now=now,
            line_bytes_max=config.packet_bytes_max,
            topic_bytes_max=config.topic_bytes_max,
            topic_levels_max=config.topic_levels_max,
        )
        self._subscribers: dict[str, LineSubscriber] = {}
        self._answers = Answers(self._connection, services, now)
        self._gate = Gate(services, peer)
        self._events: deque[LineEvent] = deque()
        self._step: asyncio.Task[None] | None = None
        self._half_open = HalfOpen(transport)
        self._input_ended = False
        self._closed = False
        self.writable_now = True

    # The rim calls

    def receive(self, data: bytes, now: Monotonic) -> int:
        self._events.extend(self._connection.receive_data(data, now))
        self._perform()
        return self.kept_bytes

    @property
    def kept_bytes(self) -> int:
        return self._connection.unfinished_bytes + cost_of_lines(self._events)

    def end_of_input(self) -> bool:
        """No more commands will come; whether answers are still due, or deliveries."""
        self._input_ended = True
        if self._subscribers or self._step:
            self._half_open.begin(self.services.clock.monotonic())
        if not self.delivers:
            for subscriber in self._subscribers.values():
                subscriber.nothing_more()
        return not self._done()

    @property
    def delivers(self) -> bool:
        return self._half_open.begun or not self._input_ended

    @property
    def taken_is_acknowledged(self) -> bool:
        return not self._half_open.begun

    def deadline(self) -> Monotonic | None:
        """A line connection has no keep alive."""
        return self._half_open.deadline()

    def expire(self, now: Monotonic) -> None:
        if self._half_open.look(now) and self.writable_now:
            for subscriber in list(self._subscribers.values()):
                subscriber.taken()

    def writable(self, *, yes: bool) -> None:
        """The operating system has taken everything, or not yet."""
        self.writable_now = yes
        if yes:
            for subscriber in list(self._subscribers.values()):
                if self.taken_is_acknowledged:
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

    def evict(self, reason: str) -> None:
        self._connection.forget()
        self._events.clear()
        if self.writable_now:
            self._connection.error(reason)
            self._transport.write(self._connection.data_to_send())
        self.shut_down()

    def failed(self, error: Exception) -> None:
        names = ", ".join([*self._subscribers][:NAMED_MAX]) or "none"
        logger.critical(
            "line client at %s (subscribers: %s) is cut off", self.address, names, exc_info=error
        )
        self._transport.abort()  # Bytes that are not sent yet may be wrong.
        for subscriber in self._subscribers.values():
            subscriber.end()
        self._closed = True
        try:
            self._leave()
        except Exception as later:
            logger.critical("line client at %s did not leave", self.address, exc_info=later)

    def dismiss(self, error: PeerError) -> None:
        self.evict(error.reason)

    def broken(self, error: StoreError) -> None:
        """The log cannot be read for one of its subscribers. It can come again."""
        self.shut_down()

    # Commands

    def _perform(self) -> None:
        """Obey in order. A SUBSCRIBE may wait for the log; later commands wait for it."""
        while self._events and self._step is None:
            if why := self._gate.refusal(self._events[0], self):
                self._events.popleft()
                self._answer(self._answers.place(), why)
                continue
            if isinstance(self._events[0], LinePublish):
                self._publish()
                continue
            event = self._events.popleft()
            if isinstance(event, LineConfirm):
                self._answers.confirming = True
            answer = self._answers.place()
            match event:
                case LineConfirm():
                    self._answer(answer)
                case LineError(reason):
                    self._answer(answer, reason)
                case LineLogin():
                    self._wait_for(self._log_in(event, answer))
                case LineSubscribe() | LineUnsubscribe():
                    self._wait_for(self._then_go_on(event, self._begin(event), answer))

    def _wait_for(self, step: Coroutine[None, None, None]) -> None:
        self._step = tasks.start(step, self.failed)
        self._transport.pause_reading("step")

    async def _log_in(self, event: LineLogin, answer: Answer) -> None:
        try:
            if self._subscribers:
                raise QuotaExceeded("LOGIN comes before the first subscriber")
            await self._gate.log_in(event, self, self._transport.is_gone)
            self._connection.limit(self.services.quotas.of(self._gate.user).packet_bytes)
            self._transport.deadline_moved()  # It is no stranger any more.
            self._answer(answer)
        except PeerError as error:
            self._answer(answer, error.reason)
        finally:
            self._step = None
        self._go_on()

    def _publish(self) -> None:
        """Append all consecutive messages at once, but for those that are to come later."""
        services, gate = self.services, self._gate
        asking, log, now_us = services.asking, services.log, services.clock.wall_us()
        messages, asks = take_publishes(self._events, asking, now_us, gate.may_publish)
        slow_down(messages, services, gate.user, self)
        answer = self._answers.place(len(messages))
        try:
            log.outage.require_room(len(messages), services.counters)
            asked = asking.accept(messages[0], None, gate.author) if asks else Asked(messages)
        except QuotaExceeded as error:
            self._answer(answer, error.reason)
            return

        def committed(error: StoreError | None) -> None:
            asking.settle(asked, error)
            self._answer(answer, "" if error is None else NOT_STORED)

        log.append(
            asked.messages,
            committed,
            self.failed,
            keep_if_full=False,
            operations=asked.operations,
        )
        log.throttle(self)

    def _begin(self, event: LineSubscribe | LineUnsubscribe) -> asyncio.Future[Session] | None:
        """Subscribe or unsubscribe at the command's place in the order of arrival. None: first the
        session has to be opened, or the log asked."""
        subscriber, services = self._subscribers.get(event.subscriber), self.services
        session = None if subscriber is None else subscriber.session
        if session is None:
            return None
        if isinstance(event, LineUnsubscribe):
            return unsubscribe(services, session, event.filter)
        known = event.filter in session.subscriptions
        if (
            known
            or not is_plain(event.filter)
            or services.subscriptions.allowance.too_many(session, event.filter)
        ):
            return None
        return subscribe(services, session, subscription_of(session, event.filter))

    async def _then_go_on(
        self,
        event: LineSubscribe | LineUnsubscribe,
        begun: asyncio.Future[Session] | None,
        answer: Answer,
    ) -> None:
        try:
            session = await (self._change(event) if begun is None else begun)
            subscriber = self._subscribers.get(event.subscriber)
            if subscriber is not None and isinstance(event, LineUnsubscribe):
                subscriber.when_written(partial(self._answer, answer))
            else:
                self._answer(answer)
            if session is not None:
                self.services.delivery.send_owed(session)
        except PeerError as error:
            self._answer(answer, error.reason)
        except StoreError as error:
            logger.warning("line client at %s: %s", self.address, error)
            self._answer(answer, NOT_STORED)
        finally:
            self._step = None
        self._go_on()

    def _go_on(self) -> None:
        """A step has ended."""
        self._perform()
        if self._step is not None:
            return
        if self._closed:
            self._leave()
        else:
            self.resume_reading("step")
            self._close_if_done()

    async def _change(self, event: LineSubscribe | LineUnsubscribe) -> Session | None:
        """Subscribe or unsubscribe, and return when that is in effect. None: there is no session
        to unsubscribe from, and none is made."""
        services, name = self.services, event.subscriber
        if isinstance(event, LineSubscribe):
            if is_shared(event.filter):
                raise SharedSubscriptionsNotSupported("shared subscriptions are not supported")
            placing.validate(event.filter, services.clock.wall_us())
        elif (
            name not in self._subscribers
            and not services.sessions.has_durable(name)
            and not await services.sessions.ownership.is_elsewhere(name)
        ):
            return None
        subscriber = await self._subscriber(event.subscriber)
        session = subscriber.session
        if session is None:
            raise QuotaExceeded(TAKEN_OVER)
        if isinstance(event, LineUnsubscribe):
            return await unsubscribe(services, session, event.filter)
        if event.filter in session.subscriptions:
            return session
        subscription = subscription_of(session, event.filter)
        if not is_plain(event.filter):
            here = await services.delivery.changes.mark(session)
            now_us = services.clock.wall_us()
            await placing.place(services.log.store, session, subscription, {}, now_us, here)
            if subscriber.session is not session:
                raise QuotaExceeded(TAKEN_OVER)
        if why := services.subscriptions.allowance.too_many(session, subscription.filter):
            raise QuotaExceeded(f"the subscriber has {why} already")
        return await subscribe(services, session, subscription)

    async def _subscriber(self, client_id: str) -> LineSubscriber:
        """The subscriber of this connection, who takes the session from wherever it was."""
        subscriber = self._subscribers.get(client_id)
        if subscriber is not None:
            return subscriber
        if client_id.startswith(SHARE_PREFIX):
            raise ClientIdentifierNotValid(
                f"subscribers with {SHARE_PREFIX} are groups: use another name"
            )
        most = self.services.config.subscribers_per_connection_max
        if len(self._subscribers) >= most:
            raise QuotaExceeded(f"this connection has {most} subscribers already; use another")
        subscriber = LineSubscriber(self, client_id)
        session = await subscriber.open(self._gate)
        self._subscribers[client_id] = subscriber
        subscriber.begin(session)
        return subscriber

    def let_go(self, client_id: str) -> None:
        """Another connection has this subscriber now."""
        self._subscribers.pop(client_id, None)
        self._close_if_done()

    # Outgoing bytes

    def deliver(self, messages: Sequence[Message]) -> None:
        if not self._closed:
            self._connection.deliver_many(messages)
            self._transport.write(self._connection.data_to_send())
            if self._half_open.begun:
                self._half_open.written(self.services.clock.monotonic())

    def _answer(self, answer: Answer, reason: str = "") -> None:
        if reason:
            logger.info("line client at %s: refused: %s", self.address, reason)
        self._answers.give(answer, reason, unasked=self.writable_now)
        data = self._connection.data_to_send()
        if data and not self._closed:
            self._transport.write(data)
        self._close_if_done()

    def _close_if_done(self) -> None:
        if self._input_ended and self._done() and not self._closed:
            self._transport.close()

    def _done(self) -> bool:
        subscribed = self._half_open.begun and any(
            one.session is not None and one.session.subscriptions
            for one in self._subscribers.values()
        )
        return not (self._answers or self._step or subscribed)

    def pause_reading(self, reason: str) -> None:
        self._transport.pause_reading(reason)

    def resume_reading(self, reason: str) -> None:
        if not self._closed:
            self._transport.resume_reading(reason)

    def _leave(self) -> None:
        self._gate.leave(self)
        with ExitStack() as leaving:  # If one of them raises, the others leave all the same.
            for subscriber in self._subscribers.values():
                leaving.callback(subscriber.leave)
            self._subscribers = {}
