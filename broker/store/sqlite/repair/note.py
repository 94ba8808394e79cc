"""What the broker notes beside its database, so that the next start can see what is missing.

A line with the high watermark and the time, written anew after each commit, and a line about
the run and its files. Nothing is synced: a kill leaves the newest note, as the kernel has it, a
power cut maybe an old one or none. It is written in place, not replaced: 42 bytes within one page
are there or not, and a file that was renamed without a sync can be empty after a power cut.

A clean stop leaves it, synced: it tells the next start that there was a log, also if the database
is gone or empty by then. Nothing else in the note counts any more.
"""

from __future__ import annotations

import json
import logging
import os
import time
from dataclasses import dataclass
from pathlib import Path

from broker.config import NOTE_SUFFIX
from broker.message import Offset
from broker.store.sqlite.files.wal import SALTS_AT, WAL_SUFFIX

logger = logging.getLogger(__name__)

_FIRST_LINE = b"%020d %020d\n"
_FIRST_LINE_SIZE = 42
_SECOND_LINE_SIZE = 470

FILLINGS_MAX = 16
"""How often a write-ahead log may have started over since the note: once, unless other programs
made checkpoints too."""


def note_path(database: Path) -> Path:
    return Path(f"{database}{NOTE_SUFFIX}")


@dataclass(frozen=True, slots=True)
class Noted:
    """What was in the note of the last run."""

    high_watermark: Offset
    at_us: int
    """When that was noted."""
    boot_id: str | None
    """None also once the disk has failed."""
    note: int
    database: int
    """The inodes of the two files."""
    database_written_ns: int
    """When the database file was last written to; 0: it was just being written to."""
    wal_salts: bytes
    """The salts of the write-ahead log, empty while it had none; one filling later now, maybe."""
    stopped: bool
    """Whether the run was stopped cleanly: all that was noted is in the database."""

    def is_of(self, database: Path) -> bool:
        """Whether the file is the one that the broker left, as far as can be known: nobody has put
        another in its place or has written to it. In a copy of the whole directory it counts as
        that."""
        if _status(note_path(database))[0] != self.note:
            return True
        inode, written_ns = _status(database)
        return inode == self.database and self.database_written_ns in (0, written_ns)

    def is_with(self, wal_salts: bytes) -> bool:
        """Whether the write-ahead log is the one that was written to then, or a later filling: the
        first salt is one more in each."""
        if not self.wal_salts or not wal_salts:
            return True
        before, after = (int.from_bytes(salts[:4], "big") for salts in (self.wal_salts, wal_salts))
        return (after - before) % (1 << 32) <= FILLINGS_MAX


def read_note(database: Path) -> Noted | None:
    """None: there is none, or it is not whole. Raises OSError."""
    try:
        first, second, *_ = note_path(database).read_bytes().split(b"\n")
        high_watermark, at_us = map(int, first.split())
        run = json.loads(second)
        return Noted(
            Offset(high_watermark),
            at_us,
            run["boot_id"],
            run["note"],
            run["database"],
            run["database_written_ns"],
            bytes.fromhex(run["wal_salts"]),
            bool(run.get("stopped")),
        )
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        return None  # A power cut can leave anything.


class Note:
    def __init__(
        self,
        database: Path,
        high_watermark: Offset,
        boot_id: str | None,
        *,
        is_copy: bool = False,
    ) -> None:
        """Begin the note of a run. SQLite has the database open. `is_copy`: the database may go, as
        it can be made again. Raises OSError."""
        self._database = database
        self._is_copy = is_copy
        self._boot_id = boot_id
        self._descriptor = os.open(note_path(database), os.O_CREAT | os.O_RDWR, 0o600)
        self._wal = os.open(f"{database}{WAL_SUFFIX}", os.O_CREAT | os.O_RDONLY, 0o600)
        self._closed = self._failed = self._wal_may_start_over = False
        self.moved(high_watermark)
        self.database_written()

    def moved(self, high_watermark: Offset) -> None:
        """The high watermark is this; before anybody hears of it."""
        self._write(_FIRST_LINE % (high_watermark, time.time_ns() // 1000), 0)
        if self._wal_may_start_over:
            self._describe(written=True)
            self._wal_may_start_over = False

    def writing_database(self) -> None:
        """The database file is about to be written to, until `database_written`."""
        self._wal_may_start_over = False
        self._describe(written=False)

    def database_written(self) -> None:
        """The database file stays as it is until `writing_database`. The write-ahead log that was
        copied into it may start over with the next commit."""
        self._describe(written=True)
        self._wal_may_start_over = True

    def disk_failed(self) -> None:
        """From now on the kernel may have given up pages that never reached the disk: the next
        start is as after a power cut."""
        self._boot_id = None
        self._describe(written=True)

    def _describe(self, *, written: bool, stopped: bool = False) -> None:
        if self._closed:
            return
        inode, written_ns = _status(self._database)
        run = {
            "boot_id": self._boot_id,
            "note": os.fstat(self._descriptor).st_ino,
            "database": inode,
            "database_written_ns": written_ns if written else 0,
            "wal_salts": os.pread(self._wal, 8, SALTS_AT).hex(),
            "stopped": stopped,
        }
        line = json.dumps(run).encode().ljust(_SECOND_LINE_SIZE - 1) + b"\n"
        self._write(line, _FIRST_LINE_SIZE)

    def _write(self, content: bytes, position: int) -> None:
        if self._closed:
            return
        try:
            os.pwrite(self._descriptor, content, position)
        except OSError as error:
            self._tell(error)

    def _tell(self, error: OSError) -> None:
        """Only a start that finds something missing would miss it, and that sees an older one."""
        if not self._failed:
            logger.warning("%s cannot be written: %s", note_path(self._database), error)
        self._failed = True

    def stopped(self) -> None:
        """At a clean stop: nothing can be missing then but the database. The note of a copy goes.
        Raises OSError."""
        if self._is_copy:
            note_path(self._database).unlink(missing_ok=True)
            return
        self._describe(written=True, stopped=True)
        try:
            os.fsync(self._descriptor)
        except OSError as error:
            self._tell(error)

    def close(self) -> None:
        """Once SQLite has closed the database."""
        if not self._closed:
            self._closed = True
            os.close(self._descriptor)
            os.close(self._wal)


def _status(path: Path) -> tuple[int, int]:
    """Inode, and nanosecond of the last write; zeros for no file. Opens nothing."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return 0, 0
    return status.st_ino, status.st_mtime_ns
