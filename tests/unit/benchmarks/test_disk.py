"""A slow disk is as slow as it is said to be, a neighbour ends with its row, pauses are counted."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import disk
from benchmarks.disk import LeftOut, Pauses, delayed_syncs, noisy_neighbour, require_write_count

SYNC = """
import os, sys, time
file = open(sys.argv[1], "wb")
for sync in os.fsync, os.fdatasync:
    start = time.monotonic()
    sync(file.fileno())
    print(time.monotonic() - start)
"""


@pytest.fixture
def no_library() -> Iterator[None]:
    disk._library.cache_clear()
    yield
    disk._library.cache_clear()


def test_each_sync_of_the_process_takes_longer(tmp_path: Path, no_library: None) -> None:
    if shutil.which("cc") is None:
        with pytest.raises(LeftOut, match="C compiler"):
            delayed_syncs(50)
        return
    took = subprocess.run(
        [sys.executable, "-c", SYNC, tmp_path / "file"],
        env={**os.environ, **delayed_syncs(50)},
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert [float(seconds) >= 0.05 for seconds in took] == [True, True]


def test_without_a_compiler_a_row_is_left_out(
    no_library: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    assert delayed_syncs(0) == {}
    with pytest.raises(LeftOut, match="needs a C compiler"):
        delayed_syncs(20)


def test_the_neighbour_syncs_from_the_beginning_and_ends_with_the_block(tmp_path: Path) -> None:
    with noisy_neighbour(tmp_path) as neighbour:
        before = (tmp_path / "neighbour").stat().st_size
        assert before >= 1_000_000
        while (tmp_path / "neighbour").stat().st_size == before:
            pass
    assert neighbour.syncs_per_s > 0
    assert list(tmp_path.iterdir()) == []


def test_a_pause_is_a_checkpoints_if_the_database_was_written_in_it(tmp_path: Path) -> None:
    database = tmp_path / "pubsub.db"
    database.touch()
    pauses = Pauses(database, 10.0, 0, 0)
    pauses.look(10.001, 5, 0)
    pauses.look(10.002, 5, 0)
    os.utime(database, ns=(1, 1))
    pauses.look(10.021, 6, 0)
    pauses.look(10.031, 6, 6)
    pauses.look(10.032, 7, 7)
    assert pauses.all.count == 5
    assert pauses.checkpoints.count == 2  # One of the acknowledgements, one of the deliveries.
    assert pauses.checkpoints.quantile_us(0.5) == pytest.approx(20_000, rel=0.01)
    assert pauses.checkpoints.max_us == pauses.all.max_us == 31_000


def test_a_database_that_is_not_there_yet_is_not_written(tmp_path: Path) -> None:
    pauses = Pauses(tmp_path / "mosquitto.db", 0.0, 0)
    pauses.look(1.0, 1)
    assert (pauses.all.count, pauses.checkpoints.count) == (1, 0)


def test_writes_are_left_out_where_the_kernel_does_not_count_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(pid: int) -> int:
        raise PermissionError("not yours")

    counts = iter((1000, 1001))
    monkeypatch.setattr(disk, "written_bytes", lambda pid: next(counts))
    require_write_count(tmp_path)
    monkeypatch.setattr(disk, "written_bytes", lambda pid: 1000)
    with pytest.raises(LeftOut, match="does not count"):
        require_write_count(tmp_path)
    monkeypatch.setattr(disk, "written_bytes", refused)
    with pytest.raises(LeftOut, match="not yours"):
        require_write_count(tmp_path)
