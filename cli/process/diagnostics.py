"""Where the broker's diagnostics go, and what SIGHUP means for them.

logrotate moves the file away and sends SIGHUP: it is opened again by its first name. A terminal
that is closed sends SIGHUP too, and is no terminal any more when that arrives.
"""

from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from types import TracebackType

from cli.process.line_format import format_for
from cli.process.line_writer import LineWriter

logger = logging.getLogger(__name__)

STDIN, STDOUT, STDERR = 0, 1, 2
OPEN_FILES = Path("/proc/self/fd")
OURS = ("broker", "cli")
"""Whose lines follow the level that was asked for. Libraries only warn: at other levels they would
log payloads."""


class Diagnostics:
    """Standard output and error as they were at the start. As a context manager it writes what is
    logged to standard error, from `level` on (a name of `logging`, in lower case)."""

    def __init__(self, level: str) -> None:
        self._level = level.upper()
        for fd in (STDIN, STDOUT, STDERR):
            if not _is_open(fd):  # A connection would get the number, and our lines.
                _replace(fd, os.open(os.devnull, os.O_RDWR))
        self._terminals = [fd for fd in (STDIN, STDOUT, STDERR) if os.isatty(fd)]
        self._files = {fd: path for fd in (STDOUT, STDERR) if (path := _path(fd)) is not None}
        self._writer: LineWriter | None = None

    def __enter__(self) -> Diagnostics:
        self._writer = LineWriter(STDERR, format_for(STDERR))
        logging.getLogger().addHandler(self._writer)
        self.tell_from(self._level)
        return self

    def tell_from(self, level: str) -> None:
        """Write what is logged from this level on."""
        for name in OURS:
            logging.getLogger(name).setLevel(level.upper())

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._writer is not None
        for name in OURS:
            logging.getLogger(name).setLevel(logging.NOTSET)
        logging.getLogger().removeHandler(self._writer)
        self._writer.close()

    def hang_up(self) -> bool:
        """SIGHUP came: whether to go on. False: the terminal is gone."""
        gone = [fd for fd in self._terminals if not os.isatty(fd)]
        if gone:
            for fd in gone:  # Writing there fails from now on, and so would a clean end.
                _replace(fd, os.open(os.devnull, os.O_RDWR))
            logger.info("the terminal is gone: the broker stops")
            return False
        for fd, path in self._files.items():
            try:
                _replace(fd, os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600))
            except OSError as error:
                logger.error("diagnostics cannot be written to %s: %s", path, error.strerror)
        logger.info("SIGHUP: %s", self._reopened())
        return True

    def _reopened(self) -> str:
        if STDERR in self._files:
            return f"diagnostics go to {self._files[STDERR]}, opened again"
        return "diagnostics are no file that could be opened again"


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def _path(fd: int) -> Path | None:
    """The file that `fd` writes to; None where it is no file, has no name, or the system does not
    tell."""
    try:
        status = os.fstat(fd)
        if stat.S_ISREG(status.st_mode) and status.st_nlink:
            return (OPEN_FILES / str(fd)).readlink()
    except OSError:
        pass  # Not open, or no /proc: there is nothing to open again.
    return None


def _replace(fd: int, new: int) -> None:
    if new != fd:
        os.dup2(new, fd)
        os.close(new)
