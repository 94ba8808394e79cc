"""A neighbour on the disk: writes 1 MB every 50 ms and syncs it, as another database would.

`python -m benchmarks.neighbour FILE` says "syncing" after its first sync, and how many syncs it
made when its stdin is closed, or after ten minutes.
"""

from __future__ import annotations

import os
import select
import sys
import time
from pathlib import Path

WRITE_BYTES = 1_000_000
EVERY_S = 0.05
FILE_BYTES_MAX = 64_000_000
"""Then it starts over at the beginning of the file."""
SECONDS_MAX = 600.0


def main(path: Path) -> None:
    block = os.urandom(WRITE_BYTES)
    syncs = 0
    now = due = time.monotonic()
    stop_at = now + SECONDS_MAX
    with path.open("wb", buffering=0) as file:
        while now < stop_at and not select.select([sys.stdin], [], [], max(0.0, due - now))[0]:
            if file.tell() >= FILE_BYTES_MAX:
                file.seek(0)
            file.write(block)
            os.fsync(file.fileno())
            syncs += 1
            if syncs == 1:
                print("syncing", flush=True)
            now = time.monotonic()
            due = max(due + EVERY_S, now)
    print(syncs - 1, flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
