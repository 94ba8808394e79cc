"""Copying a whole log, for `pubsub backup`, `pubsub restore` and `pubsub compact`."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker.errors import StoreCorrupt, StoreError
from broker.store.sqlite.errors import disk_failure, is_damage, store_error
from broker.store.sqlite.files import schema
from broker.store.sqlite.files.backup import Copy
from broker.store.sqlite.files.new_file import NewFile
from cli.care.check import verify
from cli.log.database import LogFile
from cli.terminal.failure import CommandFailed
from cli.terminal.long_work import LongWork


def copy_log(log: LogFile, file: NewFile, target: Path, work: LongWork, *, as_backup: bool) -> int:
    """Copy the log into the file that becomes `target`, bring that up to date, and look at all
    that is in it. How many messages there are. Raises sqlite3.Error, StoreCorrupt."""
    new = file.connection
    work.watch(new)
    new.execute("ATTACH ? AS source", (log.uri,))
    copy = Copy(file, lambda done, total: work.step(done, total, unit="offsets"))
    copy.run(as_backup=as_backup)
    new.execute("DETACH source")
    schema.migrate(new, target, schema.migrations())
    return verify(new, target, work)


@contextmanager
def errors_named(source: Path, target: Path) -> Iterator[None]:
    """Of a copy: damage is that of what is read, all else happened to what is written. Raises
    StoreError."""
    try:
        yield
    except StoreCorrupt as error:
        raise _damaged(source, target, error) from error
    except (sqlite3.Error, OSError) as error:
        if is_damage(error) or isinstance(error, sqlite3.IntegrityError):
            raise _damaged(source, target, error) from error
        raise store_error(error, target) from error


def _damaged(source: Path, target: Path, error: Exception) -> StoreError:
    return disk_failure(source) or StoreCorrupt(
        f"{source} is damaged, so {target} was not made: {error}; `pubsub check` says what is"
        " damaged, and `pubsub salvage` saves the rest"
    )


def require_space(log: LogFile, directory: Path, way_out: str = "") -> None:
    """Raises CommandFailed: a copy of the log has no room there."""
    free = shutil.disk_usage(directory).free
    if free < log.used_bytes:
        raise CommandFailed(
            f"this needs {log.used_bytes / 1e6:,.1f} MB in {directory}/,"
            f" and {free / 1e6:,.1f} MB are free",
            way_out,
        )
