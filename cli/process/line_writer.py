"""Writes diagnostics to a file descriptor, in a thread of its own: the broker waits for nobody who
does not read its standard error, and a broken pipe or a full disk there does it no harm.

What cannot be written is counted, and the number is told when writing works again.
"""

from __future__ import annotations

import logging
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from broker.plural import counted
from cli.process.repeats import Repeats

WAITING_BYTES_MAX = 1 << 20
"""Lines that wait because nobody reads them; beyond, they are left out."""
COMPANY_S = 0.02
"""How long a line waits for others, to be written with them."""
FLUSH_TIMEOUT_S = 0.5
"""How long the end of the process waits for a reader."""


class LineWriter(logging.Handler):
    """`clock` is monotonic, in seconds."""

    def __init__(
        self,
        descriptor: int,
        formatter: logging.Formatter,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self.setFormatter(formatter)
        self._descriptor = descriptor
        self._clock = clock
        self._repeats = Repeats()
        self._lines: list[bytes] = []
        self._waiting_bytes = 0
        self._lost = 0
        """Lines that were not written, and not told of yet."""
        self._cut = False
        """Whether the last line was written in part."""
        self._writing = False
        self._closed = False
        self.lock = threading.RLock()
        """That of every logging.Handler, held while `emit` is called."""
        self._changed = threading.Condition(self.lock)
        threading.Thread(target=self._write_forever, name="diagnostics", daemon=True).start()

    def emit(self, record: logging.LogRecord) -> None:
        now = self._clock()
        ends_at = self._repeats.ends_at
        if ends_at is not None and now >= ends_at:
            self._tell_left_out()
        if not self._closed and self._repeats.shows(record, now):
            self._put(record)

    def flush(self) -> None:
        """Return when everything is written, or nobody has read for `FLUSH_TIMEOUT_S`."""
        with self._changed:
            self._changed.wait_for(
                lambda: not self._lines and not self._writing, timeout=FLUSH_TIMEOUT_S
            )

    def close(self) -> None:
        """Tell what was left out, and `flush`. What is logged later is not written."""
        with self._changed:
            if not self._closed:
                self._tell_left_out()
                self.flush()
                self._closed = True
                self._changed.notify_all()
        super().close()

    def _tell_left_out(self) -> None:
        for left_out in self._repeats.end_window():
            at_least = "at least " if left_out.at_least else ""
            self._put(left_out.last, f" [and {at_least}{left_out.count} more like this]")

    def _put(self, record: logging.LogRecord, more: str = "") -> None:
        try:
            line = self.format(record) + more
        except Exception as error:  # A mistake in a line must not stop the broker.
            line = f"{record.pathname}:{record.lineno}: this line cannot be made: {error!r}"
        data = line.encode("utf-8", "backslashreplace") + b"\n"
        if self._waiting_bytes + len(data) > WAITING_BYTES_MAX:
            self._lost += 1
            return
        self._lines.append(data)
        self._waiting_bytes += len(data)
        if len(self._lines) == 1:
            self._changed.notify_all()

    # The thread

    def _write_forever(self) -> None:
        # The signals that end the broker are for the thread that listens to them.
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while (lines := self._take()) is not None:
            lost = self._lost
            data = b"".join([b"\n" if self._cut else b"", *lines, self._lost_line(lost)])
            written = self._write(data)
            with self._changed:
                self._lost += len(lines) if written < len(data) else -lost
                self._cut = 0 < written < len(data)
                self._writing = False
                self._changed.notify_all()

    def _take(self) -> list[bytes] | None:
        """All that waits, when there is something; None: this is closed."""
        with self._changed:
            while not self._lines:
                if self._closed:
                    return None
                ends_at = self._repeats.ends_at
                left_s = None if ends_at is None else ends_at - self._clock()
                if left_s is not None and left_s <= 0:
                    self._tell_left_out()
                else:
                    self._changed.wait(left_s)
            # Each run of this thread takes the interpreter from the event loop.
            self._changed.wait_for(lambda: self._closed, timeout=COMPANY_S)
            lines, self._lines = self._lines, []
            self._waiting_bytes = 0
            self._writing = True
            return lines

    def _lost_line(self, count: int) -> bytes:
        if not count:
            return b""
        said = "%s of diagnostics could not be written"
        record = logging.LogRecord(
            __name__, logging.WARNING, "", 0, said, (counted(count, "line"),), None
        )
        return self.format(record).encode() + b"\n"

    def _write(self, data: bytes) -> int:
        """How many bytes the other side took."""
        written = 0
        while written < len(data):
            try:
                written += os.write(self._descriptor, data[written:])
            except BlockingIOError:  # Who shares the pipe or terminal with us made it so.
                select.select([], [self._descriptor], [])
            except OSError:  # `_lost` counts it: there is nowhere else to tell.
                break
        return written
