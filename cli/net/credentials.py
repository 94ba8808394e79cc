"""Passwords: from a file, from standard input, or from an argument that others shall not see."""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path

from cli.net.address import STRING_BYTES_MAX
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit

OTHERS = stat.S_IRWXG | stat.S_IRWXO
"""Permissions that nobody but the owner should have on what holds a password."""
ARGUMENTS_START, ARGUMENTS_END = 45, 46
"""Fields of /proc/self/stat behind the name of the program; see proc(5)."""


def from_file(path: Path) -> str:
    """The first line. A note, if others may read the file. Raises CommandFailed (2)."""
    try:
        with path.open("rb") as file:
            tell_if_others_may_read(path, os.fstat(file.fileno()))
            line = file.readline(STRING_BYTES_MAX + 2)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", code=Exit.USAGE) from error
    return _password(line, str(path))


def from_stdin(prompt: str = "password: ") -> str:
    """Its first line and not a byte more: the rest is for others. Raises CommandFailed (2)."""
    if sys.stdin.isatty():
        from getpass import getpass

        return getpass(prompt)
    line = bytearray()
    while not line.endswith(b"\n") and len(line) < STRING_BYTES_MAX + 2:
        byte = os.read(sys.stdin.fileno(), 1)
        if not byte:
            break
        line += byte
    return _password(bytes(line), "standard input")


def _password(line: bytes, source: str) -> str:
    try:
        password = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise CommandFailed(f"the password in {source} is not UTF-8", code=Exit.USAGE) from None
    if not password:
        raise CommandFailed(f"{source} has no password in its first line", code=Exit.USAGE)
    return password


def tell_if_others_may_read(path: Path, status: os.stat_result) -> None:
    if stat.S_ISREG(status.st_mode) and status.st_mode & OTHERS:
        output.note(f"{path}: others than its owner may use it; better: chmod 600 {path}")


def hide_argument(secret: str) -> None:
    """Overwrite what ends with it in what `ps` shows, where the system lets us (Linux).

    Others could see it until now, and the shell may keep it: that is said.
    """
    output.hint(
        "others on this machine may have seen the password, and the shell keeps it:"
        " better --password-file or --password-stdin"
    )
    with suppress(OSError, ValueError, IndexError):  # Elsewhere it stays: as said.
        fields = Path("/proc/self/stat").read_bytes().rpartition(b")")[2].split()
        start, end = int(fields[ARGUMENTS_START]), int(fields[ARGUMENTS_END])
        wanted = os.fsencode(secret)
        with open("/proc/self/mem", "r+b", buffering=0) as memory:
            memory.seek(start)
            arguments = memory.read(end - start).split(b"\0")
            memory.seek(start)
            memory.write(
                b"\0".join(
                    one.removesuffix(wanted) + b"x" * len(wanted) if one.endswith(wanted) else one
                    for one in arguments
                )
            )
