"""SIGHUP: a file that was moved away is opened again; a terminal that is gone ends the broker."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.support.broker_process import ROOT

SCRIPT = """
import logging, os, signal, sys
from cli.process.diagnostics import Diagnostics
with Diagnostics("info") as diagnostics:
    print("ready", flush=True)
    signal.sigwait([signal.SIGUSR1])
    going_on = diagnostics.hang_up()
    logging.getLogger("broker").info("after")
    logging.getLogger("aiosqlite").info("with parameters")
sys.exit(0 if going_on else 9)
"""


def start(stderr: int) -> subprocess.Popen[bytes]:
    """Returns when it has looked at its standard error."""
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=stderr,
        cwd=ROOT,
    )
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGUSR1])
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    return process


def hang_up(process: subprocess.Popen[bytes]) -> int:
    with process:
        process.send_signal(signal.SIGUSR1)
        return process.wait(20)


def lines(path: Path) -> Sequence[str]:
    """Without the time."""
    return [line.partition(" ")[2] for line in path.read_text().splitlines()]


def test_a_file_that_was_rotated_is_opened_again_by_its_name(tmp_path: Path) -> None:
    path = tmp_path / "broker.log"
    with path.open("ab") as stderr:
        process = start(stderr.fileno())
    path.rename(tmp_path / "broker.log.1")
    assert hang_up(process) == 0
    assert lines(tmp_path / "broker.log.1") == []
    assert lines(path) == [
        f"SIGHUP: diagnostics go to {path}, opened again",
        "after",
    ]


def test_a_file_that_cannot_be_opened_again_is_written_to_as_before(tmp_path: Path) -> None:
    path = tmp_path / "logs" / "broker.log"
    path.parent.mkdir()
    with path.open("ab") as stderr:
        process = start(stderr.fileno())
    path.parent.rename(tmp_path / "gone")
    assert hang_up(process) == 0
    said = lines(tmp_path / "gone" / "broker.log")
    assert said[0] == f"ERROR diagnostics cannot be written to {path}: No such file or directory"
    assert said[-1] == "after"


def test_a_terminal_that_is_there_is_gone_on_with_and_one_that_is_gone_ends_it() -> None:
    for closed, code in ((False, 0), (True, 9)):
        ours, theirs = pty.openpty()
        process = start(theirs)
        os.close(theirs)
        if closed:
            os.close(ours)
        assert hang_up(process) == code
        if not closed:
            os.close(ours)


def test_a_file_without_a_name_is_not_opened_again(tmp_path: Path) -> None:
    path = tmp_path / "broker.log"
    with path.open("ab") as stderr:
        path.unlink()
        process = start(stderr.fileno())
    assert hang_up(process) == 0
    assert list(tmp_path.iterdir()) == []


def test_a_reader_that_has_gone_changes_neither_the_end_nor_its_code() -> None:
    reader, writer = os.pipe()
    process = start(writer)
    os.close(writer)
    os.close(reader)
    assert hang_up(process) == 0


def test_lines_go_nowhere_when_standard_error_is_closed(tmp_path: Path) -> None:
    """And not into whatever file or socket would get its number."""
    script = f"""
import os
os.close(2)
from cli.process.diagnostics import Diagnostics, logger
with Diagnostics("info"):
    file = open({str(tmp_path / "pubsub.db")!r}, "w")
    logger.error("said")
"""
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, timeout=20).returncode == 0
    assert (tmp_path / "pubsub.db").read_text() == ""


def test_the_journal_gets_priorities_and_no_second_time() -> None:
    """As in a unit file, whose standard error is the journal."""
    reader, writer = os.pipe()
    status = os.fstat(writer)
    journal = f"{status.st_dev}:{status.st_ino}"
    script = """
from cli.process.diagnostics import Diagnostics, logger
with Diagnostics("info"):
    logger.info("one")
    logger.warning("two")
    logger.debug("three")
"""
    subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        stderr=writer,
        env=os.environ | {"JOURNAL_STREAM": journal},
        timeout=20,
        check=True,
    )
    os.close(writer)
    with open(reader, "rb") as journal_file:
        assert journal_file.read() == b"<6>one\n<4>WARNING two\n"
