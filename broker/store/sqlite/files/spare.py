"""Spare: a file beside the database that takes up room, so that there is some on a full disk.

Removing messages has to write first: what is in the write-ahead log is copied into the database,
which grows, and then the log starts over. Where the disk has no byte left the spare file is given
up for that, and so for a start on such a disk. It is made again when there is room.
"""

from __future__ import annotations

import os
from pathlib import Path

SPARE_SUFFIX = "-spare"
SPARE_BYTES = 8 << 20
"""A little more than a write-ahead log has when it is copied (`CHECKPOINT_PAGES`, 6 MB)."""


def spare_file(database: Path) -> Path:
    return Path(f"{database}{SPARE_SUFFIX}")


def keep(database: Path) -> None:
    """Make it, if there is none. Raises OSError."""
    path = spare_file(database)
    if path.exists():
        return
    descriptor = os.open(path, os.O_CREAT | os.O_WRONLY, 0o600)
    try:
        os.posix_fallocate(descriptor, 0, SPARE_BYTES)
    except OSError:
        path.unlink()
        raise
    finally:
        os.close(descriptor)


def give_up(database: Path) -> bool:
    """Whether there was one."""
    try:
        spare_file(database).unlink()
    except OSError:
        return False
    return True
