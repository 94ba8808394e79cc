"""SharedLog: what is asked of an engine that keeps one log for several brokers. Four calls.

The engine puts records into one order and knows nothing of what is in them: conditions, retries and
who owns what are decided by `follower.py`, at every broker alike. `memory_log.py` is for tests,
`jetstream.py` for use.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import NamedTuple, Protocol

from broker.errors import StoreError

RECORD_BYTES_MAX = 1 << 19
"""A server of NATS takes a megabyte if nobody tells it otherwise."""


class Logged(NamedTuple):
    position: int
    body: bytes


class LogInfo(NamedTuple):
    """`log_id` names the log: one that is made anew has another. `newest`: the last position."""

    log_id: str
    newest: int


class Undecided(StoreError):
    """It may be stored, or still come to be. The same may be appended again: whoever follows takes
    the first of equal ones."""


class SharedLog(Protocol):
    """Records in one order that is the same for all. Positions rise and are never reused."""

    async def open(self) -> LogInfo:
        """Raises StoreUnavailable; SchemaMismatch: it is not a log that we can use."""
        ...

    async def close(self) -> None: ...

    async def append(self, body: bytes) -> int:
        """The position, once a majority keeps it on disk. Raises Undecided, StoreFull."""
        ...

    def follow(self, start: int) -> AsyncGenerator[Sequence[Logged], None]:
        """Every record from `start` on that a majority keeps, in order, once, without a gap, for
        ever. Raises LogReplaced. Whoever stops following closes it."""
        ...
