"""The database of a log, for the commands that read it themselves: read-only, a broker's or not."""

from __future__ import annotations

import contextlib
import errno
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from broker.config import DATABASE
from broker.errors import ConfigError, SchemaMismatch
from broker.store.sqlite.errors import read_error, store_error
from broker.store.sqlite.files import schema
from cli.terminal.failure import CommandFailed, Exit

NOT_ALLOWED = frozenset({errno.EACCES, errno.EPERM, errno.EROFS})


@dataclass(frozen=True, slots=True)
class LogFile:
    """A log that is open for reading. `at_rest`: no broker has it, nor can begin on it."""

    connection: sqlite3.Connection
    at_rest: bool
    uri: str
    """By which another connection opens it as this one does."""
    bytes: int
    free_bytes: int
    """Of pages that hold nothing."""

    @property
    def used_bytes(self) -> int:
        return self.bytes - self.free_bytes


@contextlib.contextmanager
def reading(path: Path) -> Iterator[sqlite3.Connection]:
    """The log at `path`, its schema known to us. Raises CommandFailed: none there; StoreError."""
    require_log(path)
    with _connected(_uri(path, "mode=ro"), path) as connection:
        yield connection


@contextlib.contextmanager
def looking_after(
    path: Path, watch: Callable[[sqlite3.Connection], None], *, older: bool = False
) -> Iterator[LogFile]:
    """The same for a long look, and kept from brokers meanwhile if none has it.

    At rest the directory may be read-only, and nothing is left in it. `older`: also a log of an
    earlier schema. `watch` is told of the connection. Raises StoreCorrupt also for what an unclean
    stop has lost.
    """
    # `pubsub log` does not wait for what these import.
    from broker.store.sqlite.files.file import kept_from_brokers
    from broker.store.sqlite.files.opening import boot_id
    from broker.store.sqlite.files.wal import WAL_SUFFIX
    from broker.store.sqlite.repair import recovery

    require_log(path)
    with kept_from_brokers(path) as at_rest:
        options = "mode=ro"
        if at_rest:
            recovery.examine(path, boot_id(), accept_loss=False)
            wal = Path(f"{path}{WAL_SUFFIX}")
            if not wal.exists() or not wal.stat().st_size:
                options = recovery.ALONE
        uri = _uri(path, options)
        with _connected(uri, path, older=older) as connection:
            watch(connection)
            size, free = connection.execute(
                "SELECT page_count * page_size, freelist_count * page_size"
                " FROM pragma_page_count, pragma_page_size, pragma_freelist_count"
            ).fetchone()
            yield LogFile(connection, at_rest, uri, size, free)


@contextlib.contextmanager
def stopped(data_dir: Path, why: str = "") -> Iterator[None]:
    """No broker has the data directory, nor can begin on it meanwhile. It is made if there is none.

    Raises CommandFailed: one has it, and `why` that is in the way; StoreDenied; ConfigError: the
    directory cannot be one.
    """
    from broker.store.directory import lock_data_dir
    from broker.store.sqlite.files.file import kept_from_brokers
    from cli.operate.admin import is_running

    running = CommandFailed(
        f"a broker is running on {data_dir}/{why and ', and '}{why}",
        "stop it with: pubsub broker stop",
    )
    if is_running(data_dir):
        raise running
    with contextlib.ExitStack() as locks:
        try:
            locks.enter_context(lock_data_dir(data_dir))
        except ConfigError as error:
            cause = error.__cause__
            if isinstance(cause, BlockingIOError):  # It has begun just now.
                raise running from error
            if isinstance(cause, OSError) and cause.errno in NOT_ALLOWED:
                raise store_error(cause, data_dir) from error
            raise
        path = data_dir / DATABASE
        if path.exists() and not locks.enter_context(kept_from_brokers(path)):
            raise running
        yield


def database_of(path: Path) -> Path:
    """The database that is meant: a data directory means the one in it."""
    return path / DATABASE if path.is_dir() else path


def require_log(path: Path) -> None:
    """Raises CommandFailed: none is there."""
    if not path.exists():
        from cli.operate.admin import how_to_start

        remedy = how_to_start(path.parent) if path.name == DATABASE else ""
        raise CommandFailed(f"no log at {path}", remedy, Exit.NOTHING_THERE)


@contextlib.contextmanager
def _connected(uri: str, path: Path, *, older: bool = False) -> Iterator[sqlite3.Connection]:
    try:
        with contextlib.closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            _check_schema(connection, path, older)
            yield connection
    except sqlite3.Error as error:
        raise read_error(error, path) from error


def _uri(path: Path, options: str) -> str:
    return f"{path.absolute().as_uri()}?{options}"


def _check_schema(connection: sqlite3.Connection, path: Path, older: bool) -> None:
    newest = schema.migrations()[-1].version
    new = schema.is_new(connection, path)
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    named = not schema.is_in_data_dir(path)
    if new and named:
        raise SchemaMismatch(f"{path} is an empty database; choose {schema.A_LOG}")
    if new or (version < newest and not older):
        remedy = "`pubsub restore` brings it up to date" if named else "start the broker on it once"
        raise SchemaMismatch(f"{path} is not up to date; {remedy}")
    if version > newest:
        raise SchemaMismatch(
            f"{path} is from a newer pubsub (schema {version}, this program knows {newest});"
            " upgrade pubsub"
        )
