"""Another log in the place of one: which offsets that had given out, and where its files go."""

from __future__ import annotations

import os
import time
from contextlib import closing, suppress
from pathlib import Path

from broker.message import Offset
from broker.store.sqlite.files.schema import sync_directory
from broker.store.sqlite.files.wal import INDEX_SUFFIX, WAL_SUFFIX
from broker.store.sqlite.repair.note import note_path, read_note
from broker.store.sqlite.repair.remains import Remains

REPLACED = ".replaced-"
"""Added, with the time, to the name of a database in whose place another was put."""


def is_there(path: Path) -> bool:
    """Whether anything of a log at `path` could be lost. A note only tells of one."""
    wal = Path(f"{path}{WAL_SUFFIX}")
    return wal.exists() or (path.exists() and path.stat().st_size > 0)


def newest_offset(path: Path) -> Offset | None:
    """The newest offset that the log at `path` is known to have given out, or reserved; None: that
    cannot be read. Nothing is written. Raises OSError."""
    noted = read_note(path)
    if noted is None and not is_there(path):
        return Offset(0)
    found = [noted.high_watermark] if noted is not None else []
    with closing(Remains(path)) as remains:
        roots = remains.roots()
        for row in remains.current.tree(roots.get("sqlite_sequence", 0)):
            match row.values:
                case ["messages", int(given)]:
                    found.append(Offset(given))
        empty = "sqlite_sequence" in roots and not remains.current.unreadable
    return max(found) if found else Offset(0) if empty else None


def set_aside(path: Path) -> Path:
    """Give the log at `path` another name, with all that belongs to it; the new name. Where no log
    is, nothing has that.

    At no moment a broker would begin a new log at `path`, or take a part of the old one for the
    whole: the database stays until it is replaced, and the note until that has happened, see
    `forget_note`. Raises OSError.
    """
    aside = path.with_name(f"{path.name}{REPLACED}{time.time_ns() // 1000}")
    with suppress(FileNotFoundError):
        if not is_there(path):
            return aside
        try:
            os.link(path, aside)
        except PermissionError:  # A file system without links.
            path.rename(aside)
    for suffix in (WAL_SUFFIX, INDEX_SUFFIX):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    sync_directory(path.parent)
    return aside


def forget_note(path: Path, aside: Path) -> None:
    """Another database is at `path`: the note is the one of that which is aside, if there was one.
    Raises OSError."""
    with suppress(FileNotFoundError):
        if is_there(aside):
            note_path(path).rename(note_path(aside))
        else:
            note_path(path).unlink()
    sync_directory(path.parent)
