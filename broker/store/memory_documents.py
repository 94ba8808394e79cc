"""The documents of a store in memory: a dict, and what operations make of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from broker.documents import (
    CursorDocument,
    Delete,
    Document,
    InFlightDocument,
    Key,
    Operation,
    OwnerDocument,
    Put,
    ReceivedQos2Document,
    SessionDocument,
    SubscriptionDocument,
)
from broker.documents.queues import (
    DeadLetterDocument,
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
    RetryDocument,
)
from broker.errors import StoreConflict
from broker.message import Offset

OF_A_SESSION = (
    *(SubscriptionDocument, CursorDocument, InFlightDocument, ReceivedQos2Document),
    *(GroupDocument, RetryDocument, OwnerDocument),
    *(MemberDocument, LoanDocument, ReportDocument),
)
"""Documents that need their client's SessionDocument, and go with it."""

Documents = dict[tuple[type[Document], Key], tuple[Document, int]]
"""Documents and their revisions, by class and key."""


def applied(documents: Documents, operations: Sequence[Operation]) -> Documents:
    """The documents after the operations; the old ones stay as they were. Raises StoreConflict."""
    if not operations:
        return documents
    after = dict(documents)
    for operation in operations:
        match operation:
            case Put(document, revision):
                _put(after, document, revision)
            case Delete(kind, key, revision):
                _compare(after, kind, key, revision)
                kinds: tuple[Any, ...] = (kind,)
                if kind is SessionDocument:
                    kinds += OF_A_SESSION
                for of, found in [*after]:
                    if of in kinds and found[: len(key)] == key:
                        del after[of, found]
    return after


def _put(documents: Documents, document: Document, revision: int | None) -> None:
    key = tuple(getattr(document, name) for name in document.KEY)
    if isinstance(document, OF_A_SESSION) and (SessionDocument, key[:1]) not in documents:
        raise StoreConflict(f"{type(document).__name__} without its SessionDocument")
    found = _compare(documents, type(document), key, revision)
    documents[type(document), key] = (replace(document), found + 1)


def _compare(documents: Documents, kind: type[Document], key: Key, revision: int | None) -> int:
    """The revision that is there. Raises StoreConflict: another was expected."""
    _, found = documents.get((kind, key), (None, 0))
    if revision is not None and revision != found:
        raise StoreConflict(f"{kind.__name__}: revision {found}, not {revision}")
    return found


def held(documents: Documents) -> set[Offset]:
    """The messages that documents point at. (S12)"""
    found = [document for document, _ in documents.values()]
    return {d.offset for d in found if isinstance(d, DeadLetterDocument | RetryDocument)}
