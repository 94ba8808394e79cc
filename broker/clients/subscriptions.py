"""Subscriptions: grants what SUBSCRIBE asks for, and takes it back for UNSUBSCRIBE.

A SUBSCRIBE is answered with one SUBACK when all its subscriptions are committed [MQTT-3.8.4-1]: for
each Topic Filter the granted QoS, or the Reason Code that refuses it. Retained messages follow the
SUBACK. The kinds of filters are told apart here and served elsewhere: a plain filter by delivery,
`$share/` by groups, `$replay/` and User Property `from` by replay.

One turn of the loop grants, or takes back, `FILTERS_PER_TURN` filters; other clients have their
turns between. A granted part is given to the log before anything is awaited. So a client that is
cut off between two parts leaves no subscription that only memory knows.

One object serves every MQTT client: each call brings its session.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeVar

from broker.clock import Clock
from broker.config import Config
from broker.delivery.delivery import Delivery
from broker.documents import Delete, Operation, Put, SubscriptionDocument
from broker.errors import PeerError, QuotaExceeded, StoreError
from broker.log.log import Log, OnCommitted
from broker.mqtt.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from broker.mqtt.reasons import ReasonCode
from broker.observe.sys_tree import SysTree
from broker.registry.group import Member
from broker.registry.groups import Groups
from broker.replay import placing
from broker.session.session import Session
from broker.topics import has_control_character, is_shared

logger = logging.getLogger(__name__)

METADATA = ("metadata", "true")
"""User Property of a SUBSCRIBE that asks for offset, time and publisher of each message."""

FILTERS_PER_TURN = 100
"""Topic Filters that one turn of the loop grants a client, or takes back: about 1 ms. More take
turns. `benchmarks.scale --only subscriptions`: 10,000 at once held up everybody for 90 ms."""

T = TypeVar("T")

Result = SubscriptionDocument | int
"""The subscription to be granted, or the Reason Code that refuses it."""


class Applicant(Member, Protocol):
    """The client that subscribes."""

    @property
    def closed(self) -> bool:
        """Whether it has left: the session may be another's by now."""
        ...

    def answer(self, packet: Suback | Unsuback) -> None:
        """Send it; of no effect once the client has left."""
        ...


@dataclass(slots=True)
class _Granted:
    """The result of a SUBSCRIBE so far."""

    codes: list[int] = field(default_factory=list)
    wanting_retained: list[SubscriptionDocument] = field(default_factory=list)


class Subscriptions:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        groups: Groups,
        sys_tree: SysTree,
        config: Config,
        clock: Clock,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._groups = groups
        self._sys_tree = sys_tree
        self._config = config
        self._clock = clock
        self._in_turn: Counter[Session] = Counter()
        """Topic Filters that this turn of the loop granted or took back, by session."""

    def subscribe(
        self, session: Session, packet: Subscribe, client: Applicant
    ) -> Coroutine[None, None, None] | None:
        """Grant the subscriptions at once, and return None. If they are many, or the log or a group
        must be asked first: a coroutine, to be awaited before anything else is done for the
        client."""
        if (
            self._begin_part(session, packet.requests)
            and not placing.asked_for(packet)
            and not any(is_shared(request.filter) for request in packet.requests)
        ):
            asked_for = [self._asked_for(session, request, packet) for request in packet.requests]
            self._grant(session, packet, asked_for, _Granted(), client)
            return None
        return self._subscribe_in_parts(session, packet, client)

    async def _subscribe_in_parts(
        self, session: Session, packet: Subscribe, client: Applicant
    ) -> None:
        words = dict(packet.user_properties) if placing.asked_for(packet) else None
        granted = _Granted()
        for requests in _parts(packet.requests):
            await asyncio.sleep(0)
            self._begin_part(session, requests)
            results: list[Result] = []
            for request in requests:
                if client.closed:
                    return
                result = self._asked_for(session, request, packet)
                if isinstance(result, int):
                    pass
                elif words is not None:
                    result = await self._placed(session, result, words)
                elif is_shared(result.filter):
                    result = await self._joined(session, result, client)
                results.append(result)
            if client.closed:
                return
            self._grant(session, packet, results, granted, client)

    async def _joined(
        self, session: Session, subscription: SubscriptionDocument, client: Applicant
    ) -> Result:
        """A Shared Subscription: its group is opened first."""
        result: Result = subscription
        try:
            await self._groups.join(session, subscription, client)
        except (StoreError, QuotaExceeded) as error:
            logger.warning("client %r: %s", session.client_id, error)
            result = ReasonCode.QUOTA_EXCEEDED
        if client.closed and subscription.filter not in session.subscriptions:
            # Another connection has the session now, and did not ask for this.
            self._groups.leave(session, subscription.filter)
        return result

    async def _placed(
        self, session: Session, subscription: SubscriptionDocument, words: Mapping[str, str]
    ) -> Result:
        """One that replays: where from is for the log to say."""
        try:
            now_us = self._clock.wall_us()
            await placing.place(self._log.store, session, subscription, words, now_us)
        except PeerError as error:
            logger.info("client %r: %s", session.client_id, error.reason)
            return error.reason_code
        except StoreError as error:
            logger.warning("client %r: %s", session.client_id, error)
            return ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
        return subscription

    def _begin_part(self, session: Session, part: Sequence[object]) -> bool:
        """Whether this turn of the loop may grant, or take back, these too."""
        if not self._in_turn:
            asyncio.get_running_loop().call_soon(self._in_turn.clear)
        self._in_turn[session] += len(part)
        return self._in_turn[session] <= FILTERS_PER_TURN

    def _asked_for(
        self, session: Session, request: SubscriptionRequest, packet: Subscribe
    ) -> Result:
        if has_control_character(request.filter):
            return ReasonCode.TOPIC_FILTER_INVALID
        existing = session.subscriptions.get(request.filter)
        return SubscriptionDocument(
            session.client_id,
            request.filter,
            request.qos,
            request.no_local,
            request.retain_as_published,
            request.retain_handling,
            packet.subscription_id,
            start_offset=existing.start_offset if existing else self._log.high_watermark,
            until_offset=existing.until_offset if existing else None,
            replaying=existing.replaying if existing else False,
            metadata=METADATA in packet.user_properties,
        )

    def _grant(
        self,
        session: Session,
        packet: Subscribe,
        results: Sequence[Result],
        granted: _Granted,
        client: Applicant,
    ) -> None:
        """Make these subscriptions, and answer when the last of the packet's are committed.
        [MQTT-3.8.4-1]"""
        operations: list[Operation] = []
        codes, wanting_retained = granted.codes, granted.wanting_retained
        too_many = False
        for result in results:
            if isinstance(result, int):
                codes.append(result)
                continue
            if self._too_many(session, result):
                too_many = True
                self._groups.leave(session, result.filter)
                codes.append(ReasonCode.QUOTA_EXCEEDED)
                continue
            if self._owe_retained(session, result):
                wanting_retained.append(result)
            self._delivery.subscribe(session, result)
            operations.append(Put(replace(result)))  # A replay changes it while it is written.
            codes.append(result.qos)
            logger.debug("client %r subscribes to %r", session.client_id, result.filter)
        complete = len(codes) == len(packet.requests)
        if too_many:
            most = self._config.subscriptions_per_session_max
            logger.warning("client %r: subscriptions above %d refused", session.client_id, most)

        def committed(error: StoreError | None) -> None:
            if error is not None or client.closed or not complete:
                return
            client.answer(Suback(packet.packet_id, codes))
            if wanting_retained:
                session.offer_aside(self._sys_tree.matching(wanting_retained))
                self._delivery.send_retained(session)

        self._commit(session, operations, committed, client)

    def _too_many(self, session: Session, subscription: SubscriptionDocument) -> bool:
        subscriptions, most = session.subscriptions, self._config.subscriptions_per_session_max
        return len(subscriptions) >= most and subscription.filter not in subscriptions

    def _owe_retained(self, session: Session, subscription: SubscriptionDocument) -> bool:
        """Owe it the retained messages of now, if it asks for them. [MQTT-3.3.1-9..11]

        If not, the subscription that it replaces may still be owed some: these stay owed.
        """
        existing = session.subscriptions.get(subscription.filter)
        if subscription.replaying or is_shared(subscription.filter):
            return False
        if subscription.retain_handling == 0 or (
            subscription.retain_handling == 1 and existing is None
        ):
            subscription.retained_through = self._log.high_watermark
            return True
        if existing is not None:
            subscription.retained_after = existing.retained_after
            subscription.retained_through = existing.retained_through
        return False

    def unsubscribe(
        self, session: Session, packet: Unsubscribe, client: Applicant
    ) -> Coroutine[None, None, None] | None:
        """As `subscribe`."""
        if self._begin_part(session, packet.filters):
            self._remove(session, packet, packet.filters, [], client)
            return None
        return self._unsubscribe_in_parts(session, packet, client)

    async def _unsubscribe_in_parts(
        self, session: Session, packet: Unsubscribe, client: Applicant
    ) -> None:
        codes: list[int] = []
        for filters in _parts(packet.filters):
            await asyncio.sleep(0)
            if client.closed:
                return
            self._begin_part(session, filters)
            self._remove(session, packet, filters, codes, client)

    def _remove(
        self,
        session: Session,
        packet: Unsubscribe,
        filters: Sequence[str],
        codes: list[int],
        client: Applicant,
    ) -> None:
        """Take these back, and answer when the last of the packet's are gone. [MQTT-3.10.4-4]"""
        operations: list[Operation] = []
        for topic_filter in map(placing.kept_as, filters):
            self._groups.leave(session, topic_filter)
            if self._delivery.unsubscribe(session, topic_filter):
                operations.append(Delete(SubscriptionDocument, (session.client_id, topic_filter)))
                codes.append(ReasonCode.SUCCESS)
                logger.debug("client %r unsubscribes from %r", session.client_id, topic_filter)
            elif has_control_character(topic_filter):
                codes.append(ReasonCode.TOPIC_FILTER_INVALID)
            else:
                codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
        complete = len(codes) == len(packet.filters)

        def committed(error: StoreError | None) -> None:
            if error is None and complete:
                client.answer(Unsuback(packet.packet_id, codes))

        self._commit(session, operations, committed, client)

    def _commit(
        self,
        session: Session,
        operations: list[Operation],
        committed: OnCommitted,
        client: Applicant,
    ) -> None:
        """Also without operations it waits for those of the parts before."""
        if session.durable:
            self._log.append(
                [], committed, client.failed, durable=bool(operations), operations=operations
            )
            self._log.changed(session)
        else:
            committed(None)


def _parts(items: Sequence[T]) -> Iterator[Sequence[T]]:
    for first in range(0, len(items), FILTERS_PER_TURN):
        yield items[first : first + FILTERS_PER_TURN]
