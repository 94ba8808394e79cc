"""Files that commands read whole: only as much as there can be of one, as a device never ends."""

from __future__ import annotations

from pathlib import Path
from stat import S_ISBLK, S_ISCHR

from cli.terminal.failure import CommandFailed, Exit

MIB = 1 << 20
BYTES_MAX = 64 * MIB
"""Of users, rules or certificates."""


def read(path: Path, bytes_max: int = BYTES_MAX) -> bytes:
    """A pipe is read to its end, too. Raises CommandFailed (2): it cannot be read, or is larger."""
    try:
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise CommandFailed(f"{path}: {error.strerror}", code=Exit.USAGE) from error
    if len(content) > bytes_max:
        raise CommandFailed(f"{path}: has more than {bytes_max / MIB:g} MiB", code=Exit.USAGE)
    return content


def refuse_device(path: Path) -> None:
    """For what a library reads to its end. Raises CommandFailed (2); OSError."""
    mode = path.stat().st_mode
    if S_ISCHR(mode) or S_ISBLK(mode):
        raise CommandFailed(f"{path}: is no file", code=Exit.USAGE)
