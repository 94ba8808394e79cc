"""SharedLog: what is asked of an engine that keeps one log for several brokers. Six calls.

The engine puts records into one order and knows nothing of what is in them: conditions, retries and
who owns what are decided by `follower.py`, at every broker alike. `memory_log.py` is for tests,
`jetstream.py` for use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from broker.errors import LogReplaced, StoreError

RECORD_BYTES_MAX = 1 << 19
"""A server of NATS takes a megabyte if nobody tells it otherwise."""


class Logged(NamedTuple):
    position: int
    body: bytes


class LogInfo(NamedTuple):
    """`log_id` names the log: one that is made anew has another. `newest`: the last position, also
    if its record was removed. `oldest`: the first whose record is there, or will be. `bytes_max`:
    the engine takes no more; None: it has no limit of its own."""

    log_id: str
    newest: int
    oldest: int = 1
    bytes: int = 0
    bytes_max: int | None = None


class Undecided(StoreError):
    """It may be stored, or still come to be. The same may be appended again: whoever follows takes
    the first of equal ones."""


def begins_later(oldest: int, wanted: int) -> LogReplaced:
    """Says what helps a copy that needs a record which was removed."""
    behind = f"this copy ends at {wanted - 1}" if wanted > 1 else "there is no copy here yet"
    return LogReplaced(
        f"the shared log begins at record {oldest}, and {behind}: what is missing was removed."
        " Begin with the copy of another broker: `pubsub backup FILE` there, and here"
        " `pubsub restore FILE --replace`"
    )


class SharedLog(Protocol):
    """Records in one order that is the same for all. Positions rise and are never reused."""

    async def open(self) -> LogInfo:
        """Raises StoreUnavailable; SchemaMismatch: it is not a log that we can use."""
        ...

    async def info(self) -> LogInfo:
        """As it is now. Raises StoreUnavailable, SchemaMismatch."""
        ...

    async def close(self) -> None: ...

    async def append(self, body: bytes) -> int:
        """The position, once a majority keeps it on disk. Raises Undecided, StoreFull."""
        ...

    def follow(self, start: int) -> AsyncGenerator[Sequence[Logged], None]:
        """Every record from `start` on that a majority keeps, in order, once, without a gap, for
        ever. Raises LogReplaced: also if the first was removed. Whoever stops following closes
        it."""
        ...

    async def trim(self, before: int) -> None:
        """Remove the records below this position. Positions stay. Raises StoreUnavailable."""
        ...
