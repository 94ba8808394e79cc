"""Owners: whose each session is, in a log that brokers share, and who may change what of it.

All brokers come to the same here: it is decided by what comes before in the log alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from broker.documents import (
    CursorDocument,
    InFlightDocument,
    Operation,
    OwnerDocument,
    Put,
    ReceivedQos2Document,
    SessionDocument,
    SubscriptionDocument,
    WillDeadlineDocument,
    WillDocument,
)
from broker.documents.queues import (
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
    RetryDocument,
)
from broker.store import Store

KNOWN_MAX, KNOWN_LENGTH_MAX = 100_000, 8 << 20
"""Sessions whose owner is remembered, and their characters. All are forgotten when it is more."""

OF_A_SESSION = (
    *(SubscriptionDocument, CursorDocument, InFlightDocument, ReceivedQos2Document),
    *(GroupDocument, RetryDocument, LoanDocument),
)
"""Documents that only the broker that has their session changes ..."""

OF_A_CLIENT = (WillDocument, WillDeadlineDocument)
"""... if there is a session: these may outlive it."""

OF_WORKERS = (MemberDocument, ReportDocument)
"""What any broker tells the one that has the session of a group, if there is one."""

NOBODY = ""
"""The owner of a session that no broker has."""

OwnerOf = dict[str, str | None]
"""By client identifier; None: there is no such session."""


class Owners:
    """What is not known of them is in the `copy`."""

    def __init__(self, copy: Store) -> None:
        self._copy = copy
        self._known: OwnerOf = {}
        self._length = 0
        """Characters of what is known, or more."""

    def changed(self, after: Mapping[str, str | None]) -> None:
        """These have them from here on."""
        self._known |= after
        self._length += sum(map(len, after))

    def are_in_copy(self) -> None:
        """The copy has all that has changed: so it may be forgotten."""
        if len(self._known) > KNOWN_MAX or self._length > KNOWN_LENGTH_MAX:
            self._known.clear()
            self._length = 0

    async def strangers(
        self, operations: Sequence[Operation], writer: str, after: OwnerOf
    ) -> set[str]:
        """Whose sessions this broker may not change. `after`: is told who has them after it."""
        strangers: set[str] = set()
        for operation in operations:
            if isinstance(operation, Put):
                kind, document = type(operation.document), operation.document
                client_id = getattr(document, "client_id", None)
            else:
                kind, document = operation.kind, None
                client_id = operation.key[0] if operation.key else None
            if client_id is None:
                continue
            if kind is SessionDocument:
                owner = await self._owner(client_id, after)
                if owner not in (None, NOBODY, writer) and operation.revision is None:
                    strangers.add(client_id)
                after[client_id] = (owner or NOBODY) if document is not None else None
            elif kind is OwnerDocument:
                owner = await self._owner(client_id, after)
                taken = owner not in (NOBODY, writer) and operation.revision is None
                if owner is None or taken:
                    strangers.add(client_id)
                else:
                    after[client_id] = getattr(document, "broker", NOBODY)
            elif kind in OF_A_SESSION:
                owner = await self._owner(client_id, after)
                if owner not in (NOBODY, writer) and not (owner is None and document is None):
                    strangers.add(client_id)
            elif kind in OF_WORKERS:
                if document is not None and await self._owner(client_id, after) is None:
                    strangers.add(client_id)
            elif kind in OF_A_CLIENT:
                owner = await self._owner(client_id, after)
                if owner not in (None, NOBODY, writer):
                    strangers.add(client_id)
        return strangers

    async def _owner(self, client_id: str, after: OwnerOf) -> str | None:
        for known in (after, self._known):
            if client_id in known:
                return known[client_id]
        found: str | None = None
        if await self._copy.get(SessionDocument, (client_id,)) is not None:
            owner = await self._copy.get(OwnerDocument, (client_id,))
            found = NOBODY if owner is None else owner.broker
        self.changed({client_id: found})
        return found
