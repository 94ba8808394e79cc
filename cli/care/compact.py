"""`pubsub compact`: gives the free pages of a log back to the file system.

SQLite can do that in the file itself only while nobody writes, and with a journal of the size of
the log. So the log is copied beside itself, as for a backup, and the copy takes its place.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from broker.config import DATABASE
from broker.store.sqlite.files.new_file import new_file
from broker.store.sqlite.files.opening import boot_id
from broker.store.sqlite.files.wal import WAL_SUFFIX
from broker.store.sqlite.repair import recovery
from cli.care.copying import copy_log, errors_named, require_space
from cli.log.database import looking_after, require_log, stopped
from cli.terminal import output
from cli.terminal.failure import CommandFailed
from cli.terminal.long_work import LongWork

WAY_OUT = "or `pubsub backup` to another disk, move the log away, and `pubsub restore`"


def compact(data_dir: Path, *, json: bool = False) -> None:
    """Raises CommandFailed: a broker is running, or there is no room; StoreError: the log is
    damaged, or cannot be copied. Then it is as it was."""
    path = data_dir / DATABASE
    require_log(path)
    with (
        LongWork(f"compacting {path}", f"{path} is as it was") as work,
        stopped(data_dir, "while the log is rewritten nothing could be acknowledged"),
    ):
        before = path.stat().st_size
        with errors_named(path, path):
            _fold_in(path)
        with looking_after(path, work.watch) as log, errors_named(path, path):
            if log.free_bytes:
                require_space(log, data_dir, WAY_OUT)
                with new_file(path, lambda: None) as new:
                    copy_log(log, new, path, work, as_backup=False)
        after = path.stat().st_size
    if json:
        record = {"compacted": str(path), "bytes_before": before, "bytes_after": after}
        output.data(output.json_line(record | {"seconds": round(work.seconds, 3)}))
    else:
        output.text(
            f"{path}: {before / 1e6:,.1f} MB before, {after / 1e6:,.1f} MB now,"
            f" {(before - after) / 1e6:,.1f} MB given back\n"
        )


def _fold_in(path: Path) -> None:
    """Copy what an unclean stop left in the write-ahead log into the database: beside another
    database it would be that one's. Raises StoreCorrupt: something of it is missing."""
    wal = Path(f"{path}{WAL_SUFFIX}")
    recovery.examine(path, boot_id(), accept_loss=False)
    if wal.exists():
        with closing(sqlite3.connect(path, isolation_level=None)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    if wal.exists():
        raise CommandFailed(f"{wal} is in use by another program")
