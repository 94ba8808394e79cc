"""LineSubscriber: one subscriber id of a line connection; empties its session into the socket.

What the operating system has taken counts as acknowledged, see `half_open.py` for the exception.
What it had not taken when the connection ended is sent again by the next one.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from broker.clients.gate import Gate
from broker.clients.services import Services
from broker.delivery.sender import RESEND_MESSAGES_MAX, Recipient, Sender
from broker.documents import NOT_YET, SubscriptionDocument
from broker.errors import StoreError
from broker.log.batch import awaited
from broker.message import Message, Offset, Outgoing
from broker.registry.faces import Owner
from broker.replay import placing
from broker.session.session import Session
from broker.topics import REPLAY_PREFIX, is_shared

logger = logging.getLogger(__name__)


class Connection(Protocol):
    """The line connection that carries it, and maybe others."""

    services: Services
    address: str
    writable_now: bool

    @property
    def delivers(self) -> bool:
        """Whether anything is delivered, or will be."""
        ...

    @property
    def taken_is_acknowledged(self) -> bool:
        """Whether it is enough that the operating system has taken it."""
        ...

    def deliver(self, messages: Sequence[Message]) -> None: ...

    def let_go(self, client_id: str) -> None:
        """Another connection has this subscriber now."""
        ...

    def broken(self, error: StoreError) -> None:
        """The log cannot be read for this subscriber."""
        ...

    def failed(self, error: Exception) -> None: ...


class LineSubscriber(Owner, Recipient):
    def __init__(self, client: Connection, client_id: str) -> None:
        self._client = client
        self._client_id = client_id
        self.address = client.address
        self._sender: Sender | None = None
        """None before the session is open, and when it is another's."""
        self._written: list[int] = []
        """Packet Identifiers of what was written and not yet taken by the operating system."""
        self._unsubscribed: deque[tuple[Offset, Callable[[], None]]] = deque()
        """Callbacks, each for when the outbox has been written up to its offset."""

    @property
    def session(self) -> Session | None:
        return None if self._sender is None else self._sender.session

    async def open(self, gate: Gate) -> Session:
        """The session of its name, which is its own now. Raises as `Sessions.open`."""
        services = self._client.services
        session, _ = await services.sessions.open(
            self._client_id,
            self,
            clean_start=False,
            session_expiry_s=services.config.session_expiry_default_s,
            receive_maximum=services.config.inflight_max,
            will=None,
            now=services.clock.now(),
            hears_of_gaps=False,
            rights=gate.rights(self._client_id),
            user=gate.user,
        )
        return session

    def begin(self, session: Session) -> None:
        """The session is ours: deliver again what an earlier connection may not have got."""
        services = self._client.services
        sender = Sender(session, self, services.log, services.delivery, services.counters)
        self._sender = sender
        sender.resend(session.in_flight.unfinished())
        self.wake()

    def wake(self) -> None:
        sender, client = self._sender, self._client
        if sender is None or not client.delivers:
            return
        counters = client.services.counters
        time = client.services.log.time
        while client.writable_now and (taken := sender.take(time.aged_us())) is not None:
            counters.payload_bytes_out += taken.payload_bytes
            self._deliver(taken.outgoing, taken.packet_ids)
        client.services.delivery.drained(sender.session)
        if self._unsubscribed:
            self._tell_unsubscribed()

    def when_written(self, told: Callable[[], None]) -> None:
        """Call `told` when all messages routed to the session by now are written."""
        outbox = () if self.session is None else self.session.outbox
        self._unsubscribed.append((outbox[-1][0].offset if outbox else Offset(0), told))
        self._tell_unsubscribed()

    def nothing_more(self) -> None:
        """No more messages are written: call all who wait for one."""
        while self._unsubscribed:
            _, told = self._unsubscribed.popleft()
            told()

    def _tell_unsubscribed(self) -> None:
        if self.session is None or not self._client.delivers:
            self.nothing_more()
            return
        outbox = self.session.outbox
        while self._unsubscribed and not (
            outbox and outbox[0][0].offset <= self._unsubscribed[0][0]
        ):
            _, told = self._unsubscribed.popleft()
            told()

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        sender, client = self._sender, self._client
        if sender is None or not client.delivers or not client.writable_now or sender.left:
            return False
        if sender.session.supply.aside or sender.session.outbox:
            return False
        if outgoing:
            client.services.counters.payload_bytes_out += sum(
                [len(message.payload) for message, _ in outgoing]
            )
            self._deliver(outgoing, ())
        return True

    def room(self) -> int:
        """The operating system bounds what is in flight here."""
        client = self._client
        return RESEND_MESSAGES_MAX if client.writable_now and client.delivers else 0

    def send_again(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        counters = self._client.services.counters
        counters.redeliveries += len(outgoing)
        if self.session is not None:
            self.session.tally.sent_again(len(outgoing))
        counters.payload_bytes_out += sum([len(message.payload) for message, _ in outgoing])
        self._deliver(outgoing, packet_ids)

    def _deliver(self, outgoing: Sequence[Outgoing], packet_ids: Sequence[int]) -> None:
        self._client.services.counters.messages_out += len(outgoing)
        self._written += [packet_id for packet_id in packet_ids if packet_id]
        self._client.deliver([message for message, _ in outgoing])
        if self._client.writable_now and self._client.taken_is_acknowledged:
            self.taken()

    def taken(self) -> None:
        """All that was written was taken, or has arrived: so much is acknowledged."""
        if self._written and self._sender is not None:
            self._sender.session.in_flight.finish(self._written)
            self._written = []
            self._sender.cursor_moved()

    def broken(self, error: StoreError) -> None:
        logger.error("subscriber %r: %s", self._client_id, error)
        self._client.broken(error)

    def failed(self, error: Exception) -> None:
        self._client.failed(error)

    def end(self) -> None:
        """We made a mistake: do not commit this session's state in memory any more."""
        if self.session is not None:
            self.session.end()

    def taken_over(self) -> None:
        self._client.let_go(self._client_id)
        self.leave()

    def leave(self) -> None:
        """Let go of the session, which may be another's from now on."""
        sender, self._sender = self._sender, None
        if sender is not None:
            services = self._client.services
            sender.stop()
            services.sessions.close(sender.session, self, services.clock.now())
        self.nothing_more()


def is_plain(topic_filter: str) -> bool:
    """Whether it needs nothing but a place in the order of arrival."""
    return not (topic_filter.startswith(REPLAY_PREFIX) or is_shared(topic_filter))


def subscription_of(session: Session, topic_filter: str) -> SubscriptionDocument:
    return SubscriptionDocument(
        session.client_id,
        topic_filter,
        qos=1,
        no_local=False,
        retain_as_published=False,
        retain_handling=1,
        subscription_id=None,
        start_offset=NOT_YET,
    )


def subscribe(
    services: Services, session: Session, subscription: SubscriptionDocument
) -> asyncio.Future[Session]:
    """Done when that is in effect."""
    if session.grants.wants_retained(subscription):
        session.supply.offer_aside(services.sys_tree.matching([subscription], session))
    done, in_effect = awaited(session)
    services.delivery.changes.subscribe(session, [subscription], in_effect)
    return done


def unsubscribe(services: Services, session: Session, topic_filter: str) -> asyncio.Future[Session]:
    """As `subscribe`."""
    done, in_effect = awaited(session)
    kept_as = placing.kept_as(topic_filter)
    services.delivery.changes.unsubscribe(session, [kept_as], in_effect)
    return done
