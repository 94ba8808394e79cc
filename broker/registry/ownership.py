"""Ownership: which broker has a session, where several share a log.

A session is one broker's: of the one that its client connected to last. That broker alone changes
it, ends it when it expires, and publishes its will. Who connects elsewhere takes it along: that is
one append, and from there on nothing counts that the former owner appends of the session.

A session that ends with its connection is stored, too, and so is whose it is: else nobody would
hear that its client has connected elsewhere. A group goes to another broker only while it has no
member: meanwhile workers elsewhere have what this broker leases them (`lending`, `borrowing`).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from broker.clock import Clock
from broker.documents import (
    D,
    Operation,
    OwnerDocument,
    Put,
    SessionDocument,
    WillDeadlineDocument,
)
from broker.errors import CommandRefused, QuotaExceeded, StoreConflict, StoreUnavailable
from broker.log.log import Log
from broker.session.session import Session
from broker.session.tally import Tally
from broker.store import Store
from broker.store.shared.cluster import ClusterStore
from broker.topics import is_shared

T = TypeVar("T")
P = ParamSpec("P")
Owns = TypeVar("Owns", bound="Owning")

OPEN_TRIES = 5
TAKE_TIMEOUT_S = 10.0
"""How long others may be quicker."""


@dataclass(slots=True, frozen=True)
class Taken:
    """A session that was another broker's, and the will that its client has left. `cut_off`: by the
    end of that broker, so that it may come back."""

    document: SessionDocument
    will: WillDeadlineDocument | None
    cut_off: bool

    @property
    def has_ended(self) -> bool:
        """With its connection."""
        return not self.document.session_expiry_s


class AtAnotherBroker(QuotaExceeded):
    """A group has members at another broker."""


class KnownWills(Protocol):
    def has(self, client_id: str) -> bool:
        """Whether a will of the client is here, and will be dealt with."""
        ...


class Ownership(Protocol):
    others_may_subscribe: bool
    """Whether there may be subscriptions that this broker knows nothing of."""

    @property
    def broker_id(self) -> str: ...

    def lives(self, broker_id: str) -> bool:
        """Whether this broker is not known to be dead."""
        ...

    def begin(self, log: Log, wills: KnownWills) -> None:
        """It is for the broker that has these."""
        ...

    async def inherited(self, kind: type[D]) -> list[D]:
        """What an earlier run left to this one. Raises StoreError."""
        ...

    async def take(self, client_id: str, user: str) -> list[Taken]:
        """Let a session that is not here be here; none: there is none. Raises StoreError;
        NotAuthorized: it is not `user`'s; AtAnotherBroker: it is a group with members there."""
        ...

    async def hear(self) -> None:
        """Return when all is known that others have done before. Raises StoreError."""
        ...

    async def is_elsewhere(self, client_id: str) -> bool:
        """Whether another broker has the session. Raises StoreError."""
        ...

    async def bring(self, client_id: str) -> list[Taken]:
        """Let a session that nobody is connected to be here. Raises StoreError; CommandRefused: its
        client is connected to another broker."""
        ...

    def keeps(self, session: Session) -> bool:
        """Whether the session is stored."""
        ...

    def claim(self, client_id: str) -> list[Operation]:
        """What to store with a new session."""
        ...


class Owning(Protocol):
    """Whoever has sessions, or takes them."""

    ownership: Ownership


def until_heard(
    opening: Callable[Concatenate[Owns, P], Awaitable[T]],
) -> Callable[Concatenate[Owns, P], Coroutine[Any, Any, T]]:
    """Open a session again where another broker has taken it, and that was not heard of yet. Raises
    what `opening` raises: StoreConflict, if others are quicker OPEN_TRIES times."""

    @wraps(opening)
    async def opened(sessions: Owns, /, *args: P.args, **kwargs: P.kwargs) -> T:
        for _ in range(OPEN_TRIES - 1):
            try:
                return await opening(sessions, *args, **kwargs)
            except StoreConflict:
                await sessions.ownership.hear()
        return await opening(sessions, *args, **kwargs)

    return opened


class Alone:
    """Of a broker that has its log for itself."""

    others_may_subscribe = False
    broker_id = ""

    def __init__(self, store: Store) -> None:
        self._store = store

    def begin(self, log: Log, wills: KnownWills) -> None:
        return

    def lives(self, broker_id: str) -> bool:
        return not broker_id

    async def inherited(self, kind: type[D]) -> list[D]:
        return await self._store.scan(kind)

    async def take(self, client_id: str, user: str) -> list[Taken]:
        return []

    async def hear(self) -> None:
        return

    async def is_elsewhere(self, client_id: str) -> bool:
        return False

    async def bring(self, client_id: str) -> list[Taken]:
        return []

    def keeps(self, session: Session) -> bool:
        return session.durable

    def claim(self, client_id: str) -> list[Operation]:
        return []


class Shared:
    """Of one of several brokers."""

    others_may_subscribe = True

    def __init__(self, store: ClusterStore, clock: Clock) -> None:
        self._store = store
        self._clock = clock

    def begin(self, log: Log, wills: KnownWills) -> None:
        self._log = log
        self._wills = wills

    @property
    def broker_id(self) -> str:
        return self._store.broker_id

    def lives(self, broker_id: str) -> bool:
        return broker_id == self._store.broker_id or broker_id in self._store.others

    async def inherited(self, kind: type[D]) -> list[D]:
        """Nothing: each run is another broker, and takes up what the dead have left."""
        return []

    async def take(self, client_id: str, user: str) -> list[Taken]:
        deadline = self._clock.monotonic() + TAKE_TIMEOUT_S
        while True:
            claim = await self._claim(client_id, user)
            if claim is None:
                return []
            operations, cut_off = claim
            try:
                await self._store.transact(operations)
            except StoreConflict as error:
                if self._clock.monotonic() > deadline:
                    raise StoreUnavailable(f"others take {client_id!r} as well") from error
                await self._store.current()
            else:
                if (taken := await self._found(client_id, cut_off=cut_off)) is None:
                    raise StoreUnavailable(f"{client_id!r} is taken already")
                return [taken]

    async def take_left(self, client_ids: Sequence[str]) -> list[Taken]:
        """Of these, what dead brokers have left, and nobody has taken meanwhile. Raises
        StoreError."""
        claims = [(each, await self._claim(each, "", left=True)) for each in client_ids]
        there = [(client_id, claim[0]) for client_id, claim in claims if claim is not None]
        if not there:
            return []
        try:
            await self._store.transact([one for _, claim in there for one in claim])
        except StoreConflict:
            ours: list[str] = []
            for client_id, claim in there:
                with suppress(StoreConflict):
                    await self._store.transact(claim)
                    ours.append(client_id)
        else:
            ours = [client_id for client_id, _ in there]
        found = [await self._found(client_id, cut_off=True) for client_id in ours]
        return [taken for taken in found if taken is not None]

    async def hear(self) -> None:
        await self._store.sync()

    async def is_elsewhere(self, client_id: str) -> bool:
        owner = await self._store.get(OwnerDocument, (client_id,))
        return owner is not None and owner.broker != self._store.broker_id

    async def bring(self, client_id: str) -> list[Taken]:
        store, key = self._store, (client_id,)
        await store.sync()
        owner = await store.get(OwnerDocument, key)
        document = await store.get(SessionDocument, key)
        if owner is None or document is None or owner.broker == store.broker_id:
            return []
        stays = document.expires_at_us is None or is_shared(client_id)
        if stays and owner.broker in store.others:
            raise CommandRefused(
                f"{client_id} is at broker {store.where(owner.broker)}", "give the command there"
            )
        return await self.take(client_id, "")

    def keeps(self, session: Session) -> bool:
        return True

    def claim(self, client_id: str) -> list[Operation]:
        return [Put(OwnerDocument(client_id, self._store.broker_id, 1))]

    async def _claim(
        self, client_id: str, user: str, *, left: bool = False, settled: bool = False
    ) -> tuple[list[Operation], bool] | None:
        """What takes it, if nothing has changed until then, and whether its broker is dead; None:
        there is nothing to take. `left`: from a living broker nothing is taken.

        A session that is not here may be ours: the answer was lost when it was taken or made."""
        store, key = self._store, (client_id,)
        revisions = [await store.revision(kind, key) for kind in (OwnerDocument, SessionDocument)]
        document = await store.get(SessionDocument, key)
        owner = await store.get(OwnerDocument, key)
        will = await store.get(WillDeadlineDocument, key)
        living = owner is not None and owner.broker in store.others
        ours = owner is not None and owner.broker == store.broker_id
        if living and left:
            return None
        if document is None and (ours or will is None or self._wills.has(client_id)):
            return None
        if (document is None or ours) and not settled:
            # What is on its way into the log may publish the will, or end the session.
            await self._log.commit_now([], keep_if_full=False)
            return await self._claim(client_id, user, left=left, settled=True)
        operations: list[Operation] = []
        if document is None:
            # What its session has left: whoever has made a session first, publishes it.
            document = SessionDocument(client_id, 0, self._clock.wall_us(), None)
            operations.append(Put(document, 0))
        elif user:
            Tally(document.created_at_us, user=document.user).refuse_another(user)
        epoch = 1 if owner is None else owner.epoch + 1
        operations.append(Put(OwnerDocument(client_id, store.broker_id, epoch), revisions[0]))
        if is_shared(client_id):
            if living and document.expires_at_us is None:
                raise AtAnotherBroker(
                    f"{client_id} has members at another broker: give the command there"
                )
            operations.append(Put(replace(document, expires_at_us=None), revisions[1]))
        return operations, not living

    async def _found(self, client_id: str, *, cut_off: bool) -> Taken | None:
        """What was taken; None: others were quick to take it again, and have ended it."""
        document = await self._store.get(SessionDocument, (client_id,))
        if document is None:
            return None
        will = await self._store.get(WillDeadlineDocument, (client_id,))
        return Taken(document, will, cut_off)
