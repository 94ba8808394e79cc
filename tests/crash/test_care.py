"""`pubsub restore` and `pubsub compact` are killed at each step that changes a file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from broker.errors import StoreCorrupt
from broker.message import Offset
from cli.care.backup import backup
from tests.support.broker_process import ROOT
from tests.support.messages import message, numbered
from tests.support.sqlite import opened, problems
from tests.support.stores import read_all

CHILD = """
import os, sys
from pathlib import Path
from cli.care.compact import compact
from cli.care.restore import restore

left = int(sys.argv[1])

def killed_after(function):
    def call(*arguments, **options):
        global left
        done = function(*arguments, **options)
        left -= 1
        if left == 0:
            os._exit(9)
        return done
    return call

for name in ("fsync", "ftruncate", "link", "rename", "unlink"):
    setattr(os, name, killed_after(getattr(os, name)))
backup, data_dir = map(Path, sys.argv[3:])
if sys.argv[2] == "restore":
    restore(backup, data_dir, replace=True)
else:
    compact(data_dir)
"""
OLD, NEW = 1500, 300
"""Messages in the log, and in the backup."""


@pytest.fixture
async def original(tmp_path: Path) -> Path:
    """A data directory that a kill left, with messages in the write-ahead log and with free pages.
    Beside it is a backup of an earlier time."""
    run = tmp_path / "run"
    run.mkdir()
    async with opened(run / "pubsub.db") as store:
        await store.append(numbered(NEW))
    backup(run, tmp_path / "backup.db")
    async with opened(run / "pubsub.db") as store:
        await store.append(numbered(10_000))
        await store.trim(Offset(store.high_watermark - OLD + 11))
        await store.append(numbered(10))
        shutil.copytree(run, tmp_path / "original")
    return tmp_path / "original"


async def found(path: Path) -> int:
    """How many messages a broker finds; -1: it does not start, and says why."""
    try:
        async with opened(path) as store:
            count = len(await read_all(store))
            later = [message("later")]
            await store.append(later)
            assert later[0].offset > NEW + 10_010
    except StoreCorrupt as error:
        return -1 if "write-ahead log pubsub.db-wal is missing" in str(error) else -2
    assert problems(path, at_rest=True) == []
    return count


@pytest.mark.parametrize(
    ("command", "ends"),
    [("restore", {OLD, -1, NEW}), ("compact", {OLD})],
    ids=["restore", "compact"],
)
async def test_a_kill_leaves_the_old_log_or_the_new_one_and_never_a_part(
    original: Path, command: str, ends: set[int]
) -> None:
    """P1, P2. Or none that a broker starts on, while the old one is set aside but for its name."""
    seen = set()
    for step in range(1, 100):
        data_dir = original.with_name(f"{command}{step}")
        shutil.copytree(original, data_dir)
        arguments = [str(step), command, original.with_name("backup.db"), data_dir]
        done = subprocess.run(  # noqa: ASYNC221
            [sys.executable, "-c", CHILD, *map(str, arguments)],
            cwd=ROOT,
            capture_output=True,
            timeout=60,
            check=False,
        )
        assert done.returncode in (0, 9), done.stderr
        seen.add(await found(data_dir / "pubsub.db"))
        if done.returncode == 0:
            break
    assert step > 4
    assert seen == ends
