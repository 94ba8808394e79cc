"""The broker under test among clients in an event loop, and its file read while it is dead."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType

from broker.config import DATABASE
from broker.documents import CursorDocument, InFlightDocument
from broker.session.cursor import listed
from broker.session.exchange import Stage
from tests.crash.checker import check_growth
from tests.crash.history import Cursor, History, Stored, decode_payload
from tests.support.broker_process import BrokerProcess
from tests.support.sqlite import problems


class KillableBroker:
    """`pubsub broker start` on a data directory of its own, started as often as wanted.

    As a context manager it leaves no process behind. `up` is set while it accepts connections.
    """

    def __init__(self, directory: Path, settings: Mapping[str, object] | None = None) -> None:
        self._broker = BrokerProcess(directory, settings)
        self.port = self._broker.port
        self.up = asyncio.Event()
        self.complaints = self._broker.complaints
        self.resident_bytes = self._broker.resident_bytes

    def __enter__(self) -> KillableBroker:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._broker.__exit__(kind, error, traceback)

    async def start(self) -> None:
        """Returns when it accepts connections."""
        await asyncio.to_thread(self._broker.start)
        self.up.set()

    def kill(self) -> None:
        """SIGKILL: from here on the process does nothing more."""
        self.up.clear()
        self._broker.kill()

    async def stop(self) -> int:
        """SIGTERM; the exit code. A broker that does not end is killed: TimeoutExpired."""
        self.up.clear()
        return await asyncio.to_thread(self._broker.stop)

    def examine(self, history: History) -> list[str]:
        """Read the file of a dead broker into the history, and begin the next epoch. Returns what
        `pubsub check` says of it, and how the log contradicts what was read before."""
        log = self.read_log()
        faults = problems(self._broker.data_dir / DATABASE)
        faults += check_growth(history.log, log, history.epoch)
        history.log.update((row.offset, row) for row in log)
        history.cursors += self._read_cursors(history.epoch)
        history.epoch += 1
        return faults

    def read_log(self) -> list[Stored]:
        rows = self._broker.query("SELECT offset, publisher, topic, qos, payload FROM history")
        log = []
        for offset, publisher, topic, qos, payload in rows:
            key, _ = decode_payload(payload)
            assert key.publisher == publisher
            log.append(Stored(offset, key, topic, qos))
        return log

    def _read_cursors(self, epoch: int) -> list[Cursor]:
        pages: dict[str, list[InFlightDocument]] = {}
        for row in self._broker.query("SELECT client_id, page, exchanges FROM in_flight"):
            pages.setdefault(row[0], []).append(InFlightDocument(*row))
        rows = self._broker.query(
            "SELECT client_id, offset, sent_through, next_packet_id, inflight FROM cursors"
        )
        return [
            Cursor(
                cursor.client_id,
                epoch,
                cursor.offset,
                cursor.sent_through,
                frozenset(
                    entry.offset
                    for entry in listed(cursor, pages.get(cursor.client_id, ()))
                    if entry.stage is not Stage.RELEASED and not entry.aside
                ),
            )
            for cursor in [CursorDocument(*row) for row in rows]
        ]
