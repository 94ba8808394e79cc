"""Long work: how far a command is, on a terminal, and Ctrl-C as an end between two steps."""

from __future__ import annotations

import os
import select
import shutil
import sqlite3
import time
from contextlib import suppress
from threading import Thread
from types import TracebackType

from cli.terminal import output
from cli.terminal.failure import CommandFailed
from cli.terminal.interrupt import Interrupt

SHOWN_EVERY_S = 0.2
SILENT_S = 1.0
"""After so long without a step, as in a long statement, how long it goes on already is shown."""


class LongWork:
    """While entered, SIGINT, SIGTERM and SIGHUP end the work at its next step, or in the statement
    that runs on a connection that it watches.

    Then it raises CommandFailed: "interrupted", and `undone`, which says what there is not.
    """

    def __init__(self, doing: str, undone: str) -> None:
        self._doing = doing
        self._undone = undone
        self._interrupt = Interrupt()
        self._watched: list[sqlite3.Connection] = []
        self._began = time.perf_counter()
        self._shown = self._began
        self._part, self._part_began, self._part_done = "", self._began, 0
        """What is being done, since when, and how much was done then."""

    def __enter__(self) -> LongWork:
        self._interrupt.__enter__()
        self._over, self._end = os.pipe()
        self._thread = Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        os.close(self._end)
        self._thread.join()
        os.close(self._over)
        self._interrupt.__exit__(kind, error, traceback)
        output.progress("")
        if error is not None and self._interrupt.requested:
            raise CommandFailed(f"interrupted: {self._undone}") from error

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._began

    def watch(self, connection: sqlite3.Connection) -> None:
        self._watched.append(connection)

    def step(self, done: int, total: int, *, doing: str = "", unit: str = "messages") -> None:
        """So much is done. Raises KeyboardInterrupt if that was asked for."""
        self._interrupt.check()
        if time.perf_counter() - self._shown < SHOWN_EVERY_S:
            return
        doing = doing or self._doing
        now = time.perf_counter()
        if doing != self._part:
            self._part, self._part_began, self._part_done = doing, now, done
        line = f"{doing}: {done:,} of {total:,} {unit}"
        if self._part_done < done < total:
            left_s = (now - self._part_began) * (total - done) / (done - self._part_done)
            line += f", about {left_s:.0f} s left"
        self._show(line)

    def _show(self, line: str) -> None:
        self._shown = time.perf_counter()
        output.progress(line[: shutil.get_terminal_size().columns - 1])

    def _watch(self) -> None:
        """In a thread of its own: no Python runs in that of the work while a statement does."""
        interrupt = self._interrupt.fileno()
        while True:
            ready, _, _ = select.select([interrupt, self._over], [], [], SHOWN_EVERY_S)
            if self._over in ready:
                return
            if ready:
                for connection in self._watched:
                    with suppress(sqlite3.ProgrammingError):  # It is closed.
                        connection.interrupt()
                time.sleep(SHOWN_EVERY_S / 10)  # The next statement may have begun just then.
            elif time.perf_counter() - self._shown > SILENT_S:
                self._show(f"{self._doing}: {self.seconds:.0f} s")


def speed(size: int, seconds: float) -> str:
    """`12.3 MB in 1.2 s (10 MB/s)`."""
    return f"{size / 1e6:,.1f} MB in {seconds:.1f} s ({size / 1e6 / max(seconds, 1e-6):,.0f} MB/s)"
