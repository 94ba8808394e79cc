"""Retained topics: on how many a user has a retained message, where its quota limits that.

The message that is retained on a topic counts for the user who published it, for no one else, until
it is replaced, removed or expires. With each message of a user who has such a limit, a document is
stored, in the same commit: whose it is, and a digest of its topic. In memory are the digests.

Whoever replaces or removes a retained message does not look here, and nothing is told when one
expires: so both may list too many topics, never too few. Before a user is refused, it is counted in
the store which of them are left, once in COUNT_INTERVAL_S at most. That is done at the first
message after a start, too. What was retained while the user had no limit is not counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from hashlib import blake2b
from typing import NamedTuple, Protocol

from broker.clock import US
from broker.documents import Delete, Operation, Place, Put
from broker.documents.quotas import RetainedByDocument
from broker.errors import RetainedQuotaExceeded, StoreError
from broker.log.log import Log
from broker.message import NOT_STORED, Offset
from broker.store import PART_MAX

TOO_MANY = "retained quota exceeded"
"""Why a message is dropped."""
COUNT_INTERVAL_S = 5
COUNT_SHARE = 20
"""Of the time at most one part in so many is spent on counting for a user."""
DIGEST_BYTES = 16
USERS_MAX = 10_000
"""Of whom it is in memory what they have: about 100 bytes for each topic."""

logger = logging.getLogger(__name__)


class Retainable(Protocol):
    """A message, or a PUBLISH packet."""

    @property
    def topic(self) -> str: ...

    @property
    def payload(self) -> bytes: ...

    @property
    def retain(self) -> bool: ...


class Counted(NamedTuple):
    """What to append right after the message, so that it is in the same commit."""

    operations: Sequence[Operation] = ()
    place: Place | None = None

    def stored_at(self, offset: Offset) -> None:
        """Its message is in the log already, there."""
        assert self.place is not None
        self.place.offset = offset


NOTHING = Counted()


class _Topics:
    """Of one user."""

    def __init__(self) -> None:
        self.digests: set[bytes] = set()
        self.known = False
        """Whether `digests` has all."""
        self.count_from_us = 0
        """Not counted again before this; aged time."""
        self.counting = asyncio.Lock()
        self.counted = 0
        """How often."""
        self.changes: dict[bytes, bool] | None = None
        """While it is counted: which were added, and which removed."""

    def note(self, digest: bytes, *, there: bool) -> None:
        if there:
            self.digests.add(digest)
        else:
            self.digests.discard(digest)
        if self.changes is not None:
            self.changes[digest] = there


class RetainedTopics:
    """`limit_of`: on how many topics a user may have a retained message; None: there is no limit,
    and nothing is counted."""

    def __init__(self, log: Log, limit_of: Callable[[str], int | None]) -> None:
        self._log = log
        self._limit_of = limit_of
        self._of: dict[str, _Topics] = {}

    def must_count(self, user: str, messages: Iterable[Retainable]) -> bool:
        """Whether to await `count` before these are given to `take`."""
        limit = self._limit_of(user)
        if limit is None:
            return False
        new = {_digest(m.topic) for m in messages if m.retain and m.payload}
        if not new:
            return False
        topics = self._topics(user)
        count = len(topics.digests) + len(new - topics.digests)
        if count <= limit and topics.known:
            return False
        return self._log.time.aged_us() >= topics.count_from_us

    async def prepare(self, messages: Sequence[tuple[str, Retainable]]) -> None:
        """Before messages of several users, each with its user, are given to `take`."""
        by_user: defaultdict[str, list[Retainable]] = defaultdict(list)
        for user, message in messages:
            by_user[user].append(message)
        for user, its in by_user.items():
            if self.must_count(user, its):
                await self.count(user)

    def take(self, user: str, message: Retainable, place: Place | None = None) -> Counted:
        """It is appended now. `place`: one that is right after it. Raises RetainedQuotaExceeded: it
        is not to be."""
        limit = self._limit_of(user)
        if limit is None or not message.retain:
            return NOTHING
        topics, digest = self._topics(user), _digest(message.topic)
        place = place or Place()
        if not message.payload:
            if topics.known and digest not in topics.digests:
                return NOTHING
            topics.note(digest, there=False)
            return Counted([Delete(RetainedByDocument, (user, digest.hex()))], place)
        count = len(topics.digests)
        if count >= limit and digest not in topics.digests:
            raise RetainedQuotaExceeded(
                f"{user} may have retained messages on {limit:,} topics, and has on {count:,}",
                TOO_MANY,
            )
        topics.note(digest, there=True)
        document = RetainedByDocument(user, digest.hex(), NOT_STORED)
        return Counted([Put(document, places={"offset": place})], place)

    async def count(self, user: str) -> None:
        """Forget the topics on which no message of the user is retained any more."""
        topics = self._topics(user)
        before = topics.counted
        async with topics.counting:
            if topics.counted != before:
                return  # Another client of the user has waited for it, too.
            began_us = self._log.time.aged_us()
            topics.changes = {}
            try:
                topics.digests = await self._look(user, topics.changes)
                topics.known = True
            except StoreError as error:
                logger.warning("retained topics of %s are not counted: %s", user, error)
            finally:
                changes, topics.changes = topics.changes, None
            for digest, there in changes.items():
                topics.note(digest, there=there)
            now_us = self._log.time.aged_us()
            pause_us = max(COUNT_INTERVAL_S * US, COUNT_SHARE * (now_us - began_us))
            topics.count_from_us = now_us + pause_us
            topics.counted += 1

    def forget(self, user: str) -> None:
        """There is no such user any more, nor a document of it."""
        self._of.pop(user, None)

    async def _look(self, user: str, changes: dict[bytes, bool]) -> set[bytes]:
        """What counts by the store, but for `changes`. Documents of the rest are removed. Raises
        StoreError."""
        log, after = self._log, None
        found: set[bytes] = set()
        await log.commit_now([], keep_if_full=False)  # What was appended before is in the store.
        while True:
            part = await log.store.scan_part(RetainedByDocument, (user,), after)
            offsets = [document.offset for document in part]
            still = {*await log.store.still_retained(offsets, log.time.aged_us())}
            gone: list[Operation] = []
            for document in part:
                digest = bytes.fromhex(document.digest)
                if document.offset in still:
                    found.add(digest)
                elif digest not in changes:
                    gone.append(Delete(RetainedByDocument, (user, document.digest)))
            if gone:
                log.append([], operations=gone, durable=False, keep_if_full=False)
            if len(part) < PART_MAX:
                return found
            after = (user, part[-1].digest)

    def _topics(self, user: str) -> _Topics:
        topics = self._of.get(user)
        if topics is None:
            if len(self._of) >= USERS_MAX:
                del self._of[next(iter(self._of))]
            topics = self._of[user] = _Topics()
        return topics


def no_limit(user: str) -> None:
    """A limit of nobody."""


def _digest(topic: str) -> bytes:
    return blake2b(topic.encode(), digest_size=DIGEST_BYTES).digest()
