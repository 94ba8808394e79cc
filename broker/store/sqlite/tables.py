"""Documents as rows: the table, the columns and the statements of each document class.

They follow from the dataclass: its fields are the columns, and its `KEY` names the leading ones,
which are the primary key. Every table also has a column `revision`.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import fields
from functools import cache
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from broker.documents import (
    CopyDocument,
    CursorDocument,
    DedupDocument,
    DelayedDeadlineDocument,
    DelayedDocument,
    Delete,
    Document,
    InFlightDocument,
    Key,
    MarkDocument,
    Operation,
    OwnerDocument,
    Put,
    ReceivedQos2Document,
    RuleDocument,
    SessionDocument,
    SubscriptionDocument,
    TimeDocument,
    UserDocument,
    WillDeadlineDocument,
    WillDocument,
    WriterDocument,
)
from broker.documents.queues import (
    DeadLetterDocument,
    DeadNoticeDocument,
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
    RetryDocument,
)
from broker.documents.quotas import QuotaDocument, RetainedByDocument
from broker.errors import StoreBusy, StoreConflict, StoreFull
from broker.store.sqlite.errors import store_error
from broker.store.sqlite.rows import insert_rows
from broker.topics import SHARE_PREFIX

SELECTED_AT_ONCE_MAX = 1000
"""Documents that one `select` reads: about 5 ms."""


class Table:
    """The table `name`: it keeps the documents of class `kind`."""

    def __init__(self, kind: type[Document], name: str) -> None:
        columns = [field.name for field in fields(kind)]
        listed = ", ".join(columns)
        changes = ", ".join(f"{column} = excluded.{column}" for column in columns)
        self.kind = kind
        self.values = attrgetter(*columns)
        self.key = attrgetter(*kind.KEY)
        self.width = len(columns)
        self.insert = f"INSERT INTO {name} ({listed}, revision) VALUES "
        self.row = f"({'?, ' * len(columns)}1)"
        self.on_conflict = (
            f" ON CONFLICT ({', '.join(kind.KEY)}) DO UPDATE SET {changes}, revision = revision + 1"
        )
        self._name = name
        self._columns = listed
        self._booleans = [i for i, field in enumerate(fields(kind)) if field.type == "bool"]

    def select(self, number: int, width: int, key_length: int, *, goes_on: bool = False) -> str:
        """A part of a compound SELECT: `number`, then the columns, then NULLs up to `width`.
        `goes_on`: of the rows after a key, which begins as all of them do. What they have in common
        is not compared again: SQLite would look through all of them from the first on."""
        nulls = ", NULL" * (width - self.width)
        where = self._where(key_length)
        if goes_on:
            rest = self.kind.KEY[key_length:]
            marks = ", ".join("?" * len(rest))
            where += f"{' AND' if where else ' WHERE'} ({', '.join(rest)}) > ({marks})"
        return f"SELECT {number}, {self._columns}{nulls} FROM {self._name}{where}"

    def document(self, row: Sequence[Any]) -> Document:
        """The document in a row of such a SELECT."""
        values = list(row[1 : self.width + 1])
        for i in self._booleans:
            values[i] = values[i] != 0
        return self.kind(*values)

    def revision(self, connection: sqlite3.Connection, key: Key) -> int:
        sql = f"SELECT revision FROM {self._name}{self._where(len(key))}"
        row = connection.execute(sql, key).fetchone()
        return row[0] if row else 0

    def delete(self, connection: sqlite3.Connection, key: Key) -> None:
        connection.execute(f"DELETE FROM {self._name}{self._where(len(key))}", key)

    def _where(self, key_length: int) -> str:
        conditions = [f"{column} = ?" for column in self.kind.KEY[:key_length]]
        return f" WHERE {' AND '.join(conditions)}" if conditions else ""


TABLES: dict[type[Document], Table] = {
    SessionDocument: Table(SessionDocument, "sessions"),
    SubscriptionDocument: Table(SubscriptionDocument, "subscriptions"),
    CursorDocument: Table(CursorDocument, "cursors"),
    InFlightDocument: Table(InFlightDocument, "in_flight"),
    ReceivedQos2Document: Table(ReceivedQos2Document, "received_qos2"),
    WillDocument: Table(WillDocument, "wills"),
    WillDeadlineDocument: Table(WillDeadlineDocument, "will_deadlines"),
    DelayedDocument: Table(DelayedDocument, "delayed"),
    DelayedDeadlineDocument: Table(DelayedDeadlineDocument, "delayed_deadlines"),
    DedupDocument: Table(DedupDocument, "dedup_keys"),
    GroupDocument: Table(GroupDocument, "group_settings"),
    RetryDocument: Table(RetryDocument, "retries"),
    DeadLetterDocument: Table(DeadLetterDocument, "dead_letters"),
    DeadNoticeDocument: Table(DeadNoticeDocument, "dead_notices"),
    TimeDocument: Table(TimeDocument, "log_time"),
    MarkDocument: Table(MarkDocument, "log_marks"),
    OwnerDocument: Table(OwnerDocument, "owners"),
    WriterDocument: Table(WriterDocument, "writers"),
    CopyDocument: Table(CopyDocument, "copies"),
    UserDocument: Table(UserDocument, "users"),
    RuleDocument: Table(RuleDocument, "rules"),
    QuotaDocument: Table(QuotaDocument, "quotas"),
    RetainedByDocument: Table(RetainedByDocument, "retained_by"),
    MemberDocument: Table(MemberDocument, "members_elsewhere"),
    LoanDocument: Table(LoanDocument, "loans"),
    ReportDocument: Table(ReportDocument, "loan_reports"),
}


def select(
    connection: sqlite3.Connection,
    kinds: Sequence[type[Document]],
    key: tuple[str, ...],
    after: Key | None = None,
) -> list[Any]:
    """The documents whose key begins with `key`, class by class, each in key order: of the first
    class those after the key `after`, which begins with `key`, and at most
    SELECTED_AT_ONCE_MAX.

    It is one statement, also for several classes: so they are read as of one moment.
    """
    tables = [TABLES[kind] for kind in kinds]
    parameters = [
        *key,
        *(after or ())[len(key) :],
        *(key * (len(tables) - 1)),
        SELECTED_AT_ONCE_MAX,
    ]
    rows = connection.execute(_select(tuple(kinds), len(key), after is not None), parameters)
    return [tables[row[0]].document(row) for row in rows]


def key_of(document: Document) -> Key:
    key = TABLES[type(document)].key(document)
    return key if isinstance(key, tuple) else (key,)


@cache
def _select(kinds: tuple[type[Document], ...], key_length: int, goes_on: bool) -> str:
    tables = [TABLES[kind] for kind in kinds]
    width = max(table.width for table in tables)
    parts = [
        table.select(number, width, key_length, goes_on=goes_on and not number)
        for number, table in enumerate(tables)
    ]
    # After the number come the columns of the key, of which there are one or two. Of one class they
    # are in the order of its index, so that a part costs no more than its rows.
    order = "1, 2, 3" if len(tables) > 1 else ", ".join(kinds[0].KEY)
    return f"{' UNION ALL '.join(parts)} ORDER BY {order} LIMIT ?"


_AFTER_SHARED = f"{SHARE_PREFIX[:-1]}{chr(ord(SHARE_PREFIX[-1]) + 1)}"
_HAS_SUBSCRIBER = f"""
EXISTS (
    SELECT 1 FROM subscriptions INDEXED BY subscriptions_shared
    WHERE filter = sessions.client_id AND filter >= '{SHARE_PREFIX}' AND filter < '{_AFTER_SHARED}'
)
"""


def without_subscriber(
    connection: sqlite3.Connection, names: Sequence[str]
) -> list[SessionDocument]:
    """As `Store.without_subscriber`: two steps in an index for each name."""
    sessions = TABLES[SessionDocument].select(0, 0, 0)
    rows = connection.execute(
        f"{sessions} WHERE client_id IN (SELECT value FROM json_each(?)) AND NOT {_HAS_SUBSCRIBER}",
        (json.dumps(names),),
    )
    return [SessionDocument(*row[1:]) for row in rows]


def apply(connection: sqlite3.Connection, operations: Sequence[Operation]) -> None:
    """Do the operations in their order, in the open transaction. Raises StoreConflict.

    Puts of one class that follow each other are one statement: many cursors move in every commit.
    """
    for kind, run in groupby(operations, _put_class):
        if kind is not None:
            _put(connection, TABLES[kind], [op.document for op in run if isinstance(op, Put)])
            continue
        for operation in run:
            if isinstance(operation, Delete):
                table = TABLES[operation.kind]
                _compare(connection, table, operation.key, operation.revision)
                table.delete(connection, operation.key)
            else:
                table, key = TABLES[type(operation.document)], key_of(operation.document)
                _compare(connection, table, key, operation.revision)
                _put(connection, table, [operation.document])


def _put_class(operation: Operation) -> type[Document] | None:
    """The class of an unconditional Put; None for the operations that are done one by one."""
    if isinstance(operation, Put) and operation.revision is None:
        return type(operation.document)
    return None


def _compare(connection: sqlite3.Connection, table: Table, key: Key, revision: int | None) -> None:
    """Raises StoreConflict: another revision is there than expected."""
    if revision is not None and (found := table.revision(connection, key)) != revision:
        raise StoreConflict(f"{table.kind.__name__} {key!r}: revision {found}, not {revision}")


def _put(connection: sqlite3.Connection, table: Table, documents: Sequence[Document]) -> None:
    parameters: list[Any] = []
    for document in documents:
        parameters.extend(table.values(document))
    try:
        insert_rows(connection, table.insert, table.row, table.on_conflict, table.width, parameters)
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY:
            raise
        raise StoreConflict(f"{table.kind.__name__} without its SessionDocument") from error


def touch(connection: sqlite3.Connection) -> None:
    """Change a page and change it back: a COMMIT without a changed page does not fsync."""
    for step in (1, -1):
        connection.execute("UPDATE log SET start = start + ?", (step,))


def checkpoint(connection: sqlite3.Connection, path: Path, mode: str) -> tuple[int, int]:
    """As `Writer.checkpoint`, on any connection that may write."""
    try:
        row = connection.execute(f"PRAGMA wal_checkpoint({mode})").fetchone()
    except sqlite3.OperationalError as error:
        if not isinstance(store_error(error, path), StoreFull | StoreBusy):
            raise
        return 0, 0
    _, pages, copied = row
    return pages, copied
