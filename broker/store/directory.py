"""The data directory: made if there is none, and kept from every other broker while one has it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import IO

from broker.config import LOCK
from broker.errors import ConfigError
from broker.store.sqlite.errors import NO_SPACE, store_error
from broker.store.sqlite.schema import sync_directory


def lock_data_dir(path: Path) -> IO[str]:
    """Make the directory ours while the file is open. Raises ConfigError, StoreError."""
    try:
        _make_directory(path)
        lock = (path / LOCK).open("a+")
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
        lock.truncate(0)
        os.write(lock.fileno(), b"%d\n" % os.getpid())
    except OSError as error:
        lock.close()
        raise store_error(error, path) from error
    return lock


def _make_directory(path: Path) -> None:
    """Make it, and what is above it, so that it outlives a power cut."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)
