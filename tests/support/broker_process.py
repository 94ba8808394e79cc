"""The broker under test: a real process on a data directory of its own, which can be killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0
WAIT_TIMEOUT_S = 10.0


class BrokerProcess:
    """`pubsub broker start`, as often as wanted. As a context manager it leaves no process behind.

    `settings` are those of `broker.config.Config`. What it prints is kept in `stderr`.
    """

    def __init__(
        self,
        directory: Path,
        settings: Mapping[str, object] | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.port = free_port()
        self.data_dir = directory / "data"
        self.stderr = directory / "broker.stderr"
        self._settings = directory / "broker.toml"
        self._settings.write_text(
            "".join(f"{key} = {value!r}\n" for key, value in (settings or {}).items())
        )
        self._has_listeners = "listeners" in (settings or {})
        self._environment = {**os.environ, **(environment or {})}
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def start(self, *options: str) -> None:
        """Returns when it accepts connections."""
        process = self.begin(*options)

        def accepts() -> bool:
            assert process.poll() is None, f"the broker ended:\n{self.stderr.read_text()}"
            return listens(self.port)

        wait_until(accepts, timeout_s=START_TIMEOUT_S)

    def advertise(self) -> None:
        """Let other brokers refer clients to its port. Before it starts."""
        with self._settings.open("a") as settings:
            settings.write(f"advertise = '127.0.0.1:{self.port}'\n")

    def begin(self, *options: str) -> subprocess.Popen[bytes]:
        """Returns at once."""
        command = [sys.executable, "-m", "cli.main", "broker", "start"]
        command += [] if self._has_listeners else ["--port", str(self.port)]
        command += ["--data-dir", str(self.data_dir)]
        command += ["--config", str(self._settings), *options]
        with self.stderr.open("ab") as stderr:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=stderr,
                stderr=stderr,
            )
        return self._process

    def kill(self) -> None:
        """SIGKILL: from here on the process does nothing more."""
        assert self._process is not None
        self._process.kill()
        code = self._process.wait()
        assert code == -signal.SIGKILL, f"the broker had ended by itself with {code}"
        self._process = None

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """The process does nothing meanwhile, and time passes."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        code = self._process.wait(STOP_TIMEOUT_S)
        self._process = None
        return code

    def resident_bytes(self, *, peak: bool = False) -> int:
        """What it holds in RAM now, or the most it ever held since its start."""
        assert self._process is not None
        name = "VmHWM:" if peak else "VmRSS:"
        for line in Path(f"/proc/{self._process.pid}/status").read_text("ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} in /proc")

    def query(self, sql: str, *parameters: object) -> list[tuple[Any, ...]]:
        """Read its database, whether it runs or not."""
        connection = sqlite3.connect(f"file:{self.data_dir / 'pubsub.db'}?mode=ro", uri=True)
        try:
            return connection.execute(sql, parameters).fetchall()
        finally:
            connection.close()

    def complaints(self) -> list[str]:
        """Lines of what it printed that only a mistake of ours can explain."""
        signs = ("Traceback", "Error:", "CRITICAL", "never retrieved", "never awaited")
        lines = self.stderr.read_text().splitlines()
        return [line for line in lines if any(sign in line for sign in signs)]


def wait_until(condition: Callable[[], bool], *, timeout_s: float = WAIT_TIMEOUT_S) -> None:
    """For what only asking again can tell. Fails when it does not become true."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, "this did not come about in time"
        time.sleep(0.01)


def listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _ports() -> Iterator[int]:
    """Below those that the kernel gives to outgoing connections: a client that tries such a port
    while the broker is down can end up connected to itself. Each worker of a run has its own."""
    worker = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    ports = range(20_001 + worker, 32_000, workers)
    return iter(random.sample(ports, len(ports)))


_unused_ports = _ports()


def free_port() -> int:
    """One that nobody listens on, and that this run gave to nobody else."""
    for port in _unused_ports:
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
    raise AssertionError("no port is free")
