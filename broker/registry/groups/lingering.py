"""Lingering: when a group that nobody is a member of ends. [MQTT 5, 4.8.2]

A group is there while a session is subscribed to it, its client connected or not. The last one that
unsubscribes ends it at once (`Groups.leave`). But when the last session *ends*, workers may only be
restarting: then the group stays for `group_linger_s`, and one with unread messages for
`session_expiry_default_s` if that is longer. What is unread when it ends is counted, and told (P5).

- Absent sessions have their subscriptions in the log alone. So the store is asked, for many groups
  at once: when the last member of a group has left, and when sessions have ended, for the groups
  that then may have lost their last.
- The time that is left is stored with the group, and passes only while a broker serves, as for any
  session.
- Where `groups_max` are kept, a new group takes the place of one that lingers: of the one that was
  in use for the shortest time, so that who makes many groups in passing does not end those that
  others rely on.
- The unread messages are counted by the readers, a few ms at a time; beyond LOOKS_MAX it is said
  that there are at least so many.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Container, Iterable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from broker import tasks
from broker.clock import NEVER, Clock, Instant
from broker.config import Config
from broker.counters import Counters
from broker.delivery.looks import Looks
from broker.documents import SessionDocument
from broker.documents.queues import RetryDocument
from broker.errors import StoreError
from broker.log.batch import awaited
from broker.log.deadlines import Deadlines
from broker.log.log import Log
from broker.message import Monotonic, Offset
from broker.plural import counted
from broker.registry.faces import AbsentGroups
from broker.registry.loading import load
from broker.registry.sessions import SESSION_EXPIRY_NEVER, Sessions
from broker.session.session import Session
from broker.store import PART_MAX
from broker.topics import parse_shared

logger = logging.getLogger(__name__)

LOOKED_AT_MAX = 500
"""Groups that the store is asked about at once, and that may end in one commit: a few ms."""
LOOKS_MAX = 2000
"""Looks into the log, of a few ms each, to count what is unread in one group."""
TOLD_MAX = 10
"""Groups that are told one by one when many end with unread messages at once."""
UNREAD = "unread when its group ended"


async def all_stored(log: Log) -> None:
    """Return when all is stored that was handed to the log before."""
    stored, on_stored = awaited(None)
    log.append([], on_stored, durable=False)
    await stored


class Lingering(AbsentGroups):
    """See the module."""

    def __init__(
        self,
        log: Log,
        sessions: Sessions,
        counters: Counters,
        config: Config,
        clock: Clock,
        stay: Container[str] = (),
    ) -> None:
        """`stay`: groups that never end by themselves."""
        self._stay_for_ever = stay
        self._log = log
        self._sessions = sessions
        self._counters = counters
        self._config = config
        self._clock = clock
        self._looks = Looks(clock)
        self._to_look_at: dict[str, Instant] = {}
        """Absent groups of which it is not known whether anybody is subscribed, since when."""
        self._due: set[str] = set()
        """Of these, those whose time is over."""
        self._unsubscribed: set[str] = set()
        """Of these, those that end now, if they have no subscriber."""
        self._held: set[str] = set()
        """Groups that had an absent subscriber when that was last asked."""
        self._in_use_s = Deadlines[Monotonic]()
        """For how many seconds each lingering group had members, the shortest first."""
        self._ends = 0
        """How often sessions have ended."""
        self._to_count: deque[tuple[Session, Offset, int]] = deque()
        """Of the groups that have ended: what was unread, up to this offset."""
        self._looking: asyncio.Task[None] | None = None
        self._counting: asyncio.Task[None] | None = None
        self.came_here: Callable[[str], None] = lambda name: None
        """Called with a group that was another broker's. It may have members at others."""
        sessions.absent_groups = self

    def found(self, document: SessionDocument, expires_at: Monotonic) -> None:
        if expires_at == NEVER:
            self.closed(document.client_id)
        else:
            now = self._clock.now()
            absent_s = max(0.0, document.session_expiry_s - (expires_at - now.monotonic))
            self._lingers(document, int(now.wall_us - absent_s * 1e6))

    def arrived(self, name: str) -> None:
        self.came_here(name)

    def closed(self, name: str) -> None:
        self._due.discard(name)
        self._look_at([name])

    def opened(self, name: str) -> None:
        """It has a member."""
        self._held.discard(name)
        self._in_use_s.remove(name)

    async def make_room(self) -> None:
        """For a new group, as far as there are any that linger."""
        most = self._config.groups_max
        while self._sessions.kept.group_count >= most and (name := self._in_use_s.first_due(NEVER)):
            self._in_use_s.remove(name)
            find = partial(self._log.store.get, SessionDocument, (name,))
            document = await self._looks.until_answered(find)
            if document is not None and self._sessions.is_absent(name):
                logger.warning("group %s makes room: there are groups_max, %d", name, most)
                await self._end(document)

    def due(self, names: Sequence[str]) -> None:
        self._due.update(names)
        self._look_at(names)

    def unsubscribed(self, name: str) -> None:
        """A session that is no member now has unsubscribed from an absent group."""
        self._unsubscribed.add(name)
        self._look_at([name])

    def sessions_ended(self) -> None:
        self._ends += 1
        self._look_at(self._held)
        self._held.clear()

    async def without_subscriber(self, names: Sequence[str]) -> dict[str, SessionDocument]:
        """The groups that no session is subscribed to, by name, when all is stored that was handed
        to the log before."""
        await all_stored(self._log)
        found = await self._looks.until_answered(lambda: self._log.store.without_subscriber(names))
        return {document.client_id: document for document in found}

    def ended(self, session: Session, through: Offset, retries: int = 0) -> None:
        """This session of a group, not attached any more, has ended. Count what was unread, and
        what was to be tried again."""
        if retries or len(session.in_flight) or session.position.through < through:
            self._to_count.append((session, through, retries))
            if self._counting is None:
                self._counting = tasks.start(self._count_and_tell(), self._failed)

    async def ends_done(self) -> None:
        """Return when the groups that are to end by now have ended, and what was unread is counted.
        Raises StoreError."""
        while tasks := [t for t in (self._looking, self._counting) if t is not None]:
            await asyncio.wait(tasks)
        await all_stored(self._log)

    def lost(self, session: Session, count: int) -> None:
        """Messages of groups that had ended, which this client was sent and did not acknowledge."""
        self._counters.dropped[UNREAD] += count
        logger.warning(
            "client %r left %s of groups that had ended unread",
            session.client_id,
            counted(count, "message"),
        )

    def _look_at(self, names: Iterable[str]) -> None:
        names = [name for name in names if name not in self._stay_for_ever]
        self._to_look_at.update(dict.fromkeys(names, self._clock.now()))
        if self._to_look_at and self._looking is None:
            self._looking = tasks.start(self._look(), self._failed)

    def _failed(self, error: Exception) -> None:
        """A mistake of ours: the groups that it was about stay until the next start."""
        logger.critical("the end of groups without a member", exc_info=error)

    async def _look(self) -> None:
        try:
            while self._to_look_at:
                await self._look_at_some([*islice(self._to_look_at, LOOKED_AT_MAX)])
        finally:
            self._looking = None

    async def _look_at_some(self, names: Sequence[str]) -> None:
        since = {name: self._to_look_at.pop(name) for name in names}
        due, unsubscribed = self._due.intersection(names), self._unsubscribed.intersection(names)
        self._due -= due
        self._unsubscribed -= unsubscribed
        ends = self._ends
        free = await self.without_subscriber(names)
        linger_s = self._config.group_linger_s
        for name in names:
            if self._came_back(name):
                continue
            document = free.get(name)
            if document is None:
                if ends == self._ends:
                    self._held.add(name)
                else:
                    self._to_look_at[name] = self._clock.now()
            elif name in unsubscribed or not linger_s:
                await self._end(document)
            elif name in due:
                await self._end(document, longest_s=self._config.session_expiry_default_s)
            else:
                self._lingers(document, since[name].wall_us)
                self._stay(document, linger_s, since[name].after(linger_s))

    def _came_back(self, name: str) -> bool:
        """Whether the group had a member since. It is looked at again when that has left."""
        made = name in self._stay_for_ever
        return made or name in self._to_look_at or not self._sessions.is_absent(name)

    def _lingers(self, document: SessionDocument, since_us: int) -> None:
        in_use_s = (since_us - document.created_at_us) / 1e6
        self._in_use_s.set(document.client_id, Monotonic(in_use_s))

    def _stay(self, document: SessionDocument, seconds: int, until: Monotonic) -> None:
        """Let the group stay: then it has stayed for `seconds`."""
        at = NEVER if seconds == SESSION_EXPIRY_NEVER else until
        self._sessions.expire_at(replace(document, session_expiry_s=seconds), at)

    async def _end(self, document: SessionDocument, *, longest_s: int = 0) -> None:
        """Unless something is unread, and the group has not stayed for `longest_s` yet."""
        name, through = document.client_id, self._log.high_watermark
        session, retries = await self._load(name), await self._retries(name)
        more_s = longest_s - document.session_expiry_s
        unread = False
        if session is not None and more_s > 0:
            count, complete = await self._unread(session, through)
            unread = count + retries > 0 or not complete
        if self._came_back(name):
            return
        if unread:
            assert document.expires_at_us is not None, "it was due"
            was_due = self._log.time.monotonic_at(document.expires_at_us)
            self._stay(document, longest_s, Monotonic(was_due + more_s))
            return

        def ended(error: StoreError | None) -> None:
            if error is None and session is not None:
                self.ended(session, through, retries)

        self._in_use_s.remove(name)
        self._sessions.end(name, self._clock.now(), ended)

    async def _load(self, name: str) -> Session | None:
        """None: it is damaged."""
        most = self._config.inflight_max
        try:
            return await self._looks.until_answered(
                lambda: load(self._log.store, name, inflight_max=most)
            )
        except StoreError as error:
            logger.error("group %s: its unread messages are not counted: %s", name, error)
            return None

    async def _retries(self, name: str) -> int:
        """How many messages the group is to try again."""
        count, after = 0, None
        while True:
            scan = partial(self._log.store.scan_part, RetryDocument, (name,), after)
            found = await self._looks.until_answered(scan)
            count += len(found)
            if len(found) < PART_MAX:
                return count
            after = (name, found[-1].due_at_us, found[-1].offset)

    async def _unread(self, session: Session, through: Offset) -> tuple[int, bool]:
        """How many messages, and whether that is all."""
        shared = parse_shared(session.client_id)
        assert shared is not None
        _, topic_filter = shared
        first = Offset(session.position.through + 1)
        try:
            count, following = await self._looks.until_answered(
                lambda: self._log.store.count([topic_filter], first, through, looks_max=LOOKS_MAX)
            )
        except StoreError as error:
            logger.error("group %s: unread messages not counted: %s", session.client_id, error)
            return len(session.in_flight), False
        return len(session.in_flight) + count, following > through

    async def _count_and_tell(self) -> None:
        told = groups = messages = 0
        try:
            while self._to_count:
                session, through, retries = self._to_count.popleft()
                count, complete = await self._unread(session, through)
                count += retries
                if not count:
                    continue
                self._counters.dropped[UNREAD] += count
                if told < TOLD_MAX:
                    told += 1
                    least = "" if complete else "at least "
                    logger.warning(
                        "group %s ended with %s%s: nobody is subscribed to it",
                        *(session.client_id, least, counted(count, "unread message")),
                    )
                else:
                    groups, messages = groups + 1, messages + count
        finally:
            self._counting = None
            if groups:
                logger.warning(
                    "%s ended, with %s",
                    counted(groups, "more group"),
                    counted(messages, "unread message"),
                )
