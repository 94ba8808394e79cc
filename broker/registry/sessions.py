"""Sessions: the client identifiers that have Session State, their connections, their expiry.

Memory has the sessions of connected clients, and of clients that just left until their last state
is committed. All others are documents in the log: an absent subscriber costs an offset.

A session that `ended` before it was closed is one with which we made a mistake: nothing of it is
committed any more, and its client finds it as after a crash.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from weakref import WeakValueDictionary

from broker.clock import NEVER, Instant
from broker.config import Config
from broker.delivery.delivery import Delivery
from broker.documents import Delete, Operation, Place, Put, SessionDocument, WillDocument
from broker.errors import StoreError
from broker.log.batch import OnCommitted
from broker.log.log import Log
from broker.message import Message, Monotonic, WallUs
from broker.registry.faces import OPERATOR, AbsentGroups, Owner
from broker.registry.kept import Kept
from broker.registry.loading import commit_opening, document_of, load, refuse_another
from broker.registry.ownership import Alone, Ownership, Taken, until_heard
from broker.registry.session_expiry import SessionExpiry
from broker.registry.takeovers import Takeovers, let_go
from broker.registry.telling_again import tell_again
from broker.registry.wills import Wills
from broker.security.rights import Rights
from broker.session.session import Session
from broker.topics import is_shared

SESSION_EXPIRY_NEVER = 0xFFFF_FFFF
"""A Session Expiry Interval that means: does not expire. [MQTT 5, section 3.1.2.11.2]"""


class Sessions:
    """`deadline_moved` is called when a deadline may be earlier than it was."""

    def __init__(
        self,
        log: Log,
        delivery: Delivery,
        wills: Wills,
        config: Config,
        deadline_moved: Callable[[], None],
        ownership: Ownership | None = None,
    ) -> None:
        self._log = log
        self.ownership = ownership or Alone(log.store)
        self.ownership.begin(log, wills)
        self._delivery = delivery
        self.wills = wills
        self._config = config
        self._deadline_moved = deadline_moved
        self.in_memory: dict[str, Session] = {}
        self.owners: dict[str, Owner] = {}
        """Of the sessions that have a client."""
        self._takeovers = Takeovers()
        self.kept = Kept(config)
        """Every durable session: when it expires (NEVER while it is connected)."""
        self.absent_groups = AbsentGroups()
        self.expiry = SessionExpiry(log, self, deadline_moved)
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    @property
    def connected_count(self) -> int:
        return len(self.owners)

    def has_durable(self, client_id: str) -> bool:
        """Whether the client's session outlives its connection, and is stored."""
        return client_id in self.kept

    async def start(self, now: Instant) -> None:
        """Take up the stored sessions."""
        documents = await self.ownership.inherited(SessionDocument)
        self.adopt(documents, now, seen_us=self._log.time.noted_us)

    def adopt(self, documents: Sequence[SessionDocument], now: Instant, *, seen_us: WallUs) -> None:
        """Take up sessions that have no client yet: each begins to expire. Those that had one have
        last seen it then."""
        orphans: list[SessionDocument] = []
        for document in documents:
            if document.expires_at_us is None:
                expires_at = _expires_at(document.session_expiry_s, now)
                due_us = self._log.time.served_at(expires_at)
                document = replace(document, expires_at_us=due_us, last_seen_us=seen_us)
                orphans.append(document)
            else:
                expires_at = self._log.time.monotonic_at(document.expires_at_us)
            self.kept.found(document.client_id, document.user, expires_at)
            if is_shared(document.client_id):
                self.absent_groups.found(document, expires_at)
        self._deadline_moved()
        self.expiry.begin(orphans)

    @until_heard
    async def open(
        self,
        client_id: str,
        owner: Owner,
        *,
        clean_start: bool,
        session_expiry_s: int,
        receive_maximum: int,
        will: WillDocument | None,
        now: Instant,
        hears_of_gaps: bool = True,
        rights: Rights = Rights.ALL,
        user: str = "",
    ) -> tuple[Session, bool]:
        """The session, now of `owner`, and whether it was there before (Session Present).

        A connection that has it is told to let go. The will is committed with the session before
        this returns. Raises QuotaExceeded, StoreError: then nothing has changed but that the other
        connection is gone. Raises NotAuthorized: it is not `user`'s. ("": there are no users.)
        """
        async with self.lock(client_id):
            if client_id not in self.kept:
                taken = await self.ownership.take(client_id, user)
                self.arrived(taken, now)
                clean_start |= any(each.has_ended for each in taken)
            if user and (client_id in self.kept or client_id in self.in_memory):
                await refuse_another(self._log.store, client_id, self.in_memory, user)
            previous = self.owners.get(client_id)
            if previous is not None:
                let_go(previous)
                self._takeovers.taken_over(client_id, now.monotonic)
            expires_at = self.kept.get(client_id)
            if expires_at is not None:
                self.kept.set(client_id, NEVER)
            self.owners[client_id] = owner
            try:
                session, present = await self._take_up(
                    client_id, clean_start, session_expiry_s, will, now, user
                )
            except Exception:
                del self.owners[client_id]
                if expires_at is not None and client_id in self.kept:
                    self._expire_at(client_id, expires_at)
                    if client_id in self.in_memory:
                        self._save(self.in_memory[client_id])
                elif expires_at is not None:  # It was lost meanwhile.
                    self.kept.is_not_absent(client_id)
                raise
            if self.ownership.keeps(session):
                self.kept.set(client_id, NEVER)
                self.kept.belongs(client_id, user)
            else:
                self.kept.remove(client_id)
            self.in_memory[client_id] = session
            try:
                try:
                    session.attach(receive_maximum, rights, hears_of_gaps=hears_of_gaps)
                    await self._delivery.attach(session, owner)
                finally:
                    if expires_at is not None:
                        self.kept.is_not_absent(client_id)
            except Exception:
                self.close(session, owner, now)
                raise
            return session, present

    def lock(self, client_id: str) -> asyncio.Lock:
        """Whoever opens the session, or changes it while its client is away, has it meanwhile."""
        return self._locks.setdefault(client_id, asyncio.Lock())

    def arrived(self, taken: Sequence[Taken], now: Instant) -> None:
        """These are here now, and nobody is connected to them."""
        self.adopt([each.document for each in taken], now, seen_us=now.wall_us)
        for each in taken:
            self.wills.taken(each, now)
            if is_shared(each.document.client_id):
                self.absent_groups.arrived(each.document.client_id)

    def lost(self, client_ids: Collection[str]) -> None:
        """Another broker has these now: let go of them, and of the clients that are here."""
        for client_id in client_ids:
            owner, session = self.owners.get(client_id), self.in_memory.pop(client_id, None)
            if self.kept.remove(client_id) and owner is None:
                self.kept.is_not_absent(client_id)
            self.wills.lost(client_id)
            if session is not None:
                session.end()
            if owner is not None and session is not None and session.attached:
                let_go(owner)

    async def _take_up(
        self,
        client_id: str,
        clean_start: bool,
        session_expiry_s: int,
        will: WillDocument | None,
        now: Instant,
        user: str,
    ) -> tuple[Session, bool]:
        """Find the session or make a new one, and commit that it is open. Undone if that fails."""
        session = None if clean_start else await self.find(client_id)
        present = session is not None
        stored = client_id in self.kept
        if session is None:
            if session_expiry_s and not stored:
                self.kept.refuse_if_full(client_id, user)
            session = self._new(client_id, now.wall_us)
        session.tally.belongs_to(user)
        before = self.in_memory.get(client_id, session)
        had_ended = before.ended
        expiry_before_s = session.session_expiry_s
        session.set_expiry(session_expiry_s)
        if before is not session:
            before.end()
        state: list[Operation] = []
        if stored and not (present and session.durable):
            # Without expiry it lasts as long as this connection: a crash must not bring it back.
            state.append(Delete(SessionDocument, (client_id,)))
        if self.ownership.keeps(session):
            state.append(Put(document_of(session, expires_at_us=None)))
            state += self.ownership.claim(client_id)
        try:
            messages, operations = await self.wills.connecting(
                client_id, will, session_ends=clean_start, now=now
            )
            state += operations
            if state:
                goes_on = present and session.durable and will is None
                await commit_opening(self._log, state, messages, may_wait=goes_on)
            if stored and not present:
                self.absent_groups.sessions_ended()
        except Exception:
            self.wills.not_connected(client_id)
            if not had_ended:
                before.not_ended()
            session.set_expiry(expiry_before_s)
            raise
        self.wills.connected(client_id, will)
        return session, present

    def close(self, session: Session, owner: Owner, now: Instant) -> None:
        """The connection is gone: the session ends, or waits in the log until it expires."""
        client_id = session.client_id
        if self.owners.get(client_id) is not owner:
            return
        del self.owners[client_id]
        session.tally.left(now.wall_us)
        try:
            self._delivery.detach(session)
        finally:
            self._end_or_keep(session, now)

    def _end_or_keep(self, session: Session, now: Instant) -> None:
        client_id = session.client_id
        if session.durable and client_id in self.kept:
            self.kept.is_absent(client_id, subscribed=bool(session.subscriptions))
            self._expire_at(client_id, _expires_at(session.session_expiry_s, now))
            self._save(session)
        else:
            self._forget(client_id)
            if self.kept.remove(client_id):
                self._log.append([], operations=[Delete(SessionDocument, (client_id,))])
                self.absent_groups.sessions_ended()
            self.wills.session_ended(client_id, now)

    def _save(self, session: Session) -> None:
        """Commit the state of a session whose client left; then memory may forget it."""

        def saved(error: StoreError | None) -> None:
            client_id = session.client_id
            if self.in_memory.get(client_id) is session and client_id not in self.owners:
                del self.in_memory[client_id]
                self.kept.keep_gaps(session)

        expires_at = self.kept.get(session.client_id)
        assert expires_at is not None
        document = document_of(session, expires_at_us=self._log.time.served_at(expires_at))
        # The place: with or after all that it was handed, so that its cursor names all of that.
        self._log.append([], operations=[Put(document)], place=Place())
        self._log.changed(session, saved)

    @property
    def absent_may_subscribe(self) -> bool:
        """Whether any session may have a subscription though nobody is connected to it."""
        return self.ownership.others_may_subscribe or self.kept.absent_may_subscribe

    def is_absent(self, client_id: str) -> bool:
        """Whether the session is stored, and nobody is connected to it."""
        return client_id in self.kept and client_id not in self.owners

    def expire_at(self, document: SessionDocument, at: Monotonic) -> None:
        """Let the session of a group, which is absent, be due then."""
        document.expires_at_us = self._log.time.served_at(at)
        self._expire_at(document.client_id, at)
        self._log.append([], operations=[Put(document)])

    @asynccontextmanager
    async def held(
        self, client_id: str, now: Instant
    ) -> AsyncIterator[tuple[Session, Owner] | None]:
        """The session and its owner, `OPERATOR` if its client is away; None: there is none.

        Whoever connects waits, and it does not expire meanwhile. But a client that is connected may
        leave at any time. Raises StoreError; CommandRefused: its client is at another broker.
        """
        async with self.lock(client_id):
            self.arrived(await self.ownership.bring(client_id), now)
            owner, expires_at = self.owners.get(client_id), self.kept.get(client_id)
            if owner is not None:
                session = self.in_memory.get(client_id)
                yield None if session is None else (session, owner)
            elif expires_at is None:
                yield None
            else:
                self.kept.set(client_id, NEVER)
                self.owners[client_id] = OPERATOR
                try:
                    session = await self.find(client_id)
                    yield None if session is None else (session, OPERATOR)
                finally:
                    del self.owners[client_id]
                    if client_id in self.kept:
                        self._expire_at(client_id, expires_at)
                        if client_id in self.in_memory:
                            self._save(self.in_memory[client_id])
                        if is_shared(client_id):
                            self.absent_groups.closed(client_id)

    async def add(
        self, document: SessionDocument, state: Sequence[Operation], now: Instant
    ) -> None:
        """Store a new session, which nobody is connected to. Raises QuotaExceeded, StoreError."""
        self.kept.refuse_if_full(client_id := document.client_id, document.user)
        expires_at = _expires_at(document.session_expiry_s, now)
        document.expires_at_us = self._log.time.served_at(expires_at)
        new = [Put(document), *self.ownership.claim(client_id), *state]
        await self._log.commit_now(new, keep_if_full=False)
        self.kept.found(client_id, document.user, expires_at)
        self._deadline_moved()

    def end(self, client_id: str, now: Instant, ended: OnCommitted | None = None) -> None:
        """End an absent session. `ended` is called when that is stored."""
        self.kept.remove(client_id)
        self._log.append([], ended, operations=[Delete(SessionDocument, (client_id,))])
        self.absent_ended(client_id, now)
        if not is_shared(client_id):
            self.absent_groups.sessions_ended()

    def nobody_gets(self, messages: Sequence[Message]) -> Collection[str]:
        """The topics of `messages` that certainly nobody is subscribed to.

        The subscriptions of absent sessions are not in memory. So while any absent session may have
        one, no topic is returned.
        """
        if self.absent_may_subscribe:
            return ()
        topics = {message.topic for message in messages}
        return {topic for topic in topics if not self._delivery.is_wanted(topic)}

    def absent_ended(self, client_id: str, now: Instant) -> None:
        """It is over; that is being stored."""
        self.kept.is_not_absent(client_id)
        self._forget(client_id)
        self.wills.session_ended(client_id, now)

    def _expire_at(self, client_id: str, expires_at: Monotonic) -> None:
        self.kept.set(client_id, expires_at)
        self._deadline_moved()

    async def find(self, client_id: str) -> Session | None:
        """The session from memory, or from the log; None if there is none."""
        session = self.in_memory.get(client_id)
        if session is not None and session.ended:
            # It failed: the log counts, not memory. The last that the log has may be in a commit.
            await self._log.commit_now([], keep_if_full=False)
            self.in_memory.pop(client_id, None)
            session = None
        if session is not None or client_id not in self.kept:
            return session
        inflight_max, gaps = self._config.inflight_max, self.kept.gaps_of(client_id)
        session = await load(self._log.store, client_id, inflight_max=inflight_max, gaps=gaps)
        if session is not None and gaps is None:
            await tell_again(self._log.store, session)
        return session

    def _new(self, client_id: str, created_at_us: int) -> Session:
        start, most = self._log.high_watermark, self._config.inflight_max
        return Session(client_id, created_at_us=created_at_us, start=start, inflight_max=most)

    def _forget(self, client_id: str) -> None:
        """The session is over."""
        session = self.in_memory.pop(client_id, None)
        if session is not None:
            session.end()


def _expires_at(session_expiry_s: int, now: Instant) -> Monotonic:
    return NEVER if session_expiry_s == SESSION_EXPIRY_NEVER else now.after(session_expiry_s)
