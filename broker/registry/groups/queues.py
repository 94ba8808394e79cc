"""Queues: what an operator does to groups and to their dead letters, while the broker runs.

A group that is made here exists before its first member, stays until it is removed here, and tries
again what its members refuse. One that members made with `$share/...` is taken over as it is.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from broker.clock import Clock
from broker.documents import (
    CursorDocument,
    Delete,
    Operation,
    Put,
    SessionDocument,
    SubscriptionDocument,
)
from broker.documents.queues import DeadLetterDocument, GroupDocument
from broker.errors import CommandInvalid, CommandRefused, NotFound
from broker.log.batch import awaited
from broker.log.log import Log
from broker.message import Offset
from broker.registry.groups.groups import Groups
from broker.registry.groups.policy import Policy
from broker.registry.groups.retries import Retry
from broker.replay.finding import begin_after
from broker.replay.spec import parse
from broker.session.session import Session
from broker.store import PART_MAX, Store
from broker.topics import has_control_character, parse_shared, refuse_words, validate_filter

MOST_ATTEMPTS = 1_000_000
PERIOD_MS_MAX = 365 * 86_400_000

logger = logging.getLogger(__name__)


@dataclass(slots=True, frozen=True)
class Made:
    """A group that was made; `begins_at` is the first offset that it may get. `taken_over`: it was
    there already, by `$share/...`."""

    name: str
    begins_at: Offset
    taken_over: bool


class Queues:
    def __init__(self, log: Log, groups: Groups, clock: Clock) -> None:
        self._log = log
        self._groups = groups
        self._clock = clock

    def members(self) -> Counter[str]:
        """How many are connected, of each group that has any."""
        return Counter(group.name for each in self._groups.everybody().values() for group in each)

    async def create(self, document: GroupDocument, start: str) -> Made:
        """`start`: where a new group begins, as `pubsub sub --from`; empty: at the end of the log.
        Raises CommandRefused, ReplaySpecInvalid, QuotaExceeded, TopicFilterInvalid, StoreError."""
        name = document.client_id
        topic_filter = _filter_of(name)
        _validate(document)
        if name in self._groups.created:
            raise CommandRefused(f"there is a group {name} already", "see: pubsub group show")
        document = replace(document, created_at_us=self._clock.wall_us())
        existing = await self._log.store.get(SessionDocument, (name,))
        here = self._log.high_watermark
        if existing is not None and start:
            raise CommandRefused(
                f"members made the group {name} already, and it has its place",
                "leave --from out, or move it with: pubsub subscribers seek",
            )
        if start:
            span = parse(start, document.created_at_us)
            if span.end is not None:
                raise CommandInvalid("a group begins at one place", "leave the end of it out")
            store, filters = self._log.store, [topic_filter]
            here = await begin_after(store, span.start, filters, here=here, cursor=here)
        self._groups.created[name] = document
        try:
            await self._groups.open(name, here)
            await self._log.commit_now([Put(document)], keep_if_full=False)
        except BaseException:
            del self._groups.created[name]
            raise
        group = self._groups.get(name)
        if group is not None:
            group.redelivery.policy = Policy.of(document)
        logger.info("group %s is made, by command", name)
        cursor = await self._log.store.get(CursorDocument, (name,))
        begins = here if cursor is None else cursor.offset
        return Made(name, Offset(begins + 1), existing is not None)

    async def remove(self, name: str) -> None:
        """Let it be a group like any other, which ends now if nobody is subscribed to it. Raises
        CommandRefused, StoreError."""
        if name not in self._groups.created:
            raise NotFound(f"no command made a group {name}", "`pubsub group ls` lists them")
        group = self._groups.get(name)
        if group is not None and group.members:
            raise CommandRefused(f"the group {name} has members", "stop its workers first")
        await self._log.commit_now([Delete(GroupDocument, (name,))], keep_if_full=False)
        del self._groups.created[name]
        logger.info("group %s is removed, by command", name)
        self._groups.leave(Session("", created_at_us=0, start=Offset(0), inflight_max=1), name)
        await self._groups.lingering.ends_done()

    async def redrive(self, group: str, offset: Offset | None) -> int:
        """Give the group these of its dead letters, None: all, back: how many. Raises
        CommandRefused, StoreError."""
        if await self._log.store.get(SessionDocument, (group,)) is None:
            raise CommandRefused(
                f"the group {group} is gone",
                "make it again: pubsub group create NAME --filter FILTER",
            )
        count = 0
        while letters := await self._letters(group, offset):
            operations = [delete(letter) for letter in letters]
            open_group = self._groups.get(group)
            if open_group is None:
                now = self._log.time.served_at(self._clock.monotonic())
                again = [Retry(now, letter.offset, 0).document(group) for letter in letters]
                await self._log.commit_now([*operations, *map(Put, again)], keep_if_full=False)
            else:
                offsets = [letter.offset for letter in letters]
                done, on_committed = awaited(None)
                self._log.append([], on_committed, operations=operations)
                open_group.redelivery.redriven(offsets)
                open_group.wake()
                await done
            count += len(letters)
        if not count:
            raise no_dead_letter(group, offset)
        logger.info("group %s gets %d dead letters back, by command", group, count)
        return count

    async def drop(self, group: str, offset: Offset | None) -> int:
        """As `redrive`, but they are not kept any more."""
        count = 0
        while letters := await self._letters(group, offset):
            await self._groups.dead_letters.drop(letters, "dead letter dropped")
            count += len(letters)
        if not count:
            raise no_dead_letter(group, offset)
        logger.info("%d dead letters of group %s are dropped, by command", count, group)
        return count

    async def _letters(self, group: str, offset: Offset | None) -> Sequence[DeadLetterDocument]:
        return await dead_letters(self._log.store, group, offset)


async def dead_letters(
    store: Store, group: str, offset: Offset | None
) -> Sequence[DeadLetterDocument]:
    """The one at this offset, or PART_MAX of them."""
    after = None if offset is None else (group, offset - 1)
    found = await store.scan_part(DeadLetterDocument, (group,), after)
    if offset is not None:
        return [letter for letter in found[:1] if letter.offset == offset]
    return found[:PART_MAX]


def delete(letter: DeadLetterDocument) -> Operation:
    return Delete(DeadLetterDocument, (letter.group_name, letter.offset))


def no_dead_letter(group: str, offset: Offset | None) -> NotFound:
    at = "" if offset is None else f" at offset {offset}"
    return NotFound(f"{group} has no dead letter{at}", "`pubsub dead-letters` lists them")


def subscription_of(name: str, start: Offset) -> SubscriptionDocument:
    return SubscriptionDocument("", name, 1, False, False, 2, None, start)


def _filter_of(name: str) -> str:
    """Of a group that is to be. Raises CommandInvalid, TopicFilterInvalid."""
    validate_filter(name)
    shared = parse_shared(name)
    if shared is None:
        raise CommandInvalid(f"{name} is no group", "give it a name and a filter")
    if has_control_character(name):
        raise CommandInvalid("the group has a control character", "leave it out")
    refuse_words(shared[1], "a group")
    return shared[1]


def _validate(document: GroupDocument) -> None:
    """Raises CommandInvalid."""
    if not 1 <= document.attempts_max <= MOST_ATTEMPTS:
        raise CommandInvalid(f"--attempts must be 1..{MOST_ATTEMPTS}")
    if not 0 <= document.backoff_first_ms <= document.backoff_max_ms <= PERIOD_MS_MAX:
        raise CommandInvalid("--backoff must be a shorter and a longer time, of a year at most")
    if not 1000 <= document.lease_ms <= PERIOD_MS_MAX:
        raise CommandInvalid("--lease must be a second at least, and a year at most")
