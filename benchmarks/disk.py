"""The disk under a broker: slow to sync, busy with a neighbour, or counted.

A slow disk is an LD_PRELOAD library (`slow_sync.c`), so it needs a C compiler. A busy one is a
process that syncs beside the broker (`neighbour.py`). Where the machine cannot do it, LeftOut.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from benchmarks.brokers import RESULTS, ROOT
from cli.bench.histogram import Histogram

SOURCE = Path(__file__).with_name("slow_sync.c")
STOP_S = 10.0


class LeftOut(Exception):
    """This machine cannot measure that; the text says why."""


def delayed_syncs(delay_ms: int) -> Mapping[str, str]:
    """Environment of a process whose every fsync and fdatasync takes `delay_ms` longer.

    Raises LeftOut: there is no compiler, or it fails.
    """
    if not delay_ms:
        return {}
    return {"LD_PRELOAD": str(_library()), "SYNC_DELAY_MS": str(delay_ms)}


@cache
def _library() -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        raise LeftOut("delaying syncs needs a C compiler (cc)")
    RESULTS.mkdir(parents=True, exist_ok=True)
    library = RESULTS / "slow_sync.so"
    built = subprocess.run(
        [compiler, "-O1", "-Wall", "-shared", "-fPIC", "-o", library, SOURCE, "-ldl"],
        capture_output=True,
        text=True,
        check=False,
    )
    if built.returncode:
        raise LeftOut(f"cc cannot build {SOURCE.name}: {built.stderr.strip()[:200]}")
    return library


class Neighbour:
    """Another process that syncs on the same disk."""

    syncs_per_s = 0.0
    """Known when it has ended; 20 where the disk keeps up."""


@contextmanager
def noisy_neighbour(directory: Path) -> Iterator[Neighbour]:
    """One that syncs into a file in `directory`, from before the block to its end."""
    file = directory / "neighbour"
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.neighbour", str(file)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is ours.
    )
    assert process.stdin is not None
    assert process.stdout is not None
    neighbour = Neighbour()
    try:
        if not process.stdout.readline():
            raise RuntimeError("the neighbour on the disk ended before its first sync")
        start = time.monotonic()
        yield neighbour
        process.stdin.close()
        neighbour.syncs_per_s = int(process.stdout.readline()) / (time.monotonic() - start)
        process.wait(STOP_S)
    finally:
        process.kill()
        process.wait()
        process.stdin.close()
        process.stdout.close()
        file.unlink(missing_ok=True)


class Pauses:
    """How long acknowledgements, and deliveries, stood still while the broker wrote its database.

    In WAL mode only a checkpoint writes that file: its time of modification tells of one. `look` is
    called after each round of the load's loop.
    """

    def __init__(self, database: Path, now_s: float, *counts: int) -> None:
        """`counts` are what `look` will be told: how much was acknowledged, delivered ... so far.

        Seconds are of any clock that does not jump.
        """
        self._database = database
        self.checkpoints = Histogram()
        """Those in which the database was written."""
        self.all = Histogram()
        modified = self._modified()
        self._last = [(count, now_s, modified) for count in counts]

    def look(self, now_s: float, *counts: int) -> None:
        if all(count == last[0] for count, last in zip(counts, self._last, strict=True)):
            return
        modified = self._modified()
        for at, count in enumerate(counts):
            before, since_s, modified_before = self._last[at]
            if count == before:
                continue
            pause_us = round((now_s - since_s) * 1e6)
            self.all.add(pause_us)
            if modified != modified_before:
                self.checkpoints.add(pause_us)
            self._last[at] = count, now_s, modified

    def _modified(self) -> int:
        try:
            return self._database.stat().st_mtime_ns
        except FileNotFoundError:  # Mosquitto's, until it stores for the first time.
            return 0


def require_write_count(directory: Path) -> None:
    """Raises LeftOut unless the kernel counts what a process writes to this disk (not tmpfs)."""
    pid = os.getpid()
    try:
        before = written_bytes(pid)
        with tempfile.TemporaryFile(dir=directory) as file:
            file.write(bytes(64 * 1024))
            file.flush()
            os.fsync(file.fileno())
        counted = written_bytes(pid) > before
    except OSError as error:
        raise LeftOut(f"/proc/PID/io cannot be read: {error}") from error
    if not counted:
        raise LeftOut("the kernel does not count what is written to this disk")


def written_bytes(pid: int) -> int:
    """What a process caused to be written to disks so far. Raises OSError."""
    lines = Path(f"/proc/{pid}/io").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("write_bytes"))
