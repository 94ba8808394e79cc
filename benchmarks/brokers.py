"""The brokers that are measured: each a process of its own, on a free port, with fresh data.

Ours is started as a user starts it. Mosquitto gets persistence, no limit on what it queues (or it
would drop silently) and TCP_NODELAY; it acknowledges before it stores, and stores every 30 minutes.
The relay (`limits.py`) is what a Python process can do at most on this machine's loopback.
"""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path

from cli.net.address import Address

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
"""Ignored by git, and on the same disk as the project: data directories go there too."""
START_S = 20.0
STOP_S = 60.0
TICKS_PER_S = os.sysconf("SC_CLK_TCK")

Command = Callable[[int, Path], list[str]]
"""From a port and an empty directory to a broker's command line."""


class BrokerProcess:
    """A running broker, and what the kernel says about it."""

    def __init__(
        self, name: str, port: int, process: subprocess.Popen[bytes], directory: Path
    ) -> None:
        self.name = name
        self.directory = directory
        self.database = directory / DATABASES.get(name, "none")
        self.address = Address(port=port)
        self.process = process

    def cpu_s(self) -> float:
        """User and system time of all its threads so far, also of those that ended."""
        fields = self._read("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS_PER_S

    def memory_mb(self) -> float:
        return self._status_mb("VmRSS")

    def memory_peak_mb(self) -> float:
        return self._status_mb("VmHWM")

    def _status_mb(self, key: str) -> float:
        lines = self._read("status").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(key))

    def _read(self, name: str) -> str:
        return Path(f"/proc/{self.process.pid}/{name}").read_text()


def ours(port: int, directory: Path) -> list[str]:
    return [
        *(sys.executable, "-m", "cli.main", "broker", "start"),
        *("--port", str(port), "--data-dir", str(directory / "data")),
    ]


def mosquitto(port: int, directory: Path) -> list[str]:
    settings = directory / "mosquitto.conf"
    settings.write_text(
        f"listener {port} 127.0.0.1\n"
        "allow_anonymous true\n"
        f"user {pwd.getpwuid(os.getuid()).pw_name}\n"
        "persistence true\n"
        f"persistence_location {directory}/\n"
        "max_inflight_messages 0\n"
        "max_queued_messages 0\n"
        "set_tcp_nodelay true\n"
        "log_dest stderr\n"
        "log_type error\n"
    )
    return [mosquitto_path() or "mosquitto", "-c", str(settings)]


def mosquitto_path() -> str | None:
    return shutil.which("mosquitto", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")


def relay(port: int, directory: Path) -> list[str]:
    return [sys.executable, "-m", "benchmarks.limits", str(port)]


def committing_relay(port: int, directory: Path) -> list[str]:
    return [*relay(port, directory), str(directory / "relay.db")]


BROKERS: dict[str, Command] = {
    "pubsub": ours,
    "mosquitto": mosquitto,
    "relay": relay,
    "committing relay": committing_relay,
}


DATABASES = {
    "pubsub": "data/pubsub.db",
    "mosquitto": "mosquitto.db",
    "committing relay": "relay.db",
}
"""In the broker's directory."""


@contextmanager
def running(
    name: str,
    directory: Path | None = None,
    environment: Mapping[str, str] | None = None,
    command: Command | None = None,
) -> Iterator[BrokerProcess]:
    """A broker that is stopped at the end: a fresh one, whose data is then removed, or one with the
    data that is in `directory`. `environment` is added to ours. `command`: of another than those of
    `BROKERS`."""
    with (
        scratch(name) if directory is None else nullcontext(directory) as data,
        tempfile.TemporaryFile() as diagnostics,
    ):
        port = free_port()
        process = subprocess.Popen(
            (command or BROKERS[name])(port, data),
            cwd=ROOT,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=diagnostics,
            stderr=diagnostics,
            start_new_session=True,  # Ctrl-C is ours: we stop it in order.
        )
        try:
            _wait_for_port(name, process, port)
            yield BrokerProcess(name, port, process, data)
        except BaseException as error:
            diagnostics.seek(0)
            if printed := diagnostics.read()[-2000:].decode(errors="replace").strip():
                error.add_note(f"{name} printed: {printed}")
            raise
        finally:
            _stop(process)


@contextmanager
def scratch(name: str) -> Iterator[Path]:
    """A directory on the project's disk, removed at the end."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix=f"{name}-") as directory:
        yield Path(directory)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for_port(name: str, process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
        except OSError:
            time.sleep(0.02)
        else:
            return
    ended = process.poll()
    state = (
        f"ended with exit code {ended}" if ended is not None else f"running after {START_S:.0f} s"
    )
    raise RuntimeError(f"{name} does not listen: {state}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
