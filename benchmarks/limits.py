"""What this machine can do at most: the figures that each scenario is compared with.

- *commit N rows*: messages a second that bare SQLite commits, N in each transaction and statement,
  to the table of our own migration, WAL, `synchronous=FULL`; and the latency of one such commit,
  alone and beside a noisy neighbour (`disk.py`).
- *fsync*: appends of 4 KiB, each with an fdatasync, without a database.
- *relay*: messages (or deliveries) a second through one Python process with a bare uvloop Protocol
  that acknowledges by stride and copies what it read to every subscriber: the same load generator,
  sockets and scheduler, and none of a broker's work.
- *committing relay*: the same, with each read committed by bare SQLite as above, in the loop,
  before it is acknowledged and copied: what the next message waits for where the window is small.

`python -m benchmarks.limits PORT [DATABASE]` is the relay; `measure()` is everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import struct
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path
from typing import ClassVar, cast

import uvloop

from benchmarks.brokers import RESULTS, running
from benchmarks.disk import noisy_neighbour
from benchmarks.loads import PAYLOAD_BYTES, Result, Run, latency, stream
from cli.bench.connection import Loop
from cli.bench.load import ANSWERS_PER_READ
from cli.bench.packets import ANSWER_BYTES, PUBACK

COLUMNS = (
    "topic_id, publisher_id, published_at_us, qos, retain, expires_at_us, payload, properties, crc"
)


def measure(seconds: float) -> dict[str, float]:
    """Every limit, by the name under which a scenario refers to it; about `seconds` for each."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=RESULTS, prefix="limits-") as directory:
        return {**disk(Path(directory), seconds), **relayed(seconds)}


def disk(directory: Path, seconds: float) -> dict[str, float]:
    limits: dict[str, float] = {}
    took = _repeat(_fsync(directory / "fsync"), seconds)
    limits["fsync"] = len(took) / sum(took)
    for rows, payload_bytes, durable, name in (
        (1, PAYLOAD_BYTES, True, "commit 1 row"),
        (20, PAYLOAD_BYTES, True, "commit 20 rows"),
        (500, PAYLOAD_BYTES, True, "commit 500 rows"),
        (500, PAYLOAD_BYTES, False, "commit 500 rows, no fsync"),
        (20, 64 * 1024, True, "commit 20 rows of 64 KiB"),
    ):
        path = directory / f"{name}.db"
        with contextlib.closing(_database(path, durable=durable)) as database:
            commit = _commit(database, rows, payload_bytes)
            took = _repeat(commit, seconds)
            limits[name] = rows * len(took) / sum(took)
            if rows == 1:
                limits |= _times(name, took)
                with noisy_neighbour(directory):
                    limits |= _times(f"{name}, noisy neighbour", _repeat(commit, seconds))
        for file in directory.glob(f"{name}.db*"):
            file.unlink()
    return limits


def _times(name: str, took: Sequence[float]) -> dict[str, float]:
    return {
        f"{name} p50 ms": quantile(took, 0.50) * 1e3,
        f"{name} p99 ms": quantile(took, 0.99) * 1e3,
    }


def _repeat(call: Callable[[], None], seconds: float) -> list[float]:
    """How long each call took, in seconds."""
    took = []
    now = time.perf_counter()
    stop_at = now + seconds
    while now < stop_at:
        call()
        before, now = now, time.perf_counter()
        took.append(now - before)
    return took


def _fsync(path: Path) -> Callable[[], None]:
    file = path.open("wb", buffering=0)
    block = bytes(4096)

    def append() -> None:
        file.write(block)
        os.fdatasync(file.fileno())

    return append


def _database(path: Path, *, durable: bool) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.executescript(resources.files("migrations").joinpath("0001_initial.sql").read_text())
    database.execute("PRAGMA journal_mode = WAL")
    database.execute(f"PRAGMA synchronous = {'FULL' if durable else 'OFF'}")
    return database


def quantile(values: Sequence[float], part: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


def _commit(database: sqlite3.Connection, rows: int, payload_bytes: int) -> Callable[[], None]:
    row = (1, 1, 1_700_000_000_000_000, 1, 0, 0, bytes(payload_bytes), b"", 0xDEADBEEF)
    places = f"({', '.join('?' * len(row))})"
    insert = f"INSERT INTO messages ({COLUMNS}) VALUES {', '.join([places] * rows)}"
    values = row * rows

    def commit() -> None:
        database.execute("BEGIN IMMEDIATE")
        database.execute(insert, values)
        database.execute("COMMIT")

    return commit


def relayed(seconds: float) -> dict[str, float]:
    limits = {}
    for name, broker, run in (
        ("relay QoS 1", "relay", stream(qos=1, lead=5000)),
        ("relay QoS 0", "relay", stream(qos=0, lead=5000)),
        ("relay QoS 1 to 100", "relay", stream(qos=1, lead=2000, subscribers=100)),
        ("relay QoS 0 to 100", "relay", stream(qos=0, lead=2000, subscribers=100)),
        ("committing relay", "committing relay", stream(qos=1, lead=5000)),
        ("committing relay, window 20", "committing relay", stream(qos=1, window=20, lead=1000)),
        ("committing relay, window 1", "committing relay", stream(qos=1, window=1, lead=1000)),
    ):
        result = _run_on(broker, run, seconds)
        assert result.delivered_per_s is not None
        limits[name] = result.delivered_per_s
    result = _run_on("committing relay", latency(qos=1, per_s=1000), seconds)
    for quantile in ("p50 ms", "p99 ms"):
        limits[f"committing relay {quantile}"] = result.details[quantile]
    return limits


def _run_on(name: str, run: Run, seconds: float) -> Result:
    result = Result(name, name)
    with running(name) as broker, contextlib.closing(Loop()) as loop:
        run(broker, loop, seconds, result)
    return result


class Relay(asyncio.Protocol):
    """Copies a publisher's packets, all of one length, to every subscriber.

    It leans on what our load generator does: a handshake packet comes alone, and a publisher's
    packets of one topic use the Packet Identifiers in a way that suits every subscriber.
    """

    subscribers: ClassVar[set[asyncio.WriteTransport]] = set()
    database: ClassVar[sqlite3.Connection | None] = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self._length = 0
        self._partial = b""
        self._answers = bytearray(bytes((PUBACK, 2, 0, 0)) * ANSWERS_PER_READ)

    def connection_lost(self, error: Exception | None) -> None:
        self.subscribers.discard(self._transport)

    def data_received(self, data: bytes) -> None:
        if self._length:
            self._relay(self._partial + data)
        elif data[0] == 0x10:
            self._transport.write(b"\x20\x02\0\0")
        elif data[0] == 0x82:
            self._transport.write(bytes((0x90, 3, data[2], data[3], data[-1])))
            self.subscribers.add(self._transport)
        elif data[0] & 0xF0 == 0x30:
            self._shape(data)
            self._relay(data)

    def _shape(self, data: bytes) -> None:
        """Length of the packets to come, and where their Packet Identifier is."""
        body_at = next(at for at in range(1, 5) if data[at] < 0x80) + 1
        body = sum((data[at] & 0x7F) << 7 * (at - 1) for at in range(1, body_at))
        self._length = body_at + body
        topic_bytes = struct.unpack_from(">H", data, body_at)[0]
        self._identifier_at = body_at + 2 + topic_bytes if data[0] & 0x06 else 0

    def _relay(self, data: bytes) -> None:
        count = len(data) // self._length
        whole = count * self._length
        packets, self._partial = data[:whole], data[whole:]
        if self.database is not None and count:
            _commit(self.database, count, PAYLOAD_BYTES)()
        for subscriber in self.subscribers:
            subscriber.write(packets)
        if at := self._identifier_at:
            run = self._answers[: count * ANSWER_BYTES]
            run[2::4] = packets[at :: self._length]
            run[3::4] = packets[at + 1 :: self._length]
            self._transport.write(run)


async def serve(port: int) -> None:
    server = await asyncio.get_running_loop().create_server(Relay, "127.0.0.1", port)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if len(sys.argv) > 2:
        Relay.database = _database(Path(sys.argv[2]), durable=True)
    uvloop.run(serve(int(sys.argv[1])))
