"""Unix sockets: their permissions, and the length a path may have."""

from __future__ import annotations

import contextlib
import logging
import os
import socket
from pathlib import Path

from broker.errors import ConfigError

SOCKET_PATH_BYTES_MAX = 103
"""What the smallest `sun_path` in use holds (macOS 104, Linux 108, both with a NUL at the end)."""

logger = logging.getLogger(__name__)


def reachable(path: Path, *, setting: str = "data_dir") -> str:
    """`path` as short as it gets for a Unix socket: relative to here where that is shorter.

    Raises ConfigError if it is too long both ways.
    """
    shortest = min(str(path.absolute()), os.path.relpath(path), key=len)
    if len(os.fsencode(shortest)) > SOCKET_PATH_BYTES_MAX:
        raise ConfigError(
            setting,
            str(path.parent),
            f"is too long for a Unix socket ({SOCKET_PATH_BYTES_MAX} bytes with the file name); "
            "choose a shorter one, or start the broker from a directory near it",
        )
    return shortest


def listen(path: Path, *, setting: str = "data_dir") -> socket.socket:
    """A bound socket that only the owner may open; replaces what a broker that is gone left there.

    Raises ConfigError: the path is too long for a Unix socket, or cannot be created.
    """
    address = reachable(path, setting=setting)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    umask = os.umask(0o177)  # so that the file is 0600 from its first moment
    try:
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            setting, str(path.parent), f"cannot hold {path.name}: {error.strerror or error}"
        ) from error
    finally:
        os.umask(umask)
    listener.setblocking(False)
    return listener


def remove(path: Path) -> None:
    """Remove the file of a socket. A file system that fails is told, and hinders nobody."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        logger.warning("%s stays behind: %s", path, error.strerror)
