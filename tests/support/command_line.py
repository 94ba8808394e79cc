"""The command `pubsub` in a process of its own: run to its end, or kept running."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.broker_process import ROOT, BrokerProcess, wait_until

TIMEOUT_S = 20.0
COMMAND = [sys.executable, "-m", "cli.main"]


def pubsub(
    *arguments: str | Path,
    stdin: bytes = b"",
    cwd: Path = ROOT,
    environment: Mapping[str, str] | None = None,
) -> subprocess.CompletedProcess[bytes]:
    """Run a command to its end."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        input=stdin,
        capture_output=True,
        timeout=TIMEOUT_S,
        env={
            "PYTHONPATH": str(ROOT),
            "PATH": "/usr/bin:/bin",
            "XDG_CONFIG_HOME": "/nonexistent",
            **(environment or {}),
        },
        cwd=cwd,
        check=False,
    )


def succeed(*arguments: str | Path, stdin: bytes = b"") -> list[str]:
    """Run a command that ends well; the lines of its output."""
    done = pubsub(*arguments, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr
    return done.stdout.decode().splitlines()


def fail(code: int, *arguments: str | Path, stdin: bytes = b"") -> str:
    """Run a command that ends with `code` and no traceback; what it says."""
    done = pubsub(*arguments, stdin=stdin)
    said = done.stderr.decode()
    assert done.returncode == code, said
    assert "Traceback" not in said
    return said


class Running:
    """A command that goes on; `lines` are what it has written so far."""

    def __init__(self, directory: Path, *arguments: str | Path) -> None:
        self.output = directory / f"output{time.monotonic_ns()}"
        self.errors = self.output.with_suffix(".errors")
        with self.output.open("wb") as stdout, self.errors.open("wb") as stderr:
            self.process = subprocess.Popen(
                [*COMMAND, *map(str, arguments)],
                stdin=subprocess.DEVNULL,
                stdout=stdout,
                stderr=stderr,
                cwd=ROOT,
            )

    def lines(self) -> list[str]:
        return self.output.read_text().splitlines()

    def said(self) -> str:
        return self.errors.read_text()

    def wait_said(self, text: str) -> None:
        wait_until(lambda: text in self.said(), timeout_s=TIMEOUT_S)

    def wait_lines(self, count: int) -> None:
        wait_until(lambda: len(self.lines()) >= count, timeout_s=TIMEOUT_S)

    def interrupt(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(TIMEOUT_S)


@contextmanager
def running(directory: Path, *arguments: str | Path, says: str) -> Iterator[Running]:
    command = Running(directory, *arguments)
    try:
        command.wait_said(says)
        yield command
    finally:
        command.process.kill()
        command.process.wait()


def at(broker: BrokerProcess) -> tuple[str, str]:
    return "-p", str(broker.port)
