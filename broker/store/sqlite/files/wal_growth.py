"""WAL growth: tells the operator that another program keeps the write-ahead log from being copied.

SQLite copies into the database only what no open transaction of a reader comes before. So while a
program beside the broker reads (a transaction in `sqlite3`, a slow query), the write-ahead log
grows; when it ends, one checkpoint copies everything, and with an SQLite before 3.51.3 (see
`checkpoint.py`) acknowledgements wait for that.
"""

from __future__ import annotations

import logging
from pathlib import Path

logger = logging.getLogger(__name__)

PAGE_BYTES = 4096
FIRST_BYTES = 64 << 20
"""From this size on it is told; then each time that it has doubled."""
COST = "about 0.1-0.2 s for each 100 MiB written meanwhile"
"""As measured with files of 200 MiB, on ext4 and two cores, with an SQLite before 3.51.3."""


class WalGrowth:
    """Is told of each checkpoint."""

    def __init__(self, path: Path, *, commits_wait: bool) -> None:
        """`path` is that of the database. `commits_wait`: for a checkpoint that copies much."""
        self._name = path.name
        self._then = f": when that ends, acknowledgements wait {COST}" if commits_wait else ""
        self._tell_at = FIRST_BYTES

    def checkpointed(self, pages_left: int, took_s: float) -> None:
        """So many pages could not be copied into the database."""
        left = pages_left * PAGE_BYTES
        if left >= self._tell_at:
            logger.warning(
                "%s-wal has grown to %d MiB, as another program has an open transaction on %s%s",
                *(self._name, left >> 20, self._name, self._then),
            )
            while self._tell_at <= left:
                self._tell_at *= 2
        elif left < FIRST_BYTES < self._tell_at:
            logger.warning(
                "%s-wal is in the database again; acknowledgements waited %.1f s for that",
                *(self._name, took_s),
            )
            self._tell_at = FIRST_BYTES
