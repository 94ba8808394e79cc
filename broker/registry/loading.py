"""Loading: makes a session of what the log keeps of it, and stores that it is open."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Protocol

from broker.delivery.routes import parts_by_work
from broker.documents import (
    CursorDocument,
    Document,
    InFlightDocument,
    Operation,
    ReceivedQos2Document,
    SessionDocument,
    SubscriptionDocument,
)
from broker.errors import StoreFull
from broker.log.log import Log
from broker.message import Message, Offset, ServedUs
from broker.session.gaps import Gaps
from broker.session.session import Session
from broker.session.tally import Tally
from broker.store import Store

SESSION_STATE = (
    SessionDocument,
    CursorDocument,
    InFlightDocument,
    ReceivedQos2Document,
    SubscriptionDocument,
)
"""What is stored of a session, and read in one call. Subscriptions come last: there may be many."""


class Documents(Protocol):
    """A log, or what reads one."""

    @property
    def high_watermark(self) -> Offset: ...

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        """As `Store.scan_together`."""
        ...


async def load(
    store: Documents, client_id: str, *, inflight_max: int, gaps: Gaps | None = None
) -> Session | None:
    """The session as it was last committed; None if there is none. `gaps`: of its last connection.
    Raises StoreError."""
    document: SessionDocument | None = None
    cursor: CursorDocument | None = None
    pages: list[InFlightDocument] = []
    received: ReceivedQos2Document | None = None
    state = await store.scan_together(SESSION_STATE, (client_id,))
    subscriptions = [found for found in state if isinstance(found, SubscriptionDocument)]
    for found in state[: len(state) - len(subscriptions)]:
        match found:
            case SessionDocument():
                document = found
            case CursorDocument():
                cursor = found
            case InFlightDocument():
                pages.append(found)
            case ReceivedQos2Document():
                received = found
    if document is None:
        return None
    session = Session(
        client_id,
        created_at_us=document.created_at_us,
        start=store.high_watermark,
        inflight_max=inflight_max,
        gaps=gaps,
        tally=Tally(
            document.created_at_us,
            document.last_seen_us,
            document.redelivered,
            document.missed,
            document.user,
        ),
    )
    session.set_expiry(document.session_expiry_s)
    session.restore(cursor, pages, received)
    for part in parts_by_work(subscriptions, attrgetter("filter")):
        for subscription in part:
            session.subscribe(subscription)
        await asyncio.sleep(0)
    return session


async def refuse_another(
    store: Store, client_id: str, in_memory: Mapping[str, Session], user: str
) -> None:
    """Raises NotAuthorized: the session, in memory or stored, is not this user's; StoreError."""
    if (session := in_memory.get(client_id)) is not None:
        session.tally.refuse_another(user)
    elif (document := await store.get(SessionDocument, (client_id,))) is not None:
        Tally(document.created_at_us, user=document.user).refuse_another(user)


def document_of(session: Session, *, expires_at_us: ServedUs | None) -> SessionDocument:
    tally = session.tally
    return SessionDocument(
        session.client_id,
        session.session_expiry_s,
        tally.created_at_us,
        expires_at_us,
        tally.last_seen_us,
        tally.redelivered,
        tally.missed,
        tally.user,
    )


async def commit_opening(
    log: Log, state: Sequence[Operation], messages: Sequence[Message], *, may_wait: bool
) -> None:
    """Return when it is durable that a session is open. Raises StoreError.

    `may_wait`: it was there before and goes on. If the disk is full, that is stored later: whoever
    comes for what it missed needs no room. Until then a crash leaves its old deadline.
    """
    try:
        await log.commit_now(state, messages, keep_if_full=False)
    except StoreFull:
        if messages or not may_wait:
            raise
        log.append([], operations=state)
