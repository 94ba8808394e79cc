"""Files that commands read whole."""

from __future__ import annotations

import os
from pathlib import Path
from threading import Thread

import pytest

from cli.operate import acl, users
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.reading import read, refuse_device


def test_a_device_that_never_ends_is_not_read_for_ever() -> None:
    for reads in (
        lambda: read(Path("/dev/zero"), 1000),
        lambda: acl.take(Path("d"), Path("/dev/zero")),
        lambda: users.take(Path("d"), Path("/dev/zero")),
    ):
        with pytest.raises(CommandFailed, match="/dev/zero: has more than") as refused:
            reads()
        assert refused.value.code is Exit.USAGE


def test_a_pipe_is_read_to_its_end(tmp_path: Path) -> None:
    """As a shell makes one: `pubsub acl import <(...)`."""
    path = tmp_path / "pipe"
    os.mkfifo(path)
    writes = Thread(target=path.write_bytes, args=(b"x" * 100_000,))
    writes.start()
    assert read(path) == b"x" * 100_000
    writes.join()


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="Is a directory"):
        read(tmp_path)
    with pytest.raises(CommandFailed, match="is no file"):
        refuse_device(Path("/dev/zero"))
    refuse_device(tmp_path)
