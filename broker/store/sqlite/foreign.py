"""Foreign writes: tells the operator that another program has written into the database.

The broker has in memory what it serves, and writes that over what another program wrote: an UPDATE
of `cursors` has no effect, and nobody would hear of it.
"""

from __future__ import annotations

import logging
import sqlite3
from pathlib import Path

logger = logging.getLogger(__name__)


class ForeignWrites:
    def __init__(self, connection: sqlite3.Connection, path: Path) -> None:
        """`connection` is the only one of ours that writes. `path` is that of the database."""
        self._connection = connection
        self._name = path.name
        self._version: int | None = None
        """At the last look."""

    def look(self) -> None:
        """Tell, if anybody else has committed anything since the last. Raises sqlite3.Error."""
        # It changes with each commit of any other connection.
        (version,) = self._connection.execute("PRAGMA data_version").fetchone()
        before, self._version = self._version, version
        if before not in (None, version):
            logger.warning(
                "another program has written into %s: the tables are the broker's own, and it may"
                " write over that, or be harmed by it; to move, copy or end subscribers use"
                " pubsub subscribers seek, fork, rm",
                self._name,
            )
