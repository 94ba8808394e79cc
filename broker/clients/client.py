"""Client: one connected MQTT client. Only here connection, session and log meet.

    bytes ─▶ Connection ─▶ perform ─▶ Publishing ─▶ Log.append ─▶ (committed) ─▶ acknowledgements
    bytes ◀─ Connection ◀─ Output  ◀─ Sending    ◀─ Session    ◀─ Delivery

A Client obeys its events in their order. CONNECT and a SUBSCRIBE that replays wait for the log,
and a packet with many Topic Filters takes several turns of the loop: a *step*. During a step, later
events wait in the backlog and the socket is not read. Every other event is obeyed at once, and
acknowledged when it is committed.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from typing import assert_never

from broker import tasks
from broker.clients import connecting
from broker.clients.backlog import Backlog
from broker.clients.faces import NOT_PAUSED, Peer, Transport
from broker.clients.gate import Gate
from broker.clients.leaving import Leaving
from broker.clients.publishing import Publishing
from broker.clients.sending import Output, Sending
from broker.clients.services import Services
from broker.errors import LoginRefused, NotAuthorized, PeerError, QuotaExceeded, StoreError
from broker.message import Grant, Message, Monotonic, Offset, Outgoing
from broker.mqtt.connection import Closed, Connection, ControlEvent, Event
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.packets import (
    Ack,
    Connect,
    Disconnect,
    PacketType,
    Publish,
    RefusedPublish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.mqtt.reasons import ReasonCode
from broker.registry.faces import Owner
from broker.session.session import Session

logger = logging.getLogger(__name__)


class Client(Owner):
    """See the module. A `NetworkClient` of the rim, and the `Owner` of its session."""

    def __init__(
        self, services: Services, transport: Transport, peer: Peer, now: Monotonic
    ) -> None:
        self._services = services
        self._transport = transport
        self.peer, self.address = peer, peer.address
        traffic = services.counters.packets
        self._gate = Gate(services, peer)
        self._connection = Connection(now, services.limits, self._gate.methods(), traffic)
        self._output = Output(
            self._connection, transport, services.log, self._connection_ended, self.failed
        )
        self._client_id = ""
        self._session: Session | None = None
        """None until it is open. The next two are set when CONNACK is sent."""
        self._publishing: Publishing | None = None
        self._sending: Sending | None = None
        self._step: asyncio.Task[None] | None = None
        """While it runs, later events wait in the backlog."""
        self._backlog = Backlog()
        self._reading_paused_by = NOT_PAUSED
        self._leaving = Leaving(services)
        self._input_ended = False

    # The rim calls

    def receive(self, data: bytes, now: Monotonic) -> int:
        if self._output.closed:
            return 0
        events = self._connection.receive_data(data, now)
        if self._step is not None:
            self._backlog.extend(events)
        else:
            self._perform(events)
        if self._connection.queued or self._connection.closed:
            self._output.flush()
        return len(self._connection.unfinished) + self._backlog.cost

    @property
    def kept_bytes(self) -> int:
        return len(self._connection.unfinished) + self._backlog.cost

    def end_of_input(self) -> bool:
        """No more packets will come. Returns whether answers are due. Nothing is delivered any
        more: a client that has only ended its side looks like one that is gone."""
        if self._output.closed or (self._session is None and self._step is None):
            return False
        self._input_ended = True
        self._output.writable = False
        return self._step is not None or self._answers_are_due()

    def deadline(self) -> Monotonic | None:
        if self._session is None and self._step is not None:
            return None  # Its CONNECT waits for us.
        return self._connection.deadline()

    def expire(self, now: Monotonic) -> None:
        if self._reading_paused_by:
            return  # We do not read it, so its silence means nothing.
        if (closed := self._connection.expire(now)) is not None:
            self._obey(closed)

    def writable(self, *, yes: bool) -> None:
        self._output.writable = yes and not self._input_ended
        if yes and self._session is not None:
            self._services.delivery.waking.wake([self._session])
        elif self._session is not None:
            self._services.groups.stalled(self._session)

    def lost(self) -> None:
        """The connection is gone, whoever ended it. Packets that came before still count."""
        self._output.lose()
        if self._step is None:
            self._leave()

    def evict(self, reason: str) -> None:
        self._backlog.take()
        self._close(ReasonCode.QUOTA_EXCEEDED, reason)

    def shut_down(self) -> None:
        self._leaving.why = ""
        self._connection.close(ReasonCode.SERVER_SHUTTING_DOWN)
        self._end()

    def failed(self, error: Exception) -> None:
        logger.critical("client %r at %s is cut off", self._client_id, self.address, exc_info=error)
        self._leaving.why = ""
        self._transport.abort()  # Bytes that are not sent yet may be wrong.
        if self._session is not None and not self._output.closed:
            self._session.end()
        self._output.lose()
        try:
            self._leave()
        except Exception as later:
            logger.critical("client %r did not leave as it should", self._client_id, exc_info=later)

    # Others call

    @property
    def closed(self) -> bool:
        return self._output.closed

    def wake(self) -> None:
        if self._sending is not None:
            self._sending.wake()

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        return self._sending is not None and self._sending.hand_on(outgoing)

    @property
    def takes_more(self) -> bool:
        return self._output.writable and not self._connection.closed

    @property
    def limits_packets(self) -> bool:
        return self._connection.packet_bytes_max < PACKET_BYTES_MAX

    def fits(self, message: Message, grant: Grant) -> bool:
        """Whether its Maximum Packet Size permits this message. [MQTT-3.1.2-24]"""
        return self._connection.fits(message, grant, self._services.log.time.aged_us())

    def answer(self, packet: Suback | Unsuback) -> None:
        """Its SUBSCRIBE or UNSUBSCRIBE is in effect: send the answer."""
        if self._sending is not None:
            self._sending.answer(packet)

    def broken(self, error: StoreError) -> None:
        """The log cannot be read for this session."""
        logger.error("client %r at %s: %s", self._client_id, self.address, error)
        self._close(ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR, error.reason)

    def taken_over(self) -> None:
        why = "taken over by another connection with its client identifier"
        self._close(ReasonCode.SESSION_TAKEN_OVER, why)

    def dismiss(self, error: PeerError) -> None:
        self._close(ReasonCode(error.reason_code), error.reason, error.reference)

    def removed(self) -> None:
        self._close(ReasonCode.ADMINISTRATIVE_ACTION, "its session was removed by an operator")

    # Events

    def _perform(self, events: Sequence[Event]) -> None:
        """Obey in order. Stop at an event that begins a step; go on when the step has ended."""
        publishes: list[Publish] = []
        for index, event in enumerate(events):
            if type(event) is Publish:
                publishes.append(event)
                continue
            if publishes and self._publish(publishes):
                self._backlog.extend(events[index:])
                return
            publishes = []
            self._obey(event)
            if self._output.closed:
                return
            if self._step is not None:
                self._backlog.extend(events[index + 1 :])
                return
        if publishes and self._publish(publishes):
            return
        if self._connection.has_more:
            self._wait_for(self._backlog.read_on(self._connection, self._output, self._services))

    def _obey(self, event: ControlEvent) -> None:
        match event:
            case Ack() if event.type == PacketType.PUBREL:
                assert self._publishing is not None
                self._publishing.release(event.packet_ids)
                self._services.log.throttle(self)
            case Ack():
                assert self._sending is not None
                if not self._sending.acknowledged(event):
                    self._services.counters.protocol_errors += 1
                    why = f"{event.type.name} is not the acknowledgement that is awaited"
                    self._close(ReasonCode.PROTOCOL_ERROR, why)
            case RefusedPublish():
                assert self._publishing is not None
                self._publishing.refuse(event)
                self._services.log.throttle(self)
            case Subscribe() | Unsubscribe():
                assert self._session is not None
                waiting = self._services.subscriptions.change(self._session, event, self)
                if waiting is not None:
                    self._wait_for(waiting)
            case Disconnect():
                # Without a session: it leaves before it is authenticated.
                self._leaving.said(event, self._session)
                self._gate.disconnects(self._client_id)
                self._end()
            case Connect():
                self._wait_for(self._connect(event))
            case Closed():
                self._services.counters.protocol_errors += 1
                self._leaving.why = event.reason
                if self._session is None:
                    logger.info("connection from %s closed: %s", self.address, event.reason)
                self._end()
            case _:
                assert_never(event)

    def _publish(self, publishes: Sequence[Publish]) -> bool:
        """Whether they have to wait for a step."""
        assert self._publishing is not None
        waiting = self._publishing.publish(publishes, self)
        if waiting is not None:
            self._backlog.extend(publishes)
            self._wait_for(waiting)
        return waiting is not None

    async def _connect(self, packet: Connect) -> None:
        services = self._services
        services.counters.connects += 1
        self._client_id = connecting.identifier(packet)
        try:
            await self._gate.enter(packet, self, self._transport, self._backlog)
            if self._output.closed:
                self._gate.leave(self)
                return
            with services.sessions.kept.coming():
                await self._come(packet)
        except (QuotaExceeded, NotAuthorized, StoreError) as error:
            # Of its groups as well: if it stayed, it would get nothing of them.
            self._refuse(error)
        else:
            self.wake()

    async def _come(self, packet: Connect) -> None:
        services = self._services
        session, present = await connecting.open_session(
            services, packet, self._client_id, self, self._gate
        )
        if self._output.closed:
            self._leaving.let_go(session, self)
            return
        self._session = session
        connack = await connecting.acceptance(services, packet, session, present=present)
        if self._output.closed:
            return
        self._publishing = Publishing(services, session, self._output)
        self._sending = Sending(services, session, self._output)
        self._connection.accept(connack)
        self._transport.deadline_moved()  # From the connect timeout to the keep alive.
        terms = connecting.terms(packet, connack)
        logger.info("client %r at %s: connected (%s)", self._client_id, self.address, terms)
        self._sending.begin()
        self._output.flush()
        await services.groups.attach(session, self)

    def _refuse(self, error: connecting.Refusal) -> None:
        self._services.counters.refused_connects += 1
        level = logging.DEBUG if isinstance(error, LoginRefused) else logging.WARNING
        logger.log(level, "client %r at %s: refused: %s", self._client_id, self.address, error)
        self._close(connecting.refusal(error), error.reason, error.reference)

    # What has to wait

    def _wait_for(self, step: Coroutine[None, None, None]) -> None:
        """Finish this step before any later event of this client."""
        self._step = tasks.start(self._go_on_after(step), self.failed)
        self.pause_reading("step")

    async def _go_on_after(self, step: Coroutine[None, None, None]) -> None:
        try:
            await step
        finally:
            self._step = None
        if self._output.closed:
            return
        self._perform(self._backlog.take())
        self._output.flush()
        if self._step is None and self._output.lost:
            self._leave()
        elif self._step is None and not self._input_ended:
            self.resume_reading("step")
        elif self._step is None and not self._answers_are_due():
            self._end()

    def pause_reading(self, reason: str) -> None:
        self._reading_paused_by |= {reason}
        self._transport.pause_reading(reason)

    def resume_reading(self, reason: str) -> None:
        self._reading_paused_by = self._reading_paused_by - {reason} or NOT_PAUSED
        if not self._output.closed:
            if not self._reading_paused_by:
                self._connection.keep_alive.read_again(self._services.clock.monotonic())
            self._transport.resume_reading(reason)

    # The end

    def _answers_are_due(self) -> bool:
        """Whether answers wait for the log. If so, the connection ends when they are sent."""
        assert self._session is not None
        answered = self._services.delivery.changes.mark(self._session)
        self._output.flush()
        if not answered.done():
            self._step = tasks.start(self._end_after(answered), self.failed)
        return not answered.done()

    async def _end_after(self, answered: asyncio.Future[Offset]) -> None:
        await answered
        self._step = None
        self._end()

    def _connection_ended(self) -> None:
        """By our side of it, maybe while a step runs: that is done first."""
        self._leaving.why = self._output.why
        if self._step is None:
            self._end()

    def _close(self, code: ReasonCode, why: str, reference: str = "") -> None:
        self._leaving.why = why
        self._connection.close(code, why, reference)
        self._end()

    def _end(self) -> None:
        """Send what is queued, close the connection and let go of the session."""
        self._leave()
        if not self._output.lost:
            self._output.flush()
            self._transport.close()

    def _leave(self) -> None:
        if self._output.closed:
            return
        self._output.leave()
        self._gate.leave(self)
        if self._sending is not None and self._publishing is not None:
            self._sending.stop()
            self._publishing.stop()
        if self._session is not None:
            if why := self._leaving.why:
                logger.info("client %r at %s: disconnected: %s", self._client_id, self.address, why)
            self._leaving.let_go(self._session, self)
