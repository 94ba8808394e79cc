"""Subscriptions: grants what SUBSCRIBE asks for, and takes it back for UNSUBSCRIBE.

A SUBSCRIBE is answered with one SUBACK when all its subscriptions are committed and in effect
[MQTT-3.8.4-1]: for each Topic Filter the granted QoS, or the Reason Code that refuses it. Retained
messages follow the SUBACK. SUBSCRIBE and UNSUBSCRIBE count for what arrives after them, and for
nothing that came before (`delivery.changes`).

This module only tells the kinds of filters apart. Delivery serves a plain filter, groups serve
`$share/`, replay serves `$replay/` and the User Property `from`.

One turn of the loop grants, or takes back, `FILTERS_PER_TURN` filters; other clients have their
turns between. A granted part is given to the log before anything is awaited. So a client that is
cut off between two parts leaves no subscription that only memory knows.

A session that ends with its connection stores nothing. So while the disk is full, its
subscriptions count at once, and messages that wait for the disk come after them.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

from broker.clients.allowance import Allowance
from broker.clients.permitted import missing_right, weight
from broker.clock import Clock
from broker.config import Config
from broker.delivery.delivery import Delivery
from broker.delivery.routes import parts
from broker.documents import NOT_YET, SubscriptionDocument
from broker.errors import (
    NotAuthorized,
    PeerError,
    QuotaExceeded,
    ReplaySpecInvalid,
    SharedSubscriptionsNotSupported,
    StoreError,
)
from broker.log.log import Log
from broker.message import Offset
from broker.mqtt.packets import (
    Properties,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from broker.mqtt.properties import Property
from broker.mqtt.reasons import ReasonCode
from broker.observe.sys_tree import SysTree
from broker.registry.faces import Member
from broker.registry.groups.groups import Groups
from broker.replay import placing
from broker.session.session import Session
from broker.topics import has_control_character, is_shared, parse_shared

logger = logging.getLogger(__name__)

METADATA = ("metadata", "true")
"""User Property of a SUBSCRIBE: send offset, time and publisher with each message."""

REFUSALS_RETRIED = ("refusals", "retried")
"""User Property of a SUBACK: an operator made the group, so a PUBACK that is an error is only a
failed attempt. For who asks for `metadata`."""

FILTERS_PER_TURN = 100
"""Topic Filters that one turn of the loop grants a client, or takes back: about 1 ms. More take
turns. `benchmarks.scale --only subscriptions`: 10,000 at once held up everybody for 90 ms."""

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

    remarks: list[str]
    """What the SUBACK tells: words of the packet that were not understood, missing rights."""
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
        self._clock = clock
        self.allowance = Allowance(config)
        self._in_turn: Counter[Session] = Counter()
        """Topic Filters that this turn of the loop granted or took back, by session."""

    def change(
        self, session: Session, packet: Subscribe | Unsubscribe, client: Applicant
    ) -> Coroutine[None, None, None] | None:
        """As `subscribe`, or `unsubscribe`."""
        if isinstance(packet, Subscribe):
            return self.subscribe(session, packet, client)
        return self.unsubscribe(session, packet, client)

    def subscribe(
        self, session: Session, packet: Subscribe, client: Applicant
    ) -> Coroutine[None, None, None] | None:
        """Grant the subscriptions at once, and return None. If they are many, or the log or a group
        must be asked first: a coroutine, to be awaited before anything else is done for the
        client."""
        at_once = self._begin_part(session, packet.requests, weight(session.grants.rights))
        words, remark = placing.words(packet, self._clock.wall_us())
        granted = _Granted([*filter(None, [remark]), *_remarks(packet)])
        replays = placing.asked_for(packet, words)
        if replays or any(is_shared(r.filter) for r in packet.requests):
            mark = self._delivery.changes.mark(session)
            return self._subscribe_in_parts(
                session, packet, client, granted, words if replays else None, mark
            )
        if at_once:
            asked_for = [
                self._asked_for(session, request, packet, granted) for request in packet.requests
            ]
            self._grant(session, packet, asked_for, granted, client)
            return None
        return self._subscribe_in_parts(session, packet, client, granted)

    async def _subscribe_in_parts(
        self,
        session: Session,
        packet: Subscribe,
        client: Applicant,
        granted: _Granted,
        words: Mapping[str, str] | None = None,
        mark: asyncio.Future[Offset] | None = None,
    ) -> None:
        """`words` describe the replay, if there is one. `mark` is the place of the SUBSCRIBE in the
        log: groups and replays that are opened later begin there."""
        replays = not {"from", "until"}.isdisjoint(words or {})
        here = Offset(0) if mark is None else await mark
        each = weight(session.grants.rights)
        for requests in parts(packet.requests, max(1, FILTERS_PER_TURN // each)):
            await asyncio.sleep(0)
            self._begin_part(session, requests, each)
            results: list[Result] = []
            asked_for: dict[str, SubscriptionDocument] = {}
            for request in requests:
                if client.closed:
                    return
                result = self._asked_for(session, request, packet, granted, replays=replays)
                if isinstance(result, int):
                    pass
                elif words is not None and not is_shared(result.filter):
                    result = await self._placed(session, result, words, here)
                elif is_shared(result.filter) and not self.allowance.too_many(
                    session, result.filter, asked_for
                ):
                    result = await self._joined(session, result, client, words or {}, here)
                if not isinstance(result, int):
                    asked_for[result.filter] = result
                results.append(result)
            if client.closed:
                return
            self._grant(session, packet, results, granted, client)

    async def _joined(
        self,
        session: Session,
        subscription: SubscriptionDocument,
        client: Applicant,
        words: Mapping[str, str],
        here: Offset,
    ) -> Result:
        """A Shared Subscription: its group is opened first. A new one begins where `words` say."""
        result: Result = subscription
        try:
            self._groups.refuse_if_many(session, subscription.filter)
            if words and (shared := parse_shared(subscription.filter)) is not None:
                store, now_us = self._log.store, self._clock.wall_us()
                here = await placing.group_begins(store, shared[1], words, now_us, here)
            await self._groups.join(session, subscription, client, here)
        except (ReplaySpecInvalid, SharedSubscriptionsNotSupported, NotAuthorized) as error:
            logger.info("client %r: %s", session.client_id, error.reason)
            result = error.reason_code
        except (StoreError, QuotaExceeded) as error:
            logger.warning("client %r: %s", session.client_id, error)
            result = ReasonCode.QUOTA_EXCEEDED
        if client.closed and subscription.filter not in session.subscriptions:
            # Another connection has the session now, and did not ask for this.
            self._groups.leave(session, subscription.filter)
        return result

    async def _placed(
        self,
        session: Session,
        subscription: SubscriptionDocument,
        words: Mapping[str, str],
        here: Offset,
    ) -> Result:
        """A subscription that replays. The log is asked where it begins."""
        try:
            now_us = self._clock.wall_us()
            await placing.place(self._log.store, session, subscription, words, now_us, here)
        except PeerError as error:
            logger.info("client %r: %s", session.client_id, error.reason)
            return error.reason_code
        except StoreError as error:
            logger.warning("client %r: %s", session.client_id, error)
            return ReasonCode.IMPLEMENTATION_SPECIFIC_ERROR
        return subscription

    def _begin_part(self, session: Session, part: Sequence[object], each: int = 1) -> bool:
        """Whether this turn of the loop may grant, or take back, these too, which weigh so much."""
        if not self._in_turn:
            asyncio.get_running_loop().call_soon(self._in_turn.clear)
        self._in_turn[session] += len(part) * each
        return self._in_turn[session] <= FILTERS_PER_TURN

    def _asked_for(
        self,
        session: Session,
        request: SubscriptionRequest,
        packet: Subscribe,
        granted: _Granted,
        *,
        replays: bool = False,
    ) -> Result:
        if has_control_character(request.filter):
            return ReasonCode.TOPIC_FILTER_INVALID
        if missing := missing_right(session.grants.rights, request.filter, replays=replays):
            granted.remarks.append(f"the right to {missing} is missing")
            return ReasonCode.NOT_AUTHORIZED
        existing = session.subscriptions.get(request.filter)
        return SubscriptionDocument(
            session.client_id,
            request.filter,
            request.qos,
            request.no_local,
            request.retain_as_published,
            request.retain_handling,
            packet.subscription_id,
            start_offset=existing.start_offset if existing else NOT_YET,
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
        """Make these subscriptions, and answer when the last of the packet's are in effect.
        [MQTT-3.8.4-1]"""
        made: dict[str, SubscriptionDocument] = {}
        too_many = ""
        for result in results:
            if isinstance(result, int):
                granted.codes.append(result)
            elif why := self.allowance.too_many(session, result.filter, made):
                too_many = why
                if is_shared(result.filter):
                    self._groups.leave(session, result.filter)
                granted.codes.append(ReasonCode.QUOTA_EXCEEDED)
            else:
                made[result.filter] = result
                granted.codes.append(result.qos)
                if session.grants.wants_retained(result):
                    granted.wanting_retained.append(result)
                logger.debug("client %r subscribes to %r", session.client_id, result.filter)
        complete = len(granted.codes) == len(packet.requests)
        if too_many:
            logger.warning("client %r: it may have %s, no more", session.client_id, too_many)

        def in_effect(error: StoreError | None) -> None:
            if error is not None:
                return
            if complete and not client.closed:
                properties: Properties = {}
                if granted.remarks:
                    properties[Property.REASON_STRING] = "; ".join(dict.fromkeys(granted.remarks))
                if METADATA in packet.user_properties and self._tries_again(made):
                    properties[Property.USER_PROPERTY] = [REFUSALS_RETRIED]
                client.answer(Suback(packet.packet_id, granted.codes, properties))
                figures = self._sys_tree.matching(granted.wanting_retained, session)
                session.supply.offer_aside(figures)
            if complete or client.closed:
                self._delivery.send_owed(session)

        self._delivery.changes.subscribe(session, made.values(), in_effect)

    def _tries_again(self, made: Mapping[str, SubscriptionDocument]) -> bool:
        """Whether the client may refuse a message of its groups, and it is tried again."""
        return bool(made) and all(name in self._groups.created for name in made)

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
        for filters in parts(packet.filters, FILTERS_PER_TURN):
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
        gone: dict[str, None] = {}
        for topic_filter in map(placing.kept_as, filters):
            if topic_filter in session.subscriptions and topic_filter not in gone:
                gone[topic_filter] = None
                codes.append(ReasonCode.SUCCESS)
                logger.debug("client %r unsubscribes from %r", session.client_id, topic_filter)
            elif has_control_character(topic_filter):
                codes.append(ReasonCode.TOPIC_FILTER_INVALID)
            else:
                codes.append(ReasonCode.NO_SUBSCRIPTION_EXISTED)
        complete = len(codes) == len(packet.filters)

        def in_effect(error: StoreError | None) -> None:
            if error is not None:
                return
            answer = partial(client.answer, Unsuback(packet.packet_id, codes))
            self._groups.leave(session, *filter(is_shared, gone), left=answer if complete else None)

        self._delivery.changes.unsubscribe(session, gone, in_effect)


def _remarks(packet: Subscribe) -> list[str]:
    """Applications have a `metadata` of their own, too."""
    name, wanted = METADATA
    values = [value for key, value in packet.user_properties if key == name]
    said = [f"{placing.shown(name, each)} is not {wanted}: without {name}" for each in values[:1]]
    return [] if wanted in values else said
