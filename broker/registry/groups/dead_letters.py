"""Dead letters: messages that a group gave up, each with its reason, until somebody looks at them.

A dead letter is a row that points at the message, which stays in the log as long (S11). It is told
once on `$dead/<group>/<topic>`, as a message with the payload and the properties of its own and
User Properties that say why: the row says that it is still to be told until that is committed.

- `redrive` gives the message back to its group, as if it had never been tried.
- Whoever is dropped, or is older than `dead_letter_age_s`, is counted. (P5)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial

from broker.clock import US, Clock
from broker.config import Config
from broker.counters import Counters
from broker.delivery.looks import Looks
from broker.documents import Delete, Key, Operation, Put
from broker.documents.queues import DeadLetterDocument, DeadNoticeDocument
from broker.errors import StoreError
from broker.log.log import Log
from broker.message import AgedUs, Lease, Message, Offset, with_user_properties
from broker.store import PART_MAX
from broker.topics import dead_topic

REASON_MAX = 200
"""Characters of a reason that are kept."""
TOLD_AT_ONCE_MAX = 64
TOLD_BYTES_MAX = 512 * 1024
AGE_CHECK_S = 600.0

logger = logging.getLogger(__name__)


class DeadLetters:
    def __init__(self, log: Log, counters: Counters, config: Config, clock: Clock) -> None:
        self._log = log
        self._counters = counters
        self._config = config
        self._clock = clock
        self._looks = Looks(clock)
        self._buried = asyncio.Event()
        self.forgets: Callable[[], bool] = lambda: True
        """Whether it is for this broker to drop what is too old, of several that share the log."""
        self.is_ours: Callable[[str], bool] = lambda group: True
        """Where several brokers share the log: whether it is for us to tell of a group's."""

    def bury(
        self, group: str, offset: Offset, attempts: int, reason: str, worker: str
    ) -> list[Operation]:
        """What makes a dead letter of the message, for the caller to store; then `stored`."""
        self._counters.groups.dead_letters += 1
        died_at_us = AgedUs(self._log.time.aged_us())
        clean = "".join([c if c.isprintable() else " " for c in reason[:REASON_MAX]])
        document = DeadLetterDocument(group, offset, attempts, clean, worker, died_at_us)
        return [Put(document), Put(DeadNoticeDocument(group, offset))]

    def refused(self, leases: Sequence[Lease], reason: str, worker: str) -> None:
        """This worker refuses these, which it was sent at QoS 2: nobody else gets them.
        [MQTT-4.8.2-6] They are stored with the worker's cursor, or before it."""
        operations = [
            operation
            for lease in leases
            for operation in self.bury(lease.group, lease.offset, lease.attempt, reason, worker)
        ]
        self._log.append([], self.stored, operations=operations)

    def stored(self, error: StoreError | None) -> None:
        """Some that were buried are stored."""
        if error is None:
            self._buried.set()

    # Telling

    def look(self) -> None:
        """There may be some to tell of."""
        self._buried.set()

    async def start(self) -> None:
        """Go on where the last run ended. Raises StoreError."""
        if await self._log.store.scan_part(DeadNoticeDocument):
            self._buried.set()

    async def tell_forever(self) -> None:
        """Tell of each on its topic."""
        while True:
            await self._buried.wait()
            self._buried.clear()
            while await self._tell_some():
                pass

    async def _tell_some(self) -> bool:
        """Whether there may be more."""
        store, part = self._log.store, await self._not_told()
        if not part:
            return False
        offsets = sorted({notice.offset for notice in part})
        read = await self._looks.until_answered(
            lambda: store.fetch(offsets, bytes_max=TOLD_BYTES_MAX)
        )
        found = {message.offset: message for message in read.messages}
        letters = await self._letters(part)
        told: list[Message] = []
        operations: list[Operation] = []
        for notice in part:
            if notice.offset >= read.next:
                continue
            key = notice.group_name, notice.offset
            operations.append(Delete(DeadNoticeDocument, key))
            message, letter = found.get(notice.offset), letters.get(key)
            if message is not None and letter is not None:
                told += self._notice(message, letter)
        await self._log.commit_now(operations, told)
        return True

    async def _not_told(self) -> list[DeadNoticeDocument]:
        """Some of those that it is for us to tell of, if there are any."""
        after: Key | None = None
        while True:
            notices = await self._looks.until_answered(
                partial(self._log.store.scan_part, DeadNoticeDocument, (), after)
            )
            ours = [notice for notice in notices if self.is_ours(notice.group_name)]
            if ours or len(notices) < PART_MAX:
                return ours[:TOLD_AT_ONCE_MAX]
            after = notices[-1].group_name, notices[-1].offset

    async def _letters(
        self, notices: Sequence[DeadNoticeDocument]
    ) -> dict[tuple[str, Offset], DeadLetterDocument]:
        """Those that are to be told, and that nobody has dropped yet."""
        scan = self._log.store.scan_part
        letters: dict[tuple[str, Offset], DeadLetterDocument] = {}
        for notice in notices:
            key = notice.group_name, notice.offset
            if key not in letters:
                after = notice.group_name, notice.offset - 1
                found = await self._looks.until_answered(
                    partial(scan, DeadLetterDocument, (), after)
                )
                letters |= {(letter.group_name, letter.offset): letter for letter in found}
        return letters

    def _notice(self, message: Message, letter: DeadLetterDocument) -> list[Message]:
        topic = dead_topic(letter.group_name, message.topic)
        if not topic:
            return []
        why = [
            ("dead-letter-group", letter.group_name),
            ("dead-letter-offset", str(letter.offset)),
            ("dead-letter-attempts", str(letter.attempts)),
            ("dead-letter-reason", letter.reason),
        ]
        properties = with_user_properties(message.properties, why)
        now_us, qos = self._clock.wall_us(), max(1, message.qos)
        return [
            Message(topic, message.payload, qos, False, message.publisher, now_us, None, properties)
        ]

    # Age

    async def forget_old_forever(self) -> None:
        """Drop those that are too old. 0: none is."""
        while True:
            age_s = self._config.dead_letter_age_s
            await self._clock.sleep(min(AGE_CHECK_S, max(1.0, age_s)) if age_s else AGE_CHECK_S)
            if self._config.dead_letter_age_s and self.forgets():
                await self.forget_old()

    async def forget_old(self) -> None:
        """Once."""
        store = self._log.store
        after: tuple[str, int] | None = None
        while True:
            letters = await self._looks.until_answered(
                partial(store.scan_part, DeadLetterDocument, (), after)
            )
            before_us = self._log.time.aged_us() - round(self._config.dead_letter_age_s * US)
            old = [letter for letter in letters if letter.died_at_us < before_us]
            if old:
                await self.drop(old, "dead letter too old")
            if len(letters) < PART_MAX:
                break
            after = letters[-1].group_name, letters[-1].offset

    async def drop(self, letters: Sequence[DeadLetterDocument], reason: str) -> None:
        """Their messages are not held any more. Raises StoreError."""
        await self._log.commit_now(
            [Delete(DeadLetterDocument, (d.group_name, d.offset)) for d in letters]
        )
        self._counters.dropped[reason] += len(letters)
