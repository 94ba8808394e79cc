"""Delayed messages: acknowledged and stored now, in the log and delivered when they are due.

- A delay is *served* time (`log_time.py`): it stands still while no broker runs, so a clock that
  jumps delivers nothing early. A moment that the publisher named follows the wall clock, as it is
  set: this is what "at six o'clock" means.
- A message leaves for the log in the commit that removes it here: a crash neither loses nor repeats
  it. It gets its offset, its time and the start of its Message Expiry Interval then.
- Messages that are due at the same moment keep the order in which they came.
- Whoever left it needs the right to publish again when it is due, and room in its user's quota of
  retained topics: what may not be published any more is dropped and counted. (P5)
- Memory keeps of each only when it is due and what it costs; the message is read when it is due.
  How many may wait, and how many bytes they may have, is limited: more are refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from broker.clock import US, Clock, Instant
from broker.counters import Counters
from broker.documents import (
    Author,
    DelayedDeadlineDocument,
    DelayedDocument,
    Delete,
    Operation,
    Put,
)
from broker.errors import (
    QuotaExceeded,
    RetainedQuotaExceeded,
    StoreConflict,
    StoreError,
    StoreUnavailable,
)
from broker.log.deadlines import Deadlines
from broker.log.log import Log
from broker.log.retained_topics import Counted, RetainedTopics, no_limit
from broker.message import Message, Monotonic, ServedUs, WallUs
from broker.store import PART_MAX

AT_ONCE = Monotonic(0)
DIGITS = 16
"""Of a number."""
RETRY_S = 1.0
"""How often what the store cannot give now is tried again."""
LOOK_S = 1.0
"""How often the wall clock is looked at while a message waits for it: it may be set."""
READ_MESSAGES_MAX = 64
READ_BYTES_MAX = 1 << 20
"""So much of what is due is read, and handed to the log, together."""

NO_RIGHT = "delayed: no right to publish any more"
"""Why a message is dropped that was permitted when it came."""

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class Accepted:
    """A message that is to wait, once `operations` are committed. Then call `Delayed.settle`."""

    number: str
    due_at_us: int
    by_wall: bool
    operations: Sequence[Operation]


class Delayed:
    """`deadline_moved` is called when a deadline may be earlier than it was."""

    def __init__(
        self,
        log: Log,
        counters: Counters,
        clock: Clock,
        deadline_moved: Callable[[], None],
        *,
        messages_max: int,
        bytes_max: int,
    ) -> None:
        self._log = log
        self._counters = counters
        self.may_publish: Callable[[Author, str], bool] = lambda author, topic: True
        """Whether this author may publish to the topic now."""
        self.retained = RetainedTopics(log, no_limit)
        self._clock = clock
        self._deadline_moved = deadline_moved
        self.messages_max = messages_max
        self.bytes_max = bytes_max
        broker_id = log.store.broker_id
        self._suffix = f".{broker_id}" if broker_id else ""
        """Of the numbers of our messages, where other brokers have some, too."""
        self._last = 0
        self._costs: dict[str, int] = {}
        """Of each message that waits or is being stored, by its number."""
        self.bytes = 0
        """Of these together."""
        self._after = Deadlines[Monotonic]()
        self._at = Deadlines[WallUs]()
        self._look_at: Monotonic | None = None
        """When to look at the wall clock, if a message waits for it."""
        self._are_due = asyncio.Event()

    def __len__(self) -> int:
        return len(self._costs)

    async def start(self) -> None:
        """Learn of the messages that an earlier run left. Raises StoreError."""
        for document in await self._log.store.scan(DelayedDeadlineDocument):
            if document.number[DIGITS:] == self._suffix:
                self._add(document.number, document.cost)
                self._wait(document.number, document.due_at_us, by_wall=document.by_wall)
                self._last = max(self._last, int(document.number[:DIGITS], 16))

    async def take_up(self, alive: Collection[str]) -> int:
        """Let what waits at brokers that are not alive be ours, unless others were first; how many
        that are. Raises StoreError."""
        store, after, count = self._log.store, None, 0
        while True:
            part = await store.scan_part(DelayedDeadlineDocument, (), after)
            for deadline in part:
                key = (deadline.number,)
                if deadline.number[DIGITS + 1 :] in alive:
                    continue
                revision = await store.revision(DelayedDeadlineDocument, key)
                document = await store.get(DelayedDocument, key)
                if document is None:
                    continue
                number = self._next_number()
                ours = replace(deadline, number=number)
                operations: list[Operation] = [
                    Delete(DelayedDeadlineDocument, key, revision),
                    Delete(DelayedDocument, key),
                    *(Put(replace(document, number=number)), Put(ours)),
                ]
                try:
                    await store.transact(operations)
                except StoreConflict:
                    continue
                self._add(number, ours.cost)
                self._wait(number, ours.due_at_us, by_wall=ours.by_wall)
                count += 1
            if len(part) < PART_MAX:
                break
            after = (part[-1].number,)
        self._deadline_moved()
        return count

    def _next_number(self) -> str:
        self._last += 1
        return f"{self._last:0{DIGITS}x}{self._suffix}"  # In the order of texts, too.

    def after(
        self, message: Message, delay_s: int, expiry_s: int | None, author: Author
    ) -> Accepted:
        """Accept a message that is due in `delay_s` seconds. Raises QuotaExceeded."""
        due_at_us = self._log.time.served_at(self._clock.now().after(delay_s))
        return self._accept(message, expiry_s, author, due_at_us, by_wall=False)

    def at(self, message: Message, at_us: WallUs, expiry_s: int | None, author: Author) -> Accepted:
        """Accept a message that is due when the wall clock has `at_us`. Raises QuotaExceeded."""
        return self._accept(message, expiry_s, author, at_us, by_wall=True)

    def _accept(
        self,
        message: Message,
        expiry_s: int | None,
        author: Author,
        due_at_us: int,
        *,
        by_wall: bool,
    ) -> Accepted:
        cost = message.cost
        if len(self._costs) >= self.messages_max or self.bytes + cost > self.bytes_max:
            raise QuotaExceeded(
                f"{len(self._costs)} delayed messages wait ({self.bytes} bytes): no more are taken "
                "until some are due (delayed_messages_max, delayed_bytes_max)"
            )
        number = self._next_number()
        self._add(number, cost)
        document = DelayedDocument(
            number,
            message.topic,
            message.payload,
            message.qos,
            message.retain,
            message.publisher,
            message.properties,
            expiry_s,
            *author,
        )
        deadline = DelayedDeadlineDocument(number, due_at_us, by_wall, cost)
        return Accepted(number, due_at_us, by_wall, [Put(document), Put(deadline)])

    def settle(self, accepted: Accepted, error: StoreError | None) -> None:
        """It is stored and waits from now on; or it is not, and is forgotten."""
        if error is not None:
            self._forget(accepted.number)
            return
        self._wait(accepted.number, accepted.due_at_us, by_wall=accepted.by_wall)
        self._deadline_moved()

    def deadline(self) -> Monotonic | None:
        """When to call `expire` next."""
        if self._are_due.is_set():
            return None
        after = self._after.soonest()
        if after is None or self._look_at is None:
            return self._look_at if after is None else after
        return min(after, self._look_at)

    def expire(self, now: Instant) -> None:
        """Let `publish_forever` hand on what is due."""
        at = self._at.soonest()
        self._look_at = None if at is None else self._look(at, now)
        if self._after.first_due(now.monotonic) is not None or (
            at is not None and at <= now.wall_us
        ):
            self._are_due.set()

    async def publish_forever(self) -> None:
        while True:
            await self._are_due.wait()
            await self.publish_due()
            self._are_due.clear()
            self._deadline_moved()

    async def publish_due(self) -> None:
        """Hand every message that is due to the log."""
        while numbers := self._take_due():
            try:
                await self._publish(numbers)
            except StoreUnavailable as error:
                logger.error("delayed messages are tried again: %s", error)
                for number in numbers:
                    self._after.set(number, AT_ONCE)
                await self._clock.sleep(RETRY_S)

    def _take_due(self) -> list[str]:
        """Some of what is due, the longest due first."""
        now = self._clock.now()
        numbers: list[str] = []
        size = 0
        while len(numbers) < READ_MESSAGES_MAX and size < READ_BYTES_MAX:
            due = self._after.take_due(now.monotonic, 1) or self._at.take_due(now.wall_us, 1)
            if not due:
                break
            numbers += due
            size += self._costs[due[0]]
        return numbers

    async def _publish(self, numbers: Sequence[str]) -> None:
        """Raises StoreUnavailable: none was handed to the log."""
        log = self._log
        if log.congested:
            await log.commit_now([], keep_if_full=False)
        documents = await asyncio.gather(
            *[log.store.get(DelayedDocument, (number,)) for number in numbers]
        )
        await self.retained.prepare(
            [(document.user or "", document) for document in documents if document is not None]
        )
        now_us = self._clock.wall_us()
        messages: list[Message] = []
        appended = 0
        for index, document in enumerate(documents):
            if document is None:
                logger.error("delayed message %s is not in the log's file any more", numbers[index])
            elif (taken := self._take(document)) is not None:
                messages.append(self._message(document, now_us))
                if taken.place is not None:
                    self._append(messages, numbers[appended : index + 1])
                    log.append([], operations=taken.operations, place=taken.place)
                    messages, appended = [], index + 1
        self._append(messages, numbers[appended:])
        for number in numbers:
            self._forget(number)

    def _take(self, document: DelayedDocument) -> Counted | None:
        """None: it is dropped."""
        why = dropped_as = NO_RIGHT
        if self.may_publish(document.author, document.topic):
            try:
                return self.retained.take(document.user or "", document)
            except RetainedQuotaExceeded as error:
                why, dropped_as = error.reason, error.dropped_as
        self._counters.dropped[dropped_as] += 1
        logger.info("a delayed message of %r is dropped: %s", document.publisher, why)
        return None

    def _append(self, messages: Sequence[Message], numbers: Sequence[str]) -> None:
        """These messages, of those with these numbers."""
        if numbers:
            durable = any(message.qos for message in messages)
            self._log.append(messages, durable=durable, operations=_removal(numbers))

    def _message(self, document: DelayedDocument, now_us: WallUs) -> Message:
        expiry_s, time = document.expiry_s, self._log.time
        return Message(
            document.topic,
            document.payload,
            document.qos,
            document.retain,
            document.publisher,
            now_us,
            None if expiry_s is None else time.expires_at_us(now_us, expiry_s),
            document.properties,
        )

    def _wait(self, number: str, due_at_us: int, *, by_wall: bool) -> None:
        if by_wall:
            self._at.set(number, WallUs(due_at_us))
            look_at = self._look(WallUs(due_at_us), self._clock.now())
            self._look_at = look_at if self._look_at is None else min(self._look_at, look_at)
        else:
            self._after.set(number, self._log.time.monotonic_at(ServedUs(due_at_us)))

    def _look(self, at: WallUs, now: Instant) -> Monotonic:
        """When to look at the wall clock for the message that is due first."""
        return now.after(max(0.0, min(LOOK_S, (at - now.wall_us) / US)))

    def _add(self, number: str, cost: int) -> None:
        self._costs[number] = cost
        self.bytes += cost

    def _forget(self, number: str) -> None:
        self.bytes -= self._costs.pop(number)


def _removal(numbers: Sequence[str]) -> list[Operation]:
    return [
        Delete(kind, (number,))
        for kind in (DelayedDocument, DelayedDeadlineDocument)
        for number in numbers
    ]
