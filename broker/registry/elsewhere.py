"""Elsewhere: what other brokers that share the log have changed, and what that is to us.

A client whose session another broker has now is told so, and let go of. Users, rules and quotas
are in force everywhere, and so are keys of messages that are to be stored once. Of a group with
workers at several brokers, each hears what concerns its own (`lending`, `borrowing`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from broker.clock import Clock
from broker.documents import (
    DedupDocument,
    Delete,
    Document,
    Key,
    Operation,
    OwnerDocument,
    RuleDocument,
    SessionDocument,
    SubscriptionDocument,
    UserDocument,
)
from broker.documents.queues import (
    DeadNoticeDocument,
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
)
from broker.documents.quotas import QuotaDocument
from broker.errors import StoreError, StoreUnavailable
from broker.log.dedup import Dedup
from broker.log.log import Log
from broker.registry.access.permissions import Permissions
from broker.registry.access.quotas import Quotas
from broker.registry.access.users import Users
from broker.registry.groups.groups import Groups
from broker.registry.sessions import Sessions
from broker.store.shared.cluster import ClusterStore
from broker.topics import is_shared

OF_ACCOUNTS = (UserDocument, RuleDocument, QuotaDocument)
RETRY_S = 1.0

logger = logging.getLogger(__name__)


class Accounts:
    """Users, rules and quotas that others have changed, and that are not read again yet."""

    def __init__(self, users: Users, permissions: Permissions, quotas: Quotas) -> None:
        self._users, self._permissions, self._quotas = users, permissions, quotas
        self.changed = asyncio.Event()
        self._names: set[str] = set()
        """Of the users."""
        self._kinds: set[type[Document]] = set()
        """Rules, quotas, or both: all of these."""

    def note(self, kind: type[Document], key: Key) -> None:
        if kind is UserDocument:
            self._names.add(str(key[0]))
        else:
            self._kinds.add(kind)
        self.changed.set()

    async def read(self) -> None:
        """Raises StoreError: what was not read is still to be."""
        self.changed.clear()
        names, kinds = {*self._names}, {*self._kinds}
        self._names.clear()
        self._kinds.clear()
        try:
            if names:
                await self._users.read_again(names)
                names.clear()
            for kind, account in (
                (RuleDocument, self._permissions),
                (QuotaDocument, self._quotas),
            ):
                if kind in kinds:
                    await account.read_again()
                    kinds.remove(kind)
        except StoreError:
            self._names |= names
            self._kinds |= kinds
            self.changed.set()
            raise


class Elsewhere:
    def __init__(
        self,
        store: ClusterStore,
        log: Log,
        sessions: Sessions,
        groups: Groups,
        dedup: Dedup,
        accounts: Accounts,
        clock: Clock,
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._groups = groups
        self._created = groups.created
        self._dedup = dedup
        self._accounts = accounts
        self._clock = clock
        log.sessions_lost = sessions.lost
        log.qos0.log_first()
        groups.dead_letters.is_ours = sessions.kept.__contains__
        groups.dead_letters.forgets = lambda: store.is_first
        dedup.removes = lambda: store.is_first
        store.changed_elsewhere = self.changed

    def changed(self, operations: Sequence[Operation]) -> None:
        """Others have changed this, and it is in the copy."""
        lost: list[str] = []
        left = False
        for operation in operations:
            if isinstance(operation, Delete):
                self._removed(operation)
                left |= _may_be_last(operation)
                continue
            match operation.document:
                case OwnerDocument() as owner if owner.broker != self._store.broker_id:
                    lost.append(owner.client_id)
                case GroupDocument() as group:
                    self._created[group.client_id] = group
                case MemberDocument() | ReportDocument() as said:
                    self._groups.lending.heard(said)
                case LoanDocument() as loan if loan.broker == self._store.broker_id:
                    self._groups.borrowing.lent(loan)
                case DeadNoticeDocument():
                    self._groups.dead_letters.look()
                case DedupDocument() as key:
                    self._dedup.heard(key)
                case UserDocument() | RuleDocument() | QuotaDocument() as document:
                    self._accounts.note(type(document), (document.name,))
        if lost:
            self._sessions.lost(lost)
        if left:
            self._sessions.absent_groups.sessions_ended()

    def _removed(self, operation: Delete) -> None:
        if operation.kind in OF_ACCOUNTS:
            self._accounts.note(operation.kind, operation.key)
        elif operation.kind in (GroupDocument, SessionDocument) and operation.key:
            name = str(operation.key[0])
            self._created.pop(name, None)
            if operation.kind is SessionDocument and is_shared(name):
                self._groups.borrowing.ended(name)
        elif operation.kind is DedupDocument:
            self._dedup.removed(str(operation.key[0]))

    async def read_accounts_forever(self) -> None:
        """Until cancelled. Raises StoreError: the log has ended."""
        while True:
            await self._accounts.changed.wait()
            try:
                await self._accounts.read()
            except StoreUnavailable as error:
                if self._store.failure is not None:
                    raise
                logger.warning("what other brokers changed of users is read later: %s", error)
                await self._clock.sleep(RETRY_S)


def _may_be_last(operation: Delete) -> bool:
    """Whether a group of ours that has no member may have no subscriber any more, and end."""
    if operation.kind is SubscriptionDocument:
        return len(operation.key) < 2 or is_shared(str(operation.key[1]))
    return operation.kind is SessionDocument
