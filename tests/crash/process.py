"""The broker under test: a real process that can be killed, and its file read while it is dead."""

from __future__ import annotations

import asyncio
import errno
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from broker.cursors import Stage, unpack
from tests.crash.checker import check_growth
from tests.crash.history import Cursor, History, Stored, decode_payload

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 20.0
STOP_TIMEOUT_S = 20.0


class BrokerProcess:
    """`pubsub broker start` on a data directory of its own, started as often as wanted.

    As a context manager it leaves no process behind. `up` is set while it accepts connections.
    """

    def __init__(self, directory: Path, settings: Mapping[str, int] | None = None) -> None:
        self.port = free_port()
        self.data_dir = directory / "data"
        self.stderr = directory / "broker.stderr"
        self.up = asyncio.Event()
        self._settings = directory / "broker.toml"
        self._settings.write_text(
            "".join(f"{key} = {value}\n" for key, value in (settings or {}).items())
        )
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> BrokerProcess:
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

    async def start(self) -> None:
        """Returns when it accepts connections. Raises RuntimeError if it does not come to that."""
        self._process = self._spawn()
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                while not await accepts(self.port):
                    if self._process.poll() is not None:
                        raise RuntimeError(f"the broker ended:\n{self.stderr.read_text()[-3000:]}")
                    await asyncio.sleep(0.01)
        except TimeoutError:
            message = f"the broker does not accept:\n{self.stderr.read_text()[-3000:]}"
            raise RuntimeError(message) from None
        self.up.set()

    def _spawn(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "cli.main", "broker", "start"]
        command += ["--port", str(self.port), "--data-dir", str(self.data_dir)]
        command += ["--config", str(self._settings)]
        with self.stderr.open("ab") as stderr:
            return subprocess.Popen(
                command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stderr, stderr=stderr
            )

    def kill(self) -> None:
        """SIGKILL: from here on the process does nothing more."""
        assert self._process is not None
        self.up.clear()
        self._process.kill()
        code = self._process.wait()
        self._process = None
        assert code == -signal.SIGKILL, f"the broker had ended by itself with {code}"

    def examine(self, history: History) -> list[str]:
        """Read the file of a dead broker into the history, and begin the next epoch. Returns how
        the log contradicts what was read before."""
        log = self._read_log()
        faults = check_growth(history.log, log, history.epoch)
        history.log.update((row.offset, row) for row in log)
        history.cursors += self._read_cursors(history.epoch)
        history.epoch += 1
        return faults

    async def stop(self) -> int:
        """SIGTERM; the exit code. A broker that does not end is killed: TimeoutExpired."""
        assert self._process is not None
        self.up.clear()
        self._process.send_signal(signal.SIGTERM)
        code = await asyncio.to_thread(self._process.wait, STOP_TIMEOUT_S)
        self._process = None
        return code

    def resident_bytes(self, *, peak: bool = False) -> int:
        """What it holds in RAM now, or what it ever held since its start, as the kernel says."""
        assert self._process is not None
        name = "VmHWM:" if peak else "VmRSS:"
        for line in Path(f"/proc/{self._process.pid}/status").read_text("ascii").splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
        raise AssertionError(f"no {name} in /proc")

    def _read_log(self) -> list[Stored]:
        rows = self._query("SELECT offset, publisher, topic, qos, payload FROM history")
        log = []
        for offset, publisher, topic, qos, payload in rows:
            key, _ = decode_payload(payload)
            assert key.publisher == publisher
            log.append(Stored(offset, key, topic, qos))
        return log

    def _read_cursors(self, epoch: int) -> list[Cursor]:
        rows = self._query("SELECT client_id, offset, sent_through, inflight FROM cursors")
        return [
            Cursor(
                client,
                epoch,
                offset,
                sent_through,
                frozenset(
                    entry.offset
                    for entry in unpack(inflight)
                    if entry.stage is not Stage.RELEASED and not entry.aside
                ),
            )
            for client, offset, sent_through, inflight in rows
        ]

    def _query(self, sql: str) -> list[tuple[Any, ...]]:
        (path,) = self.data_dir.glob("*.db")
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()


async def accepts(port: int) -> bool:
    """Whether something listens on this port of the loopback interface."""
    with socket.socket() as probe:
        probe.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(probe, ("127.0.0.1", port))
        except OSError as error:
            if error.errno != errno.ECONNREFUSED:
                raise
            return False
    return True


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to outgoing connections: a
    client that tries such a port while the broker is down can end up connected to itself."""
    while True:
        port = random.randrange(20_001, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
        return port
