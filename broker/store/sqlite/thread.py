"""ConnectionThread: one database connection, and the thread in which its calls run in their order.

aiosqlite gives each connection such a thread, but its public methods send single statements to it,
and a hop to the thread and back for each statement would cost more than the fsync. So this module,
and no other, uses private names of aiosqlite: `_execute`, which runs any function in the thread,
`_thread` itself, and `_conn`, the connection of the module sqlite3. A test names the versions that
were tried, and pyproject.toml allows no others.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import aiosqlite

from broker.errors import StoreCorrupt, StoreError, StoreUnavailable
from broker.store.sqlite.errors import MISFIT, misfit, store_error

_ERRORS = (sqlite3.Error, OSError, *MISFIT)
"""UnicodeDecodeError, a ValueError, when SQLite's error quotes a schema that is damaged."""

P = ParamSpec("P")
T = TypeVar("T")


class ConnectionThread:
    def __init__(self, connection: aiosqlite.Connection, path: Path) -> None:
        """Errors name `path`."""
        self.database: sqlite3.Connection = connection._conn
        self._connection = connection
        self._path = path
        self._closed = False
        self._begun = self._ended = 0
        """Numbers of the last call that was begun, and of the last that is known to be over."""

    @classmethod
    async def connect(cls, database: str, path: Path, **options: Any) -> ConnectionThread:
        """`options` are those of `sqlite3.connect`. Raises StoreError."""
        connection = aiosqlite.connect(database, **options)
        try:
            await connection
        except sqlite3.Error as error:
            # Its thread ends by itself; if the event loop ended first, it would die of that.
            await asyncio.to_thread(connection._thread.join)
            raise store_error(error, path) from error
        return cls(connection, path)

    @property
    def idle(self) -> bool:
        """Whether no call is under way. Then the caller may use `database` until it next awaits.

        A cancelled call goes on in the thread: False until a later call has returned.
        """
        return self._begun == self._ended

    async def run(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run the function in the thread, after all calls before it: one hop.

        If the caller is cancelled, the function runs all the same. Raises StoreError in place of
        the errors of SQLite and of the operating system; StoreUnavailable after `close`.
        """
        if self._closed:
            raise StoreUnavailable("the store is closed")
        number = self._begun = self._begun + 1
        try:
            return await self._connection._execute(  # type: ignore[no-any-return, no-untyped-call]
                function, *args, **kwargs
            )
        except _ERRORS as error:
            raise self._store_error(error) from error
        except asyncio.CancelledError:
            number = self._ended
            raise
        finally:
            self._ended = number

    def run_here(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run it in the caller's thread, only while `idle`. Raises StoreError as `run` does."""
        try:
            return function(*args, **kwargs)
        except _ERRORS as error:
            raise self._store_error(error) from error

    def _store_error(self, error: Exception) -> StoreError:
        if isinstance(error, sqlite3.Error | OSError):
            return store_error(error, self._path)
        if isinstance(error, UnicodeDecodeError):
            return StoreCorrupt(f"{self._path}: the schema is damaged")
        return misfit(error, self._path)

    async def run_if_wanted(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """As `run`, but if the caller is cancelled before the function's turn, it does not run."""
        wanted = True

        def run() -> T:
            if not wanted:
                raise asyncio.CancelledError
            return function(*args, **kwargs)

        try:
            return await self.run(run)
        except asyncio.CancelledError:
            wanted = False
            raise

    async def close(self) -> None:
        """Close the connection, after all calls before, and end the thread."""
        if self._closed:
            return
        self._closed = True
        stopped = self._connection.stop()  # Its `close` cannot be cancelled while a call hangs.
        assert stopped is not None, "there is a loop"
        await stopped
