"""What an unclean stop left: whether all of it is there, looked at before SQLite writes anything.

SQLite itself opens a database whose write-ahead log was cut short, replaced or removed as if
nothing had been there. `examine` compares what there is with what the broker noted (`note.py`) and
with what SQLite knew when the process ended (the index in `-shm`):

- After a kill (the machine has run on) the kernel still has every commit. Fewer frames than SQLite
  knew of, a break with commits behind it, another log than the broker's, or a high watermark below
  the noted one are damage: `StoreCorrupt`, and nothing was changed.
- After a power cut (the machine was started anew), or once the disk has failed, unsynced commits
  may be there in part, so a break is normal. No write-ahead log at all is not: the first commit of
  a run is synced.
- After a clean stop nothing can be missing but the database itself: gone, of 0 bytes, or without a
  table. A new log would give its offsets a second time.
- A database that another was put in place of, or that another program has written to since, is
  what the operator wants (a restored backup, a log folded in by `sqlite3`): it starts, and what it
  lacks is said.
"""

from __future__ import annotations

import logging
import shutil
import sqlite3
import time
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from broker.errors import StoreCorrupt
from broker.message import Offset, rfc3339
from broker.plural import counted
from broker.store.sqlite.errors import MISFIT, misfit, store_error
from broker.store.sqlite.files.schema import sync_directory
from broker.store.sqlite.files.wal import (
    INDEX_SUFFIX,
    WAL_SUFFIX,
    Wal,
    WalIndex,
    read_index,
    read_wal,
)
from broker.store.sqlite.repair.note import Noted, read_note
from broker.store.sqlite.retention import removed
from broker.store.sqlite.rows import text

logger = logging.getLogger(__name__)

SET_ASIDE = ".damaged-"
"""Added, with the time, to the name of a write-ahead log that is kept aside."""
LOCK_WAIT_S = 0.5
"""How long the first statements on a connection wait for a lock of another program."""
ALONE = "mode=ro&immutable=1"
"""Reads a database without its write-ahead log."""


@dataclass(frozen=True, slots=True)
class _End:
    """Where a database ends, as SQLite would read it."""

    high_watermark: Offset
    published_at_us: int | None
    boot_id: str | None
    """Of its newest run."""


@dataclass(frozen=True, slots=True)
class _Left:
    """All that an unclean stop left."""

    path: Path
    wal_path: Path
    empty: bool
    """The database file."""
    blank: bool
    """It is empty, or a database without a table."""
    wal: Wal
    wal_exists: bool
    index: WalIndex | None
    noted: Noted | None
    """None: no note, or the note of another database than the one that is there."""
    end: _End | None
    """None: SQLite cannot read it, or it is no log yet."""
    unreadable: str | None
    """What SQLite said then."""
    killed: bool
    """Whether the machine has run on since the run began."""

    @property
    def lacks_messages(self) -> bool:
        end = self.end.high_watermark if self.end is not None else 0
        return self.noted is not None and end < self.noted.high_watermark


@dataclass(frozen=True, slots=True)
class _Damage:
    cause: str
    wal_is_ours: bool
    """Whether what SQLite would use of the write-ahead log belongs to the database."""


def examine(path: Path, boot_id: str | None, *, accept_loss: bool, is_copy: bool = False) -> Offset:
    """The newest offset that is known to have been given out, whether its message is there or not.

    `path` is locked, and SQLite has not opened it. `accept_loss`: go on without what is missing,
    and keep what is damaged beside the database. `is_copy`: it is begun anew where it is gone.
    Raises StoreCorrupt: something that was acknowledged is missing; StoreError.
    """
    try:
        noted = read_note(path)
        if is_copy and noted is not None and noted.stopped:
            noted = None
        left = _look(path, boot_id, noted)
        damage = _damage(left)
        if damage is None:
            _say_what_is_not_there(left, noted)
        elif accept_loss:
            logger.critical(
                "%s: %s; %s: the broker goes on without it, as --accept-loss says",
                path,
                damage.cause,
                _missing(left),
            )
            _set_aside(left, damage)
        else:
            raise StoreCorrupt(f"{path}: {damage.cause}; {_missing(left)}. {_remedy(left)}")
    except (OSError, sqlite3.Error) as error:
        raise store_error(error, path) from error
    return noted.high_watermark if noted is not None else Offset(0)


def _look(path: Path, boot_id: str | None, noted: Noted | None) -> _Left:
    wal_path = Path(f"{path}{WAL_SUFFIX}")
    wal_exists = wal_path.exists()
    empty = path.stat().st_size == 0
    index = read_index(Path(f"{path}{INDEX_SUFFIX}"))  # SQLite begins it anew.
    end, unreadable, blank = None, None, empty
    if not empty:
        try:
            # Without a write-ahead log SQLite would make one.
            end = _read_end(path, "mode=ro" if wal_exists else ALONE)
            blank = end is None and _has_no_table(path, "mode=ro" if wal_exists else ALONE)
        except sqlite3.DatabaseError as error:
            if not isinstance(store_error(error, path), StoreCorrupt):
                raise
            unreadable = str(error)
        except UnicodeDecodeError:  # SQLite's error quotes what it found.
            unreadable = "malformed database schema"
        except MISFIT as error:
            unreadable = str(misfit(error, path))
    if noted is not None and noted.stopped and not blank:
        noted = None
    last_boot = noted.boot_id if noted is not None else end.boot_id if end is not None else None
    return _Left(
        path,
        wal_path,
        empty,
        blank,
        read_wal(wal_path),
        wal_exists,
        index,
        noted if noted is not None and (blank or noted.is_of(path)) else None,
        end,
        unreadable,
        boot_id is not None and boot_id == last_boot,
    )


def _read_end(path: Path, options: str) -> _End | None:
    """Reads without writing to the database or its write-ahead log. Raises sqlite3.Error."""
    with closing(_opened(path, options)) as connection:
        connection.text_factory = text
        known = "SELECT 1 FROM sqlite_schema WHERE name = 'broker_runs'"
        if not connection.execute(known).fetchone():
            return None
        newest, published_at_us = connection.execute(
            "SELECT offset, published_at_us FROM messages ORDER BY offset DESC LIMIT 1"
        ).fetchone() or (0, None)
        (log_start,) = connection.execute("SELECT start FROM log").fetchone()
        if connection.execute("SELECT 1 FROM sqlite_schema WHERE name = 'removed'").fetchone():
            (removed_last,) = connection.execute(f"SELECT {removed.NEWEST}").fetchone()
            newest = max(newest, removed_last)
        (boot_id,) = connection.execute(
            "SELECT boot_id FROM broker_runs ORDER BY id DESC LIMIT 1"
        ).fetchone() or (None,)
        return _End(Offset(max(newest, log_start - 1)), published_at_us, boot_id)


def _has_no_table(path: Path, options: str) -> bool:
    """Raises sqlite3.Error."""
    with closing(_opened(path, options)) as connection:
        return not connection.execute("SELECT 1 FROM sqlite_schema").fetchone()


def _opened(path: Path, options: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?{options}", LOCK_WAIT_S, uri=True)


def _damage(left: _Left) -> _Damage | None:
    """None: nothing is missing, as far as can be noticed."""
    wal, index, noted = left.wal, left.index, left.noted
    log = left.wal_path.name
    if left.empty:
        if wal.committed or wal.commits_behind:
            return _Damage(f"the database is missing or empty, and there is {log}", False)
        if left.lacks_messages:
            return _Damage("the database is missing or empty", False)
        return None
    if left.blank and left.lacks_messages:
        return _Damage("the database is empty", False)
    if left.lacks_messages and not left.wal_exists:
        return _Damage(f"its write-ahead log {log} is missing", False)
    if not left.killed:
        return None
    if noted is not None:
        if left.unreadable is not None:
            return _Damage(f"it cannot be read with {log}: {left.unreadable}", False)
        if not noted.is_with(wal.salts):
            return _Damage(f"{log} is not the one that its broker wrote", False)
        if index is not None and index.salts == wal.salts and wal.committed < index.committed:
            return _Damage(
                f"{log} is damaged after frame {wal.committed} of {index.committed}",
                index.in_database <= wal.committed,
            )
    if wal.commits_behind:
        return _Damage(f"{log} is damaged after frame {wal.committed} of {wal.frames}", True)
    if left.lacks_messages:
        return _Damage(f"{log} ends too early", True)
    return None


def _missing(left: _Left) -> str:
    if not left.lacks_messages:
        count = left.wal.commits_behind
        behind = counted(count, "commit is", "commits are") if count else "some commits are"
        return f"{behind} missing, with the messages and what subscribers acknowledged in them"
    assert left.noted is not None
    last, since = 0, ""
    if left.end is not None:
        last = left.end.high_watermark
        if left.end.published_at_us is not None:
            since = f"since {rfc3339(left.end.published_at_us)} "
    return (
        f"offsets {last + 1} to {left.noted.high_watermark} are missing, published {since}until"
        f" {rfc3339(left.noted.at_us)}"
    )


def _remedy(left: _Left) -> str:
    if left.blank and not left.wal_exists:
        return (
            f"Put {left.path.name} back as it was, or a backup of it: `pubsub restore FILE`; or"
            " begin a new log: `pubsub broker start --accept-loss` gives no offset twice"
        )
    return (
        "Put the files back as they were; or save what can be read, into a new log: `pubsub"
        " salvage`; or go on without it: `pubsub broker start --accept-loss` keeps what is damaged"
        " beside the database, and gives no offset twice"
    )


def _say_what_is_not_there(left: _Left, noted: Noted | None) -> None:
    if not left.killed and left.wal.unused:
        logger.warning(
            "%s: left out %s of %s that had not reached the disk whole when the machine went"
            " down or the disk failed",
            left.path,
            counted(left.wal.unused, "frame"),
            left.wal_path.name,
        )
    end = left.end.high_watermark if left.end is not None else 0
    if noted is not None and end < noted.high_watermark and left.unreadable is None:
        logger.warning(
            "%s ends at offset %d, and %d was noted: taken for a restored backup, or lost with the"
            " power; offsets go on above",
            left.path,
            end,
            noted.high_watermark,
        )


def _set_aside(left: _Left, damage: _Damage) -> None:
    """Keep a damaged write-ahead log under another name, and leave SQLite what can be used of it.

    Of a log whose later frames are in the database already, nothing can: the older pages of its
    first part would hide the newer ones.
    """
    if not left.wal_exists:
        return
    kept = left.wal_path.with_name(f"{left.wal_path.name}{SET_ASIDE}{time.time_ns() // 1000}")
    alone = None if left.empty else _read_end(left.path, ALONE)
    usable = damage.wal_is_ours and not (
        alone is not None
        and left.end is not None
        and alone.high_watermark > left.end.high_watermark
    )
    if usable:
        shutil.copy2(left.wal_path, kept)
    else:
        left.wal_path.rename(kept)
    sync_directory(left.path.parent)
    logger.critical("%s is kept as %s", left.wal_path, kept.name)
