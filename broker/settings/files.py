"""Files that settings name: read whole, but only what is a file and not larger than it can be.

Opening a pipe waits for whoever writes, and a device may never end: a reload, or the start, would.
"""

from __future__ import annotations

from pathlib import Path
from stat import S_ISREG

from broker.errors import ConfigError

MIB = 1 << 20
FILE_BYTES_MAX = 16 * MIB


def read_file(setting: str, path: Path, bytes_max: int = FILE_BYTES_MAX) -> bytes:
    """Raises ConfigError: it cannot be read, is no file, or is too large."""
    try:
        if not S_ISREG(path.stat().st_mode):
            raise ConfigError(setting, str(path), "is no file")
        with path.open("rb") as file:
            content = file.read(bytes_max + 1)
    except OSError as error:
        raise ConfigError(setting, str(path), f"cannot be read: {error.strerror}") from error
    if len(content) > bytes_max:
        raise ConfigError(setting, str(path), f"has more than {bytes_max / MIB:g} MiB")
    return content
