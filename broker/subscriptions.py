"""Subscriptions: what SUBSCRIBE and UNSUBSCRIBE ask for, granted and kept.

A SUBSCRIBE is answered with one SUBACK when all that it made is committed [MQTT-3.8.4-1]: for each
Topic Filter the granted QoS, or why it was refused. Filters are told apart here, and each kind is
served elsewhere: a plain one by delivery, `$share/` by groups, `$replay/` and User Property `from`
by replays. What is retained follows the SUBACK.

One object serves every MQTT client; whose SUBSCRIBE it is comes with each call.
"""

from __future__ import annotations

import logging
from collections.abc import Coroutine, Sequence
from dataclasses import replace
from typing import Protocol

from broker import replays
from broker.config import Config
from broker.delivery import Delivery, Subscriber
from broker.documents import Delete, Operation, Put, SubscriptionDocument
from broker.errors import PeerError, QuotaExceeded, StoreError
from broker.groups import Groups
from broker.log import Log, OnCommitted
from broker.mqtt.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from broker.mqtt.reasons import ReasonCode
from broker.session import Session
from broker.sys_tree import SysTree

logger = logging.getLogger(__name__)

METADATA = ("metadata", "true")
"""User Property of a SUBSCRIBE that asks for offset, time and publisher of each message."""

Result = SubscriptionDocument | int
"""The subscription to be granted, or the Reason Code that refuses it."""


class Applicant(Subscriber, Protocol):
    """The client that subscribes."""

    closed: bool
    """Whether it has left: the session may be another's by now."""

    def answer(self, packet: Suback | Unsuback) -> None:
        """Send it; of no effect once the client has left."""
        ...


class Subscriptions:
    def __init__(
        self, log: Log, delivery: Delivery, groups: Groups, sys_tree: SysTree, config: Config
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._groups = groups
        self._sys_tree = sys_tree
        self._config = config

    def subscribe(
        self, session: Session, packet: Subscribe, client: Applicant
    ) -> Coroutine[None, None, None] | None:
        """Grant what can be granted at once. What is returned is to be awaited before anything
        else is done for the client: the log or a group has to be asked first."""
        if replays.asked_for(packet):
            return self._subscribe_from(session, packet, client)
        asked_for = [self._asked_for(session, request, packet) for request in packet.requests]
        if any(subscription.shared for subscription in asked_for):
            return self._subscribe_shared(session, packet, asked_for, client)
        self._grant(session, packet, asked_for, client)
        return None

    async def _subscribe_shared(
        self,
        session: Session,
        packet: Subscribe,
        asked_for: list[SubscriptionDocument],
        client: Applicant,
    ) -> None:
        """A SUBSCRIBE with Shared Subscriptions: their groups are opened first."""
        results: list[Result] = []
        for subscription in asked_for:
            result: Result = subscription
            if subscription.shared:
                try:
                    await self._groups.join(session, subscription, client)
                except (StoreError, QuotaExceeded) as error:
                    logger.warning("client %r: %s", session.client_id, error)
                    result = ReasonCode.QUOTA_EXCEEDED
                if client.closed:
                    if subscription.filter not in session.subscriptions:
                        # Who has the session now did not ask for this.
                        self._groups.leave(session, subscription.filter)
                    return
            results.append(result)
        self._grant(session, packet, results, client)

    async def _subscribe_from(self, session: Session, packet: Subscribe, client: Applicant) -> None:
        """A SUBSCRIBE that replays: where from is for the log to say."""
        words = dict(packet.user_properties)
        results: list[Result] = []
        for request in packet.requests:
            subscription = self._asked_for(session, request, packet)
            result: Result = subscription
            try:
                await replays.place(self._log.store, session, subscription, words)
            except PeerError as error:
                logger.info("client %r: %s", session.client_id, error.reason)
                result = error.reason_code
            except StoreError as error:
                logger.warning("client %r: %s", session.client_id, error)
                result = ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
            results.append(result)
        if not client.closed:
            self._grant(session, packet, results, client)

    def _asked_for(
        self, session: Session, request: SubscriptionRequest, packet: Subscribe
    ) -> SubscriptionDocument:
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
        self, session: Session, packet: Subscribe, results: Sequence[Result], client: Applicant
    ) -> None:
        """Make the subscriptions and answer when they are committed. [MQTT-3.8.4-1]"""
        operations: list[Operation] = []
        codes: list[int] = []
        wanting_retained: list[SubscriptionDocument] = []
        for result in results:
            if isinstance(result, int):
                codes.append(result)
                continue
            if self._too_many(session, result):
                self._groups.leave(session, result.filter)
                codes.append(ReasonCode.QUOTA_EXCEEDED)
                continue
            if self._owe_retained(session, result):
                wanting_retained.append(result)
            self._delivery.subscribe(session, result)
            operations.append(Put(replace(result)))  # A replay changes it while it is written.
            codes.append(result.qos)

        def committed(error: StoreError | None) -> None:
            if error is not None or client.closed:
                return
            client.answer(Suback(packet.packet_id, codes))
            if wanting_retained:
                session.aside.extend(self._sys_tree.matching(wanting_retained))
                self._delivery.send_retained(session)

        self._commit(session, operations, committed)

    def _too_many(self, session: Session, subscription: SubscriptionDocument) -> bool:
        subscriptions, most = session.subscriptions, self._config.subscriptions_per_session_max
        return len(subscriptions) >= most and subscription.filter not in subscriptions

    def _owe_retained(self, session: Session, subscription: SubscriptionDocument) -> bool:
        """Let it get what is retained now, if it asks for that. [MQTT-3.3.1-9..11]

        If not, what is still owed from when it was made stays owed.
        """
        existing = session.subscriptions.get(subscription.filter)
        if subscription.replaying or subscription.shared:
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

    def unsubscribe(self, session: Session, packet: Unsubscribe, client: Applicant) -> None:
        operations: list[Operation] = []
        codes: list[int] = []
        for topic_filter in map(replays.kept_as, packet.filters):
            self._groups.leave(session, topic_filter)
            if self._delivery.unsubscribe(session, topic_filter):
                operations.append(Delete(SubscriptionDocument, (session.client_id, topic_filter)))
                codes.append(ReasonCode.SUCCESS)
            else:
                codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)

        def committed(error: StoreError | None) -> None:
            if error is None:
                client.answer(Unsuback(packet.packet_id, codes))

        self._commit(session, operations, committed)

    def _commit(
        self, session: Session, operations: list[Operation], committed: OnCommitted
    ) -> None:
        if session.durable and operations:
            self._log.append([], committed, operations=operations)
            self._log.changed(session)
        else:
            committed(None)
