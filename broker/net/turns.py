"""Turns: how long what clients send may keep the loop, all of them together.

A read can be one message or 50,000, and hundreds of sockets can have one at the same time. So what
was read is worked on in pieces that take about PIECE_S each, and for TURN_S in a turn of the loop.
What is left waits for the next turns, in which each connection has a piece in its turn; its socket
is not read meanwhile. Reads of up to LITTLE_BYTES are worked on at once: a PINGREQ, an
acknowledgement or a small PUBLISH does not wait for a flood of others.

20,000 acknowledgements, or connections that end, are much in one turn all the same: beyond
LITTLE_MAX they wait for the next ones, too.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

from broker.clock import Clock
from broker.message import Monotonic

LITTLE_BYTES = 1024
TURN_S = 0.010
LITTLE_MAX = 500
"""They take 10 to 20 ms. Measured while they run, it would be the time of all others, too."""
PIECE_S = 0.002
PIECE_BYTES_FIRST = 16 * 1024
PIECE_BYTES_MIN = 4096
PIECE_BYTES_MAX = 256 * 1024
"""What uvloop and asyncio read at most."""

TURN = "turn"
"""Why a socket is not read while what it had waits here."""


class Arrived:
    """What was read from a socket, and is still to be worked on."""

    def __init__(self, clock: Clock) -> None:
        self.size = 0
        self._clock = clock
        self._data = b""
        self._piece_bytes = PIECE_BYTES_FIRST

    def add(self, data: bytes) -> None:
        self._data = self._data[len(self._data) - self.size :] + data if self.size else data
        self.size = len(self._data)

    def work(self, receive: Callable[[bytes, Monotonic], None], now: Monotonic) -> Monotonic:
        """Hand on a piece; when that was done. The next is larger if it took little time, or
        smaller."""
        position = len(self._data) - self.size
        piece = self._data[position : position + self._piece_bytes]
        self.size -= len(piece)
        if not self.size:
            self._data = b""
        receive(piece, now)
        done_at = self._clock.monotonic()
        took_s = done_at - now
        if took_s > PIECE_S:
            fitting = int(len(piece) * PIECE_S / took_s)
            self._piece_bytes = max(fitting, PIECE_BYTES_MIN)
        elif took_s < PIECE_S / 2 and len(piece) == self._piece_bytes:
            self._piece_bytes = min(2 * self._piece_bytes, PIECE_BYTES_MAX)
        return done_at

    def clear(self) -> None:
        self.size = 0
        self._data = b""


class Worker(Protocol):
    """A connection."""

    arrived: Arrived
    reading_paused_by: frozenset[str]

    def receive(self, data: bytes, now: Monotonic) -> None:
        """Work on a piece of what arrived."""
        ...

    def pause_reading(self, reason: str) -> None: ...

    def resume_reading(self, reason: str) -> None: ...


class Turns:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends_at: float | None = None
        """None: in this turn nothing was worked on yet."""
        self.little = 0
        """How many there were in this turn."""
        self._waiting: dict[Worker, None] = {}
        self._put_off: deque[Callable[[], object]] = deque()

    def is_too_many(self) -> bool:
        """Whether one more that is `little` is put off. To be asked of the first in a turn, and of
        those beyond LITTLE_MAX."""
        if self._ends_at is None:
            self._begin(self._clock.monotonic())
        return self.little > LITTLE_MAX

    def work(self, worker: Worker) -> None:
        """Something arrived: work on it now, or in the turns to come."""
        now = self._clock.monotonic()
        ends_at = self._ends_at or self._begin(now)
        arrived = worker.arrived
        while arrived.size:
            if now >= ends_at or self._waiting or worker.reading_paused_by:
                self.put_off(worker)
                return
            now = arrived.work(worker.receive, now)

    def put_off(self, worker: Worker) -> None:
        """Let it be worked on in the turns to come."""
        if self._ends_at is None:
            self._begin(self._clock.monotonic())
        self._waiting[worker] = None
        worker.pause_reading(TURN)

    def puts_off(self, call: Callable[[], object]) -> bool:
        """Whether this is called in the turns to come, since there is too much for one."""
        self.little += 1
        put_off = bool(self._put_off) or self.is_too_many()
        if put_off:
            self._put_off.append(call)
        return put_off

    def forget(self, worker: Worker) -> None:
        self._waiting.pop(worker, None)

    def _begin(self, now: Monotonic) -> float:
        """Of what this turn of the loop does, this is the first. Returns when it is to end."""
        self._ends_at = now + TURN_S
        asyncio.get_running_loop().call_soon(self._next)
        return self._ends_at

    def _next(self) -> None:
        """A new turn of the loop."""
        self._ends_at = None
        self.little = 0
        if not (self._waiting or self._put_off):
            return
        now = self._clock.monotonic()
        ends_at = self._begin(now)
        while self._waiting and now < ends_at:
            worker = next(iter(self._waiting))
            del self._waiting[worker]
            if _may_go_on(worker):
                now = worker.arrived.work(worker.receive, now)
            if _may_go_on(worker):
                self._waiting[worker] = None
            else:
                worker.resume_reading(TURN)
        ends_at = max(ends_at, now + PIECE_S)  # A flood takes all the time that it is given.
        while self._put_off and now < ends_at:
            self._put_off.popleft()()
            now = self._clock.monotonic()


def _may_go_on(worker: Worker) -> bool:
    """Whether something is left, and nobody else has it wait."""
    return worker.arrived.size > 0 and worker.reading_paused_by <= {TURN}
