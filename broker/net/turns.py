"""Turns: how long what clients send may keep the loop, all of them together.

A read can be one message or 50,000, and hundreds of sockets can have one at the same time. So what
was read is worked on in pieces that take about PIECE_S each, and for TURN_S in a turn of the loop.
What is left waits for the next turns, in which each connection has a piece in its turn; its socket
is not read meanwhile. Reads of up to LITTLE_BYTES are worked on at once: a PINGREQ, an
acknowledgement or a small PUBLISH does not wait for a flood of others.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from broker.clock import Clock
from broker.message import Monotonic

LITTLE_BYTES = 1024
TURN_S = 0.010
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

    def work(self, receive: Callable[[bytes], None]) -> None:
        """Hand on a piece. The next is larger if this took little time, or smaller."""
        position = len(self._data) - self.size
        piece = self._data[position : position + self._piece_bytes]
        self.size -= len(piece)
        if not self.size:
            self._data = b""
        began = self._clock.monotonic()
        receive(piece)
        took_s = self._clock.monotonic() - began
        if took_s > PIECE_S:
            fitting = int(len(piece) * PIECE_S / took_s)
            self._piece_bytes = max(fitting, PIECE_BYTES_MIN)
        elif took_s < PIECE_S / 2 and len(piece) == self._piece_bytes:
            self._piece_bytes = min(2 * self._piece_bytes, PIECE_BYTES_MAX)

    def clear(self) -> None:
        self.size = 0
        self._data = b""


class Worker(Protocol):
    """A connection."""

    @property
    def has_work(self) -> bool:
        """Whether something arrived that may be worked on now."""
        ...

    def work(self) -> None:
        """Work on a piece of it."""
        ...

    def pause_reading(self, reason: str) -> None: ...

    def resume_reading(self, reason: str) -> None: ...


class Turns:
    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._ends_at: Monotonic | None = None
        """None: in this turn nothing was worked on yet."""
        self._waiting: dict[Worker, None] = {}

    def work(self, worker: Worker) -> None:
        """Something arrived: work on it now, or in the turns to come."""
        ends_at = self._begun()
        while worker.has_work:
            if self._waiting or self._clock.monotonic() >= ends_at:
                self.put_off(worker)
                return
            worker.work()

    def put_off(self, worker: Worker) -> None:
        """Let it be worked on in the turns to come."""
        self._begun()
        self._waiting[worker] = None
        worker.pause_reading(TURN)

    def forget(self, worker: Worker) -> None:
        self._waiting.pop(worker, None)

    def _begun(self) -> Monotonic:
        """When this turn is to end."""
        if self._ends_at is None:
            self._ends_at = Monotonic(self._clock.monotonic() + TURN_S)
            asyncio.get_running_loop().call_soon(self._next)
        return self._ends_at

    def _next(self) -> None:
        """A new turn of the loop."""
        self._ends_at = None
        while self._waiting and self._clock.monotonic() < self._begun():
            worker = next(iter(self._waiting))
            del self._waiting[worker]
            if worker.has_work:
                worker.work()
            if worker.has_work:
                self._waiting[worker] = None
            else:
                worker.resume_reading(TURN)
