"""Readers: what reads the log for one session, a part whenever there is room for one.

`CatchUp` is the session's own, `Replay` one of a subscription; `retained` reads what is retained.
What they read and what they tell when they are done is the `Feed`'s. A session's readers take
turns: one of them looks into the log at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import partial
from typing import Protocol

from broker import tasks
from broker.counters import Counters
from broker.delivery.waking import Waking
from broker.documents import BEFORE_ALL, SubscriptionDocument
from broker.message import Message, Offset, Outgoing, cost_of, texts_among
from broker.security.rights import Rights
from broker.session.grants import merge_grants
from broker.session.outbox import with_missing
from broker.session.position import LivePosition
from broker.session.session import Session
from broker.session.withholding import readable
from broker.store import Read
from broker.topics import (
    CONTROL_CHARACTER,
    CONTROL_CHARACTER_IN_PROPERTY,
    has_control_character,
    is_shared,
    matches,
)

logger = logging.getLogger(__name__)

READ_MESSAGES_MAX = 2000
READ_BYTES_MAX = 512 * 1024
"""What a reader that is behind takes from the log at a time."""


REMOVED = "removed by retention"
"""Why they are counted as dropped. (P5)"""


def size_of(outgoing: Iterable[Outgoing]) -> int:
    """Bytes in memory."""
    return cost_of([message for message, _ in outgoing])


def sendable(messages: list[Message], counters: Counters) -> list[Message]:
    """Those that are not `unfit`; the others are counted. (P5)"""
    texts = [message.topic for message in messages]
    for properties in {message.properties for message in messages if message.properties}:
        texts += texts_among(properties)
    if "".join(texts).isprintable():
        return messages
    reasons = [unfit(message) for message in messages]
    for reason in filter(None, reasons):
        counters.dropped[reason] += 1
    return [message for message, reason in zip(messages, reasons, strict=True) if not reason]


def unfit(message: Message) -> str:
    """Why it goes to no client: a control character in its topic or a property. An older program
    accepted it, but some clients would end the connection and come again, for ever. Else empty."""
    if has_control_character(message.topic):
        return CONTROL_CHARACTER
    if any(map(has_control_character, texts_among(message.properties))):
        return CONTROL_CHARACTER_IN_PROPERTY
    return ""


def lasting(messages: list[Message], through: Offset) -> list[Message]:
    """Without those up to `through` whose Message Expiry Interval is 0: they were for who was
    connected then, and for nobody who comes later. [MQTT-3.3.2-5]"""
    return [
        message
        for message in messages
        if message.expires_at_us is None
        or message.expires_at_us != message.published_at_us
        or message.offset > through
    ]


def missing(
    read: Read, asked: tuple[Offset, Offset], low: Offset, counters: Counters, counted: Offset
) -> list[range]:
    """Of what lies above the first and up to the second offset that was asked for: what is below
    `low` and so not in the log any more, what retention removed unread above it, and what is
    damaged there. Those above `counted` are counted. (P5)"""
    after, end = asked
    below = range(after + 1, max(after + 1, min(low, end + 1, read.next)))
    removed = [range(max(part.start, below.stop), part.stop) for part in read.removed]
    removed = [part for part in (below, *removed) if part]
    damaged = [part for part in read.damaged if part.start >= below.stop]
    for reason, parts in (("damaged", damaged), (REMOVED, removed)):
        new = [range(max(part.start, counted + 1), part.stop) for part in parts]
        counters.dropped[reason] += sum(map(len, new))
    return sorted([*removed, *damaged], key=lambda part: part.start)


def unexpired(read: Read, now_us: int, counters: Counters, rights: Rights) -> list[Message]:
    """Retained messages that were read, may be sent and can be; damaged ones are counted. (P5)"""
    if read.damaged:
        counters.dropped["damaged"] += sum(map(len, read.damaged))
    unexpired = [message for message in read.messages if not message.has_expired(now_us)]
    if rights.limited:
        unexpired = [message for message in unexpired if rights.may_receive(message.topic)]
    return sendable(unexpired, counters)


class Feed(Protocol):
    """What a reader needs: delivery."""

    live: LivePosition
    waking: Waking

    def failed(self, session: Session, error: Exception) -> None:
        """A reader could not go on."""
        ...

    async def retained(self, session: Session, filters: Sequence[str]) -> list[Offset]: ...

    async def routed(self, through: Offset) -> None:
        """Return when every batch through this offset, which is in the log, was routed."""
        ...

    async def fetch(
        self, session: Session, offsets: Sequence[Offset], bytes_max: int
    ) -> tuple[Read, int]:
        """The messages at these offsets, which rise, and how many of the offsets were looked at."""
        ...

    async def read(
        self,
        session: Session,
        after: Offset,
        end: Offset,
        filters: Iterable[str],
        counted: Offset,
        *,
        replay: bool = False,
    ) -> tuple[list[Message], Offset, list[range]]:
        """Messages above `after` that may match, how far that went, and which offsets up to there
        are missing: damaged, or removed by retention unread. Those above `counted` are counted.
        `replay`: all that lies below the log start is missing, as it was asked for."""
        ...

    def caught_up(self, session: Session) -> None:
        """From here on the session is fed with each batch."""
        ...

    def retained_read(self, session: Session, read: Read, *, last_part: bool) -> None:
        """These are the next on the topics that the session is owed retained messages of."""
        ...

    def joined(self, session: Session, subscription: SubscriptionDocument) -> None:
        """A replay came to where its session is: they go on together."""
        ...

    def ended(
        self, session: Session, subscription: SubscriptionDocument, missing: Sequence[range]
    ) -> None:
        """A replay came to its end: the subscription is over, and its client is told, also of the
        offsets that were missing and not told of yet."""
        ...


class Reader:
    """Reads the log for one session, a batch whenever there is room for one, until it caught up."""

    def __init__(
        self, delivery: Feed, session: Session, absent_through: Offset = BEFORE_ALL
    ) -> None:
        """`absent_through`: what was routed when the client came."""
        self.delivery = delivery
        self.session = session
        self.absent_through = absent_through
        self._room = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def key(self) -> ReaderKey:
        """Which one of its session's readers it is."""
        return type(self), None

    def start(self) -> None:
        self.look_for_room()
        self._task = tasks.start(self.run(), partial(self.delivery.failed, self.session))

    def stop(self) -> None:
        task, self._task = self._task, None
        if task is not None:
            task.cancel()

    def look_for_room(self) -> None:
        """Called when the client took messages."""
        if self.has_room():
            self._room.set()
        else:
            self._room.clear()

    async def room(self) -> None:
        self.look_for_room()
        await self._room.wait()

    def has_room(self) -> bool:
        raise NotImplementedError

    async def run(self) -> None:
        raise NotImplementedError


class CatchUp(Reader):
    """The session's own reader: from its position to the newest routed offset; then it is live."""

    def has_room(self) -> bool:
        session = self.session
        return (
            len(session.outbox) < READ_MESSAGES_MAX // 2
            and session.outbox.size < READ_BYTES_MAX // 2
        )

    async def run(self) -> None:
        session, delivery = self.session, self.delivery
        standing, position = session.standing, session.position
        awaited = False
        while True:
            if position.through >= delivery.live.through:
                if awaited or standing.offered_through() <= delivery.live.through:
                    break
                await delivery.routed(standing.offered_through())  # Or it would come again.
                awaited = True
                continue
            await self.room()
            filters = [
                f for f, s in session.subscriptions.items() if not (s.replaying or is_shared(f))
            ]
            counted = session.gaps.counted_through
            messages, through, missing = await delivery.read(
                session, position.through, delivery.live.through, filters, counted
            )
            session.tally.lacks(sum(len(range(max(p.start, counted + 1), p.stop)) for p in missing))
            session.gaps.counted(missing)
            session.supply.miss(missing)
            messages = lasting(messages, self.absent_through)
            messages = standing.not_served(messages)
            outgoing = [
                (message, grant)
                for message in messages
                if (grant := session.grants.of(message)) is not None
            ]
            outgoing = readable(outgoing, session.grants.rights)
            session.supply.offer(outgoing, size_of(outgoing))
            position.advance(through)
            if session.supply.waiting:
                delivery.waking.wake([session])
            await asyncio.sleep(0)
        delivery.caught_up(session)


class Replay(Reader):
    """One subscription's history, beside the session's own place, until it comes to that place.

    Offers a batch only when the one before was taken. `start_offset`, which is where it goes on
    after a crash, moves with what is taken and, when that is all, over what did not match.
    """

    def __init__(
        self, delivery: Feed, session: Session, subscription: SubscriptionDocument
    ) -> None:
        super().__init__(delivery, session, delivery.live.through)
        self.subscription = subscription

    @property
    def key(self) -> ReaderKey:
        return Replay, self.subscription.filter

    def has_room(self) -> bool:
        return not self.session.supply.aside

    async def run(self) -> None:
        session, delivery, subscription = self.session, self.delivery, self.subscription
        until = subscription.until_offset
        through = subscription.start_offset
        merged = merge_grants([subscription])
        assert merged is not None
        grant = replace(merged, replay=subscription.filter)
        untold: list[range] = []
        while True:
            await self.room()
            # What was offered so far was taken; from here to `joined` nothing is awaited.
            session.grants.replayed(subscription.filter, through)
            end = delivery.live.through if until is None else until
            if through >= end:
                break
            messages, through, missing = await delivery.read(
                session, through, end, [subscription.filter], BEFORE_ALL, replay=True
            )
            untold += missing
            outgoing = [
                (message, grant)
                for message in lasting(messages, self.absent_through)
                if message.offset <= end and self._matches(message)
            ]
            if outgoing:
                told, untold = with_missing(outgoing, untold)
                session.supply.offer_aside(told)
                delivery.waking.wake([session])
            await asyncio.sleep(0)
        if until is None:
            session.supply.miss(untold)
            delivery.joined(session, subscription)
        else:
            delivery.ended(session, subscription, untold)

    def _matches(self, message: Message) -> bool:
        own = message.publisher == self.session.client_id
        rights = self.session.grants.rights
        if rights.limited and not rights.may_replay(message.topic):
            return False
        return matches(self.subscription.filter, message.topic) and not (
            own and self.subscription.no_local
        )


ReaderKey = tuple[type[Reader], str | None]
"""A session has one reader of each class, but a `Replay` for each Topic Filter that replays."""
