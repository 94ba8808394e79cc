"""A disk that fails, stalls or is full under one process, from one moment to the next."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

SOURCE = Path(__file__).with_name("disk.c")


class FailingDisk:
    """The disk that has `directory`, for processes with this `environment`."""

    def __init__(self, directory: Path, where: Path) -> None:
        """`where` there is room for two files."""
        library = where / "disk.so"
        self._state = where / "disk.state"
        subprocess.run(
            ["cc", "-O1", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"], check=True
        )
        self.environment: Mapping[str, str] = {
            "LD_PRELOAD": str(library),
            "DISK_DIR": str(directory),
            "DISK_STATE": str(self._state),
        }

    def become(self, state: str) -> None:
        """`fail`, `full` or `stall`."""
        self._state.write_text(state)
