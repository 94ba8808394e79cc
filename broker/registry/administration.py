"""Administration: what an operator does to subscribers: seek, fork, remove.

Subscribers are sessions, of MQTT clients and of the line protocol, and groups of Shared
Subscriptions (`$share/<name>/<filter>`). Each may be connected or away. While one is worked on,
whoever connects to it waits (`Sessions.held`).

- The place of a session changes in one turn of the loop. An acknowledgement counts before or after
  that, and a message goes out before it or from the new place on, never something between.
- What is in flight stays in flight until it is acknowledged. What a seek back sends again goes as a
  new message: a Packet Identifier of its own, DUP 0, and QoS 2 in an exchange of its own.
- What nobody gets because of a seek or a removal is counted, with the reason (P5). It is counted
  when that is done, so it takes as long as it takes and holds up nobody.
"""

from __future__ import annotations

import difflib
import logging
from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from broker.clock import Clock
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import CursorDocument, Put, SessionDocument
from broker.errors import CommandInvalid, CommandRefused, NotFound, ReplaySpecInvalid
from broker.log.batch import awaited
from broker.log.log import Log
from broker.message import Offset
from broker.plural import counted
from broker.registry.faces import OPERATOR
from broker.registry.groups.groups import Groups
from broker.registry.sessions import Sessions
from broker.replay.finding import begin_after
from broker.replay.spec import parse
from broker.session.session import Session
from broker.topics import (
    SHARE_PREFIX,
    has_control_character,
    is_shared,
    parse_shared,
    validate_filter,
)

logger = logging.getLogger(__name__)

SKIPPED = "skipped by seek"
REMOVED = "unread when its subscriber was removed"
NAME_BYTES_MAX = 65_535
NEAR_MAX = 5
"""Names that are told where there is none as asked for."""
COMPARED_MAX = 300
"""Names that are compared letter by letter for that: a few ms."""


Permit = Callable[[Iterable[str]], Awaitable[None]]
"""Raises NotAuthorized, unless what has these Topic Filters may be administered; of none: unless
everything may."""


async def everything(_: Iterable[str]) -> None:
    """The Permit of whoever has the log."""


@dataclass(slots=True, frozen=True)
class Moved:
    """What a seek did, or would do. All that was taken up to `before` was sent; from here on it
    goes on above `through`. One of `again` and `skipped` is 0. `in_flight` stays in flight."""

    id: str
    connected: bool
    before: Offset
    through: Offset
    in_flight: int
    again: int
    skipped: int


@dataclass(slots=True, frozen=True)
class Forked:
    """`left_out`: Shared Subscriptions, in which the new one would take messages from others."""

    id: str
    cursor: Offset
    filters: tuple[str, ...]
    left_out: tuple[str, ...]


@dataclass(slots=True, frozen=True)
class Removed:
    """`unread`: what it was not sent, or has not acknowledged."""

    id: str
    connected: bool
    unread: int


class Administration:
    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        sessions: Sessions,
        groups: Groups,
        counters: Counters,
        clock: Clock,
    ) -> None:
        self._log = log
        self._delivery = delivery
        self._sessions = sessions
        self._groups = groups
        self._counters = counters
        self._clock = clock

    async def seek(
        self, name: str, to: str, permit: Permit = everything, *, dry_run: bool = False
    ) -> Moved:
        """Let the subscriber go on at the place that `to` means (`replay.spec`); with `dry_run` say
        what that would do. Raises CommandRefused, ReplaySpecInvalid, NotAuthorized, StoreError."""
        span = parse(to, self._clock.wall_us())
        if span.end is not None:
            raise ReplaySpecInvalid("seek goes to one place: leave the end of the range out")
        async with self._sessions.held(name, self._clock.now()) as held:
            if held is None:
                raise await self._not_found(name, permit)
            session, owner = held
            await _permitted(permit, name, session)
            filters = own_filters(session)
            if not filters:
                raise CommandRefused(
                    f"{name} has no subscription of its own", "a group has its own place"
                )
            through = await begin_after(
                self._log.store,
                span.start,
                filters,
                here=self._log.high_watermark,
                cursor=session.cursor(),
            )
            await self._delivery.routed(through)
            await _permitted(permit, name, session)
            if owner is not OPERATOR and not session.attached:
                raise CommandRefused(f"{name} has left just now", "try again")
            # Nothing is awaited from here until it has moved.
            before = session.supply.told_through()
            served = session.standing.served().ranges()
            in_flight = len(session.in_flight)
            if dry_run:
                pass
            elif session.attached:
                self._delivery.seek(session, through)
                done, on_committed = awaited(None)
                self._log.changed(session, on_committed)
                await done
            else:
                session.seek(through)
                await self._log.commit_now(session.take_changes(), keep_if_full=False)
        again = await self._count(filters, through, before)
        skipped = await self._count(filters, before, through)
        for part in served if skipped else ():
            first, last = max(part.start - 1, before), min(part.stop - 1, through)
            skipped -= await self._count(filters, Offset(first), Offset(last))
        if not dry_run:
            logger.info("subscriber %r goes on above offset %d, by command", name, through)
            if skipped:
                self._counters.dropped[SKIPPED] += skipped
                messages = counted(skipped, "message")
                logger.info("subscriber %r skips %s, by command", name, messages)
        return Moved(name, owner is not OPERATOR, before, through, in_flight, again, skipped)

    async def fork(self, name: str, new: str, permit: Permit = everything) -> Forked:
        """Make a subscriber `new` that has the subscriptions of this one and goes on at its cursor.
        What is in flight to this one is sent to the new one, too. Raises CommandRefused,
        NotAuthorized, QuotaExceeded, StoreError."""
        validate_new(name, new)
        now = self._clock.now()
        async with AsyncExitStack() as locks:
            held = {
                each: await locks.enter_async_context(self._sessions.held(each, now))
                for each in sorted({name, new})
            }
            source = held[name]
            if source is None:
                raise await self._not_found(name, permit)
            await _permitted(permit, name, source[0])
            if held[new] is not None:
                raise CommandRefused(
                    f"there is a subscriber {new} already", f"pubsub subscribers rm {new}"
                )
            session, _ = source
            if not session.durable:
                raise CommandRefused(
                    f"{name} is not durable: it ends with its connection",
                    "fork one that has an --id, or a Session Expiry Interval",
                )
            cursor = session.cursor()
            here = self._log.high_watermark  # One that is just being made begins there, or above.
            copied = [
                replace(s, client_id=new, start_offset=min(s.start_offset, here))
                for f, s in session.subscriptions.items()
                if not is_shared(f)
            ]
            document = SessionDocument(
                new, session.session_expiry_s, now.wall_us, None, user=session.tally.user
            )
            await self._sessions.add(
                document,
                [
                    *map(Put, copied),
                    Put(CursorDocument(new, cursor, cursor, 1, b"")),
                ],
                now,
            )
            if is_shared(new):
                self._sessions.absent_groups.closed(new)
        left_out = tuple(sorted(filter(is_shared, session.subscriptions)))
        logger.info("subscriber %r is made of %r, by command", new, name)
        return Forked(new, cursor, tuple(sorted([s.filter for s in copied])), left_out)

    async def remove(self, name: str, permit: Permit = everything) -> Removed:
        """End the subscriber's session, and its connection if there is one. A group that sessions
        are subscribed to stays. Raises CommandRefused, NotAuthorized, StoreError."""
        async with self._sessions.held(name, self._clock.now()) as held:
            if held is None:
                raise await self._not_found(name, permit)
            session, owner = held
            await _permitted(permit, name, session)
            if is_shared(name):
                await self._refuse_subscribed(name, connected=owner is not OPERATOR)
            unread = len(session.in_flight)
            before, through = session.supply.told_through(), self._log.high_watermark
            now = self._clock.now()
            if owner is OPERATOR:
                self._sessions.end(name, now)
            else:
                session.set_expiry(0)
                owner.removed()
            await self._log.commit_now([], keep_if_full=False)
        unread += await self._count(own_filters(session), before, through)
        if unread:
            self._counters.dropped[REMOVED] += unread
        messages = counted(unread, "message")
        logger.info("subscriber %r is removed, by command: %s unread", name, messages)
        return Removed(name, owner is not OPERATOR, unread)

    async def _refuse_subscribed(self, name: str, *, connected: bool) -> None:
        if name in self._groups.created:
            raise CommandRefused(f"the group {name} was made to stay", "pubsub group rm removes it")
        if connected or not await self._groups.has_no_subscriber(name):
            raise CommandRefused(
                f"sessions are subscribed to {name}",
                "it ends when they unsubscribe, or are removed: `pubsub subscribers` lists them",
            )

    async def _count(self, filters: list[str], after: Offset, through: Offset) -> int:
        """Matching messages above `after`, up to `through`."""
        if after >= through or not filters:
            return 0
        count, _ = await self._log.store.count(filters, Offset(after + 1), through)
        return count

    async def _not_found(self, name: str, permit: Permit) -> NotFound:
        """To who may not administer everything, no name is told. Raises NotAuthorized."""
        await permit(())
        return not_found(name, [*self._sessions.owners, *self._sessions.kept])


def concerned(name: str, session: Session) -> list[str]:
    """The Topic Filters that the subscriber is of: a group of one, too."""
    return [*session.subscriptions, *([name] if is_shared(name) else ())]


async def _permitted(permit: Permit, name: str, session: Session) -> None:
    """Raises NotAuthorized; CommandRefused: it was asked about filters that are others now."""
    asked = concerned(name, session)
    await permit(asked)
    if concerned(name, session) != asked:
        raise CommandRefused(f"{name} is subscribed to something else since just now", "try again")


def own_filters(session: Session) -> list[str]:
    """The Topic Filters that its own place in the log counts for."""
    return [
        f for f, s in session.subscriptions.items() if s.until_offset is None and not is_shared(f)
    ]


def validate_new(name: str, new: str) -> None:
    """Raises CommandInvalid: no subscriber can be made of that name, or not of this one."""
    if not new or has_control_character(new) or len(new.encode()) > NAME_BYTES_MAX:
        raise CommandInvalid("this is no name for a subscriber", "use 1 to 65,535 bytes that print")
    if not is_shared(new):
        return
    validate_filter(new)
    shared, of = parse_shared(new), parse_shared(name)
    if of is None or shared is None or shared[1] != of[1]:
        example = "<filter>" if of is None else of[1]
        raise CommandInvalid(
            "a group is its name and its filter together, so only a group of the same filter can be"
            " made of a group",
            f"use {SHARE_PREFIX}<name>/{example}, or a name without {SHARE_PREFIX}",
        )


def not_found(name: str, names: Iterable[str]) -> NotFound:
    """With the names that were maybe meant."""
    near = near_names(name, names)
    meant = f"did you mean {' or '.join(near)}?" if near else "`pubsub subscribers` lists them"
    return NotFound(f"there is no subscriber {name}", meant)


def near_names(name: str, names: Iterable[str]) -> list[str]:
    """Some of `names` that are like this one: of a group, its name is enough."""
    wanted = name.lower()
    likely: list[str] = []
    possible: list[str] = []
    for each in {*names}:
        lower = each.lower()
        if wanted in lower:
            likely.append(each)
        elif len(possible) < COMPARED_MAX and abs(len(each) - len(name)) <= 3:
            possible.append(each)
    likely = sorted(likely, key=lambda each: (len(each), each))[:NEAR_MAX]
    return likely or difflib.get_close_matches(name, sorted(possible), NEAR_MAX)
