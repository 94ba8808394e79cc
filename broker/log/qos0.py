"""QoS 0 on its way into the log: nobody waits for it, and it keeps nobody waiting.

It goes into the next batch as far as there is room, else it is `Deferred`; what exceeds the bound
on memory, or meets a full disk, is `Unlogged`. No publisher is held because of it.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

from broker.clock import Clock
from broker.counters import Counters
from broker.log.batch import Batch
from broker.log.deferred import Deferred
from broker.log.unlogged import Unlogged
from broker.message import Message, cost_of

FULL = "the disk is full"
TOO_MUCH = "too much waits for the disk"


class Qos0:
    def __init__(self, counters: Counters, clock: Clock, *, bytes_max: int) -> None:
        """`bytes_max`: beside more than this that waits for the disk, none is to be logged."""
        self.deferred = Deferred()
        self.unlogged = Unlogged(counters, clock)
        self._bytes_max = bytes_max

    def add(
        self,
        messages: Sequence[Message],
        pending: Batch,
        running: Batch | None,
        *,
        batch_bytes_max: int,
        full: bool,
    ) -> None:
        """To the `pending` batch, of which QoS 0 may take `batch_bytes_max`, or for later."""
        size = cost_of(messages)
        waiting = pending.awaited_size + pending.qos0_size + self.deferred.size
        waiting += running.size if running else 0
        if full or (waiting and waiting + size > self._bytes_max):
            self.leave_out(messages, FULL if full else TOO_MUCH, pending, running)
        elif self.deferred.size or pending.qos0_size + size > batch_bytes_max:
            self.deferred.add(messages)
        else:
            pending.add_qos0(messages)

    def leave_out(
        self, messages: Sequence[Message], why: str, pending: Batch, running: Batch | None
    ) -> None:
        """Do not log these."""
        ahead: list[Container[str]] = [pending, self.deferred]
        if running is not None:
            ahead.append(running)
        self.unlogged.add(messages, why, ahead)
