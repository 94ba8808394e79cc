"""QoS 0 on its way into the log: nobody waits for it, and it keeps nobody waiting. (P9)

It is handed on, to be delivered, as it comes, and is logged later: with the next commit, or after
`lazy_commit_s`, or when much of it waits. In the log it lies as it came. Within a topic it is also
delivered as it came [MQTT-4.6.0-6]: what follows a QoS 1 or 2 message that is not routed yet is
routed behind that.

What exceeds the bound on memory, or meets a full disk, is not logged. No publisher is held.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby

from broker.clock import Clock, Timer
from broker.counters import Counters
from broker.documents import Place
from broker.handed_on import AheadOfLog, HandedOn
from broker.log.batch import Batch
from broker.log.losses import Losses
from broker.message import Message, Offset, cost_of

logger = logging.getLogger(__name__)

FULL = "the disk is full"
TOO_MUCH = "too much waits for the disk"

LAZY_COMMIT_S = 0.25
"""How long what was delivered waits for company before it is logged."""
LAZY_BYTES_MAX = 1 << 20
"""More than this does not wait for company: some 3,000 small messages."""
PARTS_AS_THEY_COME = 50
"""Each QoS 1 message between QoS 0 makes a part more, until there are so many that are not routed:
whoever was handed them keeps the offsets of each (`delivery/at_once.py`)."""


class Qos0:
    def __init__(
        self,
        counters: Counters,
        clock: Clock,
        commit: Callable[[], None],
        lazy_commit_s: float,
        *,
        bytes_max: int,
    ) -> None:
        """`commit` lets a commit begin. `bytes_max`: beside more than this that waits for the disk,
        none is to be logged."""
        self.hand_on: Callable[[Sequence[Message], int], bool] | None = None
        """Delivers the messages of the run with this number at once. Returns whether anybody waits
        for their commit instead."""
        self.give_up: Callable[[HandedOn], None] | None = None
        """Hears of messages that were handed on and will not be logged."""
        self.leaves_out: Callable[[str], bool] | None = None
        """Whether messages on this topic are not to be logged; None: all are. See `leave_out`."""
        self.logs_first = False
        """Whether all is logged before it is handed on."""
        self.ahead = AheadOfLog()
        self.waiting: deque[HandedOn] = deque()
        """Those of `ahead` that are in no batch yet."""
        self.size = 0
        """Their bytes in memory."""
        self._clock = clock
        self._commit = commit
        self._lazy_commit_s = lazy_commit_s
        self._timer: Timer | None = None
        """Set while some wait for company."""
        self._losses = Losses(counters, clock)
        self._bytes_max = bytes_max

    def log_first(self) -> None:
        """Nothing is handed on before it is in the log: others may append before it."""
        self.hand_on = self.give_up = self.leaves_out = None
        self._lazy_commit_s = 0.0
        self.logs_first = True

    def leave_out(self, leaves_out: Callable[[str], bool] | None) -> None:
        """From now on, these are not to be logged. Of no effect where all is logged first."""
        self.leaves_out = None if self.logs_first else leaves_out

    def add(
        self,
        messages: Sequence[Message],
        pending: Batch,
        running: Batch | None,
        *,
        batch_bytes_max: int,
        full: bool,
    ) -> None:
        """Hand these on, and keep them for a commit that takes `batch_bytes_max` of such."""
        if not messages:
            self._commit()
            return
        if self.leaves_out is not None:
            messages = self._without_left_out(messages, pending, running, batch_bytes_max)
            if not messages:
                return
        size = cost_of(messages)
        waits = pending.size + self.size + (running.size if running else 0)
        left_out = full or (waits > 0 and waits + size > self._bytes_max)
        if left_out:
            self._losses.note(len(messages), FULL if full else TOO_MUCH)
        older: list[set[str]] = []
        if running is not None or pending.appends or self.ahead.committed:
            older = self._older(pending, running)
        if not older:
            hurried = self._hand_on(messages, size, batch_bytes_max, left_out=left_out)
        else:
            hurried = False
            for waits, run in groupby(
                messages, lambda m: any(m.topic in topics for topics in older)
            ):
                part = [*run]
                if not waits:
                    size = cost_of(part)
                    hurried |= self._hand_on(part, size, batch_bytes_max, left_out=left_out)
                elif not left_out:
                    self.go_before(part, None, pending, batch_bytes_max)
                    pending.add_qos0(part)
                    hurried = True
        if hurried or not self.waiting:  # If nothing is kept, somebody has to find the log idle.
            self._commit()
        else:
            self.wait_for_company()

    def _without_left_out(
        self,
        messages: Sequence[Message],
        pending: Batch,
        running: Batch | None,
        batch_bytes_max: int,
    ) -> list[Message]:
        """Hand on what is not to be logged, and return the rest. What has to wait for an older
        message of its topic is logged with that, and what is to be retained is, too."""
        assert self.leaves_out is not None
        older = self._older(pending, running)
        rest: list[Message] = []
        left_out: list[Message] = []
        for message in messages:
            waits = any(message.topic in topics for topics in older)
            stays = message.retain or waits or not self.leaves_out(message.topic)
            (rest if stays else left_out).append(message)
        if left_out:
            self._hand_on(left_out, cost_of(left_out), batch_bytes_max, left_out=True)
        if not rest:
            self._commit()
        return rest

    def _hand_on(
        self, messages: Sequence[Message], size: int, batch_bytes_max: int, *, left_out: bool
    ) -> bool:
        """Whether anybody waits for the commit of these."""
        self.ahead.number += 1
        self.ahead.state += 1
        if not left_out:
            self._keep(messages, size, batch_bytes_max)
        awaited = self.hand_on is not None and self.hand_on(messages, self.ahead.number)
        if left_out:
            self._give_up(messages)
        return awaited

    def hasten(self) -> None:
        """Let them wait no longer."""
        if self.waiting:
            self._commit()

    def wait_for_company(self) -> None:
        """Let a commit begin when those that wait have waited long enough, or are many."""
        if self.size > LAZY_BYTES_MAX:
            self._commit()
        elif self.waiting and self._timer is None:
            self._timer = self._clock.call_later(self._lazy_commit_s, self._waited)

    def _waited(self) -> None:
        self._timer = None
        self._commit()

    def _give_up(self, messages: Sequence[Message]) -> None:
        """The newest run has these, and will not be logged."""
        if self.give_up is not None:
            run = HandedOn()
            run.add(self.ahead.number, messages, 0)
            self.give_up(run)

    def _older(self, pending: Batch, running: Batch | None) -> list[set[str]]:
        """The topics of older messages that are not routed yet and were not handed on."""
        committed = [topics() for _, topics in self.ahead.committed]
        batches = [pending] if running is None else [running, pending]
        return [topics for topics in (*committed, *[b.topics() for b in batches]) if topics]

    def _keep(self, messages: Sequence[Message], size: int, batch_bytes_max: int) -> None:
        if not self.waiting or self.waiting[-1].size + size > batch_bytes_max:
            self.waiting.append(HandedOn())
            if self.hand_on is not None:
                self.ahead.parts.append(self.waiting[-1])
        self.waiting[-1].add(self.ahead.number, messages, size)
        self.size += size

    def take(self, bytes_max: int | None = None) -> list[HandedOn]:
        """The oldest that wait for a commit, as many as fit. None: all."""
        taken: list[HandedOn] = []
        size = 0
        self.ahead.state += 1
        while self.waiting:
            size += self.waiting[0].size
            if bytes_max is not None and size > bytes_max and (taken or bytes_max <= 0):
                break
            taken.append(self.waiting.popleft())
            self.size -= taken[-1].size
        if self._timer is not None and not self.waiting:
            self._timer.cancel()
            self._timer = None
        return taken

    def go_before(
        self,
        messages: Sequence[Message],
        place: Place | None,
        pending: Batch,
        batch_bytes_max: int,
    ) -> None:
        """All that waits goes into the log before these, as it came before them. Of a flood, or
        where there are many parts already, only where the order counts: before a SUBSCRIBE, and
        within a topic."""
        if (
            (
                pending.qos0_size + self.size <= batch_bytes_max
                and len(self.ahead.parts) <= PARTS_AS_THEY_COME
            )
            or place is not None
            or self.overtaken_by(messages)
        ):
            pending.add_handed(self.take())

    def overtaken_by(self, messages: Iterable[Message]) -> bool:
        """Whether one that waits has the topic of one of these, which must not come before it."""
        topics = {message.topic for message in messages}
        return any(m.topic in topics for part in self.waiting for m in part.messages)

    def committed(self, batch: Batch, last: Offset) -> None:
        """The messages of this batch are in the log, up to this offset. Not all were handed on."""
        if self.hand_on is not None:
            self.ahead.committed.append((last, batch.topics))

    def not_stored(self, batch: Batch) -> None:
        """The disk is full: nothing that waits will be logged. Raises nothing."""
        try:
            self._not_stored(batch)
        except Exception as error:
            logger.critical("QoS 0 that is not stored is not all counted", exc_info=error)

    def _not_stored(self, batch: Batch) -> None:
        parts, messages = batch.take_qos0()
        parts += self.take()
        self._losses.note(sum([len(p.messages) for p in parts]) + len(messages), FULL)
        for part in parts:
            if self.give_up is not None:
                self.ahead.parts.remove(part)
                self.ahead.state += 1
                self.give_up(part)
                part.routed()
        older = batch.topics()
        alone = [message for message in messages if message.topic not in older]
        if alone and self.hand_on is not None:
            self.ahead.number += 1
            self.hand_on(alone, self.ahead.number)
            self._give_up(alone)
