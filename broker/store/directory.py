"""The data directory: made if there is none, and kept from every other broker while one has it."""

from __future__ import annotations

import fcntl
import logging
import os
import stat
from itertools import islice
from pathlib import Path
from typing import IO

from broker.config import LOCK
from broker.errors import ConfigError
from broker.store.sqlite.errors import NO_SPACE, store_error
from broker.store.sqlite.files.schema import sync_directory

FILES_LOOKED_AT = 1000
WRITE_OF_OTHERS = stat.S_IWGRP | stat.S_IWOTH

logger = logging.getLogger(__name__)


def lock_data_dir(path: Path) -> IO[str]:
    """Make the directory ours while the file is open. Raises ConfigError, StoreError."""
    try:
        _make_directory(path)
        # For nobody else: who may read it could hold the lock, and keep the broker from starting.
        lock = os.fdopen(os.open(path / LOCK, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600), "a+")
    except OSError as error:
        if error.errno in NO_SPACE:
            raise store_error(error, path) from error
        raise ConfigError("data_dir", str(path), f"cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigError(
            "data_dir",
            str(path),
            f"is in use by another broker (pid {pid}); stop it with `pubsub broker stop`"
            " or choose another with --data-dir",
        ) from error
    try:
        os.fchmod(lock.fileno(), 0o600)  # Earlier versions let others read it.
        lock.truncate(0)
        os.write(lock.fileno(), b"%d\n" % os.getpid())
        tell_exposed(path)
    except OSError as error:
        lock.close()
        raise store_error(error, path) from error
    return lock


def tell_exposed(data_dir: Path) -> None:
    """Warn of what others may read or change: messages, and what is kept of users.

    What the group may read is the decision of whoever made it so. Raises OSError.
    """
    files = islice(data_dir.iterdir(), FILES_LOOKED_AT)
    exposed = sorted(str(one) for one in files if _is_exposed(one.lstat()))
    if data_dir.stat().st_mode & WRITE_OF_OTHERS:
        logger.warning(
            "others may replace what is in %s/, and so the log: chmod go-w %s", data_dir, data_dir
        )
    if exposed:
        logger.warning("others may read or change %s: chmod 600 them", ", ".join(exposed))


def _is_exposed(status: os.stat_result) -> bool:
    if not (stat.S_ISREG(status.st_mode) and status.st_size):
        return False
    return bool(status.st_mode & (stat.S_IROTH | WRITE_OF_OTHERS))


def _make_directory(path: Path) -> None:
    """Make it, and what is above it, so that it outlives a power cut."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)
