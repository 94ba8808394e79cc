"""Long work: how far a command is, on a terminal, and Ctrl-C as an end between two steps."""

from __future__ import annotations

import shutil
import time
from types import TracebackType

from cli import output
from cli.failure import CommandFailed
from cli.interrupt import Interrupt

SHOWN_EVERY_S = 0.2


class LongWork:
    """While entered, SIGINT and SIGTERM end the work at its next step.

    Then it raises CommandFailed: "interrupted", and `undone`, which says what there is not.
    """

    def __init__(self, doing: str, undone: str) -> None:
        self._doing = doing
        self._undone = undone
        self._interrupt = Interrupt()
        self._began = time.perf_counter()
        self._shown = self._began

    def __enter__(self) -> LongWork:
        self._interrupt.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._interrupt.__exit__(kind, error, traceback)
        output.progress("")
        if isinstance(error, KeyboardInterrupt):
            raise CommandFailed(f"interrupted: {self._undone}") from error

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._began

    def interrupted(self) -> bool:
        return self._interrupt.requested

    def step(self, done: int, total: int, *, doing: str = "", unit: str = "messages") -> None:
        """So much is done. Raises KeyboardInterrupt if that was asked for."""
        self._interrupt.check()
        now = time.perf_counter()
        if now - self._shown < SHOWN_EVERY_S:
            return
        self._shown = now
        line = f"{doing or self._doing}: {done:,} of {total:,} {unit}"
        if 0 < done < total:
            line += f", about {self.seconds * (total - done) / done:.0f} s left"
        output.progress(line[: shutil.get_terminal_size().columns - 1])


def speed(size: int, seconds: float) -> str:
    """`12.3 MB in 1.2 s (10 MB/s)`."""
    return f"{size / 1e6:,.1f} MB in {seconds:.1f} s ({size / 1e6 / max(seconds, 1e-6):,.0f} MB/s)"
