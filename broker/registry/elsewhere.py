"""Elsewhere: what other brokers that share the log have changed, and what that is to us.

A client whose session another broker has now is told so, and let go of. Users, rules and quotas
are in force everywhere, and so are keys of messages that are to be stored once. Of a group with
workers at several brokers, each hears what concerns its own (`lending`, `borrowing`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from broker.documents import (
    DedupDocument,
    Delete,
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
from broker.log.dedup import Dedup
from broker.log.log import Log
from broker.registry.groups.groups import Groups
from broker.registry.sessions import Sessions
from broker.store.shared.cluster import ClusterStore
from broker.topics import is_shared

OF_ACCOUNTS = (UserDocument, RuleDocument, QuotaDocument)


class Account(Protocol):
    """Users, rules or quotas, in memory."""

    async def read_again(self) -> None:
        """Raises StoreError."""
        ...


class Elsewhere:
    def __init__(
        self,
        store: ClusterStore,
        log: Log,
        sessions: Sessions,
        groups: Groups,
        dedup: Dedup,
        *accounts: Account,
    ) -> None:
        """`accounts` in the order in which they are read."""
        self._store = store
        self._sessions = sessions
        self._groups = groups
        self._created = groups.created
        self._dedup = dedup
        self._accounts = accounts
        self._accounts_changed = asyncio.Event()
        log.sessions_lost = sessions.lost
        log.qos0.log_first()
        groups.dead_letters.is_ours = sessions.kept.__contains__
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
                case UserDocument() | RuleDocument() | QuotaDocument():
                    self._accounts_changed.set()
        if lost:
            self._sessions.lost(lost)
        if left:
            self._sessions.absent_groups.sessions_ended()

    def _removed(self, operation: Delete) -> None:
        if operation.kind in OF_ACCOUNTS:
            self._accounts_changed.set()
        elif operation.kind in (GroupDocument, SessionDocument) and operation.key:
            name = str(operation.key[0])
            self._created.pop(name, None)
            if operation.kind is SessionDocument and is_shared(name):
                self._groups.borrowing.ended(name)
        elif operation.kind is DedupDocument:
            self._dedup.removed(str(operation.key[0]))

    async def read_accounts_forever(self) -> None:
        """Until cancelled. Raises StoreError."""
        while True:
            await self._accounts_changed.wait()
            self._accounts_changed.clear()
            for account in self._accounts:
                await account.read_again()


def _may_be_last(operation: Delete) -> bool:
    """Whether a group of ours that has no member may have no subscriber any more, and end."""
    if operation.kind is SubscriptionDocument:
        return len(operation.key) < 2 or is_shared(str(operation.key[1]))
    return operation.kind is SessionDocument
