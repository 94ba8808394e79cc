"""Refused: what of a commit fails, and does not wait for the next, when the store did not take it.

Where several brokers share a log, one that has lost a session hears of that with its next commit,
at the latest. What is of the session does not count then, and the rest is committed without it. So
is a message with a key that another broker has stored.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from broker.documents import DedupDocument, Operation, Put
from broker.errors import StoreBusy, StoreConflict, StoreFull
from broker.log.batch import Append, Batch

CLIENT = "client_id"
"""The first field of the key of whatever belongs to a session."""

SessionsLost = Callable[[Collection[str]], None]
"""Called with the client identifiers whose sessions another broker has now. Raises nothing."""


def nobody_has_any(client_ids: Collection[str]) -> None:
    raise AssertionError(f"who else could have the sessions of {client_ids}?")


def concerns(batch: Batch, error: StoreConflict) -> bool:
    """Whether anything of the batch is at fault; else it would be refused again, for ever."""
    return (
        any(source.client_id in error.of for source in batch.sources)
        or any(is_of(append, error.of) for append in batch.appends)
        or any(_repeats(append, error.keys) for append in batch.appends)
    )


def take_refused(batch: Batch, error: StoreFull | StoreBusy | StoreConflict) -> list[Append]:
    """Take it out of the batch."""
    if isinstance(error, StoreConflict):
        of = error.of
        _leave_out_repeats(batch, error.keys)
        for source in [source for source in batch.sources if source.client_id in of]:
            del batch.sources[source]
        return batch.take_out(lambda append: is_of(append, of))
    locked = isinstance(error, StoreBusy)
    return batch.take_out(lambda a: not (a.keep_if_full or (locked and a.messages)))


def _leave_out_repeats(batch: Batch, keys: Collection[str]) -> None:
    """Another broker has stored the messages with these keys. Whoever sent them once more hears of
    the next commit, in its order, as if that had been known before."""
    for append in batch.appends if keys else ():
        if _repeats(append, keys):
            append.messages, append.operations, append.place = (), (), None


def _repeats(append: Append, keys: Collection[str]) -> bool:
    return any(_takes(operation, keys) for operation in append.operations)


def _takes(operation: Operation, keys: Collection[str]) -> bool:
    document = operation.document if isinstance(operation, Put) else None
    return isinstance(document, DedupDocument) and document.digest in keys


def is_of(append: Append, of: Collection[str]) -> bool:
    """Also messages alone, that one of these clients has sent: it sends them again, elsewhere."""
    if any(_client_of(operation) in of for operation in append.operations):
        return True
    if append.source is not None:
        return append.source.client_id in of
    return not append.operations and bool(append.messages) and append.messages[0].publisher in of


def _client_of(operation: Operation) -> str | None:
    """Whose session it changes."""
    if isinstance(operation, Put):
        return getattr(operation.document, CLIENT, None)
    return str(operation.key[0]) if operation.key and operation.kind.KEY[0] == CLIENT else None
