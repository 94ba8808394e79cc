"""Follower: reads a shared log and decides, at every broker alike, what each entry does.

The order of the log decides everything, and nothing else does. So all brokers come to the same:

- An entry counts once: what its broker appends again, and what comes late, does not count. Nor does
  one of a broker of which no first entry is known: it was dead for so long that it is forgotten.
- An entry counts whole or not at all. It does not count if a revision is not the expected one, if
  it changes a session that is not there or that another broker has, if it takes the key of a
  message that is stored, or if its broker was taken for dead before it. Its broker sees that when
  it comes to its own entry, before anybody hears that it was stored.
- Offsets follow each other: a message's offset is the number of messages that counted before it,
  and one.

What counts goes into the copy, many entries in a transaction, with how far that is. The copy is not
synced: after a power cut it goes on where it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field

from broker.documents import (
    BEFORE_ALL,
    CopyDocument,
    DedupDocument,
    Delete,
    Operation,
    Place,
    Put,
    WriterDocument,
    fill_in,
)
from broker.errors import (
    LogReplaced,
    StoreBusy,
    StoreConflict,
    StoreCorrupt,
    StoreError,
    StoreFenced,
    StoreFull,
    StoreUnavailable,
)
from broker.message import Message, Offset
from broker.store import Store
from broker.store.shared.entries import (
    ALIVE,
    APPEND,
    CLOSED,
    Part,
    Told,
    decode,
    decode_closed,
    decode_operations,
    decode_told,
    part_of,
)
from broker.store.shared.keys import Keys
from broker.store.shared.owners import OwnerOf, Owners
from broker.store.shared.shared_log import (
    RECORD_BYTES_MAX,
    Logged,
    LogInfo,
    SharedLog,
    begins_later,
)

COPY = "log"
"""The name of the CopyDocument."""
FULL_RETRY_S = 1.0
TURN_BYTES = 128 << 10
"""Of records that are read in one turn of the loop, or one record: a few ms."""
ChangedElsewhere = Callable[[Sequence[Operation]], None]
"""Called with what other brokers have changed, once that is in the copy. Raises nothing."""


def nobody_listens(operations: Sequence[Operation]) -> None:
    pass


class Pending:
    """An append of our own that is on its way. `settled` is set when it is known what came of it:
    `error`, or it is stored; `told` when whoever appends has heard of that."""

    def __init__(
        self,
        number: int,
        batch: Sequence[Message],
        state: Sequence[Operation],
        places: Sequence[Place],
    ) -> None:
        self.number = number
        self.batch = batch
        self.state = state
        self.places = places
        self.settled = asyncio.Event()
        self.told = asyncio.Event()
        self.error: StoreError | None = None

    def settle(self, error: StoreError | None = None) -> None:
        self.error = error
        self.settled.set()

    def stored(self, before: Offset) -> None:
        """After this offset."""
        fill_in(self.state, self.places, before, before + 1)
        for offset, message in enumerate(self.batch, before + 1):
            message.offset = Offset(offset)


@dataclass(slots=True)
class New:
    """What counts, and is not in the copy yet."""

    messages: list[Message] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    wrote: set[str] = field(default_factory=set)
    """By whom."""
    others: list[Operation] = field(default_factory=list)
    """Those of the operations that are not our own."""
    told: list[asyncio.Event] = field(default_factory=list)
    """What must have happened before it is in the copy."""


async def _decoded(content: bytes, before: Offset) -> tuple[list[Operation], list[Message]]:
    if len(content) <= RECORD_BYTES_MAX:
        return decode(content, before)
    return await asyncio.to_thread(decode, content, before)


def _brokers_of(operations: Sequence[Operation]) -> list[str]:
    """Of which nothing is to be known any more."""
    kinds = [operation for operation in operations if isinstance(operation, Delete)]
    return [str(each.key[0]) for each in kinds if each.kind is WriterDocument]


class Follower:
    def __init__(
        self,
        log: SharedLog,
        copy: Store,
        broker_id: str,
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self.broker_id = broker_id
        self.pending: Pending | None = None
        self.position = 0
        """Up to here everything was read ..."""
        self.applied = 0
        """... and up to here it is in the copy."""
        self.offset = BEFORE_ALL
        """Of the newest message that was read."""
        self.failure: StoreError | None = None
        """Why nothing more is read."""
        self.writers: dict[str, WriterDocument] = {}
        self.tells: dict[str, Told] = {}
        """What each living broker has told of itself last."""
        self.changed_elsewhere: ChangedElsewhere = nobody_listens
        self._log = log
        self._copy = copy
        self._sleep = sleep
        self.log_id = ""
        self._owners = Owners(copy)
        self._keys = Keys(())
        self._parts: dict[str, tuple[int, dict[int, Part]]] = {}
        """Of entries that are not whole yet, by broker: since which position, and the parts."""
        self._new = New()
        self._moved = asyncio.Event()

    async def open(self, info: LogInfo) -> None:
        """Find out where the copy ends. Raises LogReplaced."""
        found = await self._copy.get(CopyDocument, (COPY,))
        if found is None and self._copy.high_watermark:
            raise LogReplaced(
                "the data directory has the log of a broker alone; choose another for the copy"
            )
        if found is not None and found.log_id != info.log_id:
            raise LogReplaced(
                f"the data directory has a copy of the log {found.log_id}, not of {info.log_id};"
                " choose another, or remove the copy: it is made anew"
            )
        self.position = self.applied = 0 if found is None else found.position
        if self.position > info.newest:
            raise LogReplaced(
                f"the shared log ends at {info.newest}, and its copy at {self.position}: it has"
                " lost what it had"
            )
        if self.position + 1 < info.oldest:
            raise begins_later(info.oldest, self.position + 1)
        self.log_id = info.log_id
        self.offset = self._copy.high_watermark
        self.writers = {each.broker: each for each in await self._copy.scan(WriterDocument)}
        self._keys = Keys(await self._copy.scan(DedupDocument))

    async def run(self) -> None:
        """Follow the log until cancelled. Raises StoreError."""
        async with aclosing(self._log.follow(self.position + 1)) as following:
            async for records in following:
                read = 0
                for record in records:
                    if read > TURN_BYTES:
                        read = 0
                        await asyncio.sleep(0)
                    read += len(record.body)
                    if (entry := self._whole(record)) is not None:
                        await self._decide(entry, record.position)
                    self.position = record.position
                await self._apply()

    def failed(self, error: Exception) -> None:
        """Nothing more is read."""
        if not isinstance(error, StoreError):
            error = StoreUnavailable(f"the shared log cannot be followed: {error!r}")
        self.failure = error
        if self.pending is not None:
            self.pending.settle(error)
        self._wake()

    @property
    def goes_on_after(self) -> int:
        """The last position that this copy would not read again if it were opened now."""
        return min([self.applied, *[since - 1 for since, _ in self._parts.values()]])

    async def until_applied(self, position: int) -> None:
        """Return when the copy has everything up to here. Raises StoreError."""
        while self.applied < position:
            if self.failure is not None:
                raise StoreUnavailable(str(self.failure)) from self.failure
            await self._moved.wait()

    def _whole(self, record: Logged) -> Part | None:
        """The entry that is whole with this record, as one part."""
        part = part_of(record.body)
        writer = self.writers.get(part.broker)
        counts = part.number == 1 if writer is None else not writer.closed
        if part.parts == 1 or not counts:
            return part
        since, parts = self._parts.get(part.broker, (record.position, {}))
        if parts and next(iter(parts.values())).number != part.number:
            since, parts = record.position, {}
        parts[part.part] = part
        self._parts[part.broker] = since, parts
        if len(parts) < part.parts:
            return None
        del self._parts[part.broker]
        part.content = b"".join([parts[number].content for number in range(part.parts)])
        return part

    async def _decide(self, entry: Part, position: int) -> None:
        writer = self.writers.get(entry.broker)
        if writer is None and entry.number > 1:
            return
        if writer is None:
            writer = self.writers[entry.broker] = WriterDocument(entry.broker, 0, 0)
        if entry.number <= writer.number:
            return
        counts = entry.kind == APPEND and not writer.closed
        ours = self.pending if entry.broker == self.broker_id else None
        pending = ours if ours is not None and ours.number == entry.number else None
        operations: list[Operation] = []
        messages: list[Message] = []
        if counts and pending is not None:
            operations = decode_operations(entry.content, self.offset)
            messages = [*pending.batch]
        elif counts:
            operations, messages = await _decoded(entry.content, self.offset)
        alone_at = position if any(each.revision is not None for each in operations) else None
        if alone_at is not None:  # The copy says whether the revisions are those that are expected.
            await self._apply()
        writer.number, writer.position = entry.number, position
        self._new.wrote.add(entry.broker)
        error: StoreError | None = None
        if writer.closed:
            error = StoreFenced("the other brokers took this one for dead")
        elif entry.kind == CLOSED:
            self._close(*decode_closed(entry.content), by=entry.broker)
        else:
            if entry.kind == ALIVE:
                self.tells[entry.broker] = decode_told(entry.content)
            error = await self._append(entry.broker, operations, messages, alone_at, pending)
        if pending is not None:
            if error is None and alone_at is None:
                self._new.told.append(pending.told)
            pending.settle(error)

    def _close(self, broker: str, heard_of_at: int, *, by: str) -> None:
        """It is dead, if it says so itself, or has not appended since."""
        writer = self.writers.get(broker)
        if writer is not None and (broker == by or writer.position == heard_of_at):
            writer.closed = True
            self._new.wrote.add(broker)
            self._parts.pop(broker, None)  # The rest of it would not count.
            self.tells.pop(broker, None)
            if broker == self.broker_id:
                self.failed(StoreFenced("the other brokers took this one for dead"))

    async def _append(
        self,
        broker: str,
        operations: Sequence[Operation],
        messages: Sequence[Message],
        alone_at: int | None,
        pending: Pending | None,
    ) -> StoreConflict | None:
        """Why it does not count, or None."""
        after: OwnerOf = {}
        removed = _brokers_of(operations)
        if not all(each in self.writers and self.writers[each].closed for each in removed):
            return StoreConflict(f"not all of {', '.join(removed)} are known, and dead")
        strangers = await self._owners.strangers(operations, broker, after)
        repeated = self._keys.repeated(operations)
        if strangers or repeated:
            names = ", ".join(map(repr, sorted(strangers)[:3]))
            why = f"the session of {names} is not here" if strangers else "another stored it before"
            return StoreConflict(why, frozenset(strangers), frozenset(repeated))
        if broker != self.broker_id:
            self._new.others += operations
        before = self.offset
        if alone_at is None:
            self._new.operations += operations
            self._new.messages += messages
        else:
            try:
                await self._put(messages, [*operations, *self._notes(alone_at)])
            except StoreConflict as error:
                self._new.others.clear()
                return error
            self._is_applied(alone_at)
        self._owners.changed(after)
        self._keys.changed(operations)
        for each in removed:
            del self.writers[each]
            self._new.wrote.discard(each)
        self.offset = Offset(before + len(messages))
        if pending is not None:
            pending.stored(before)
        return None

    async def _apply(self) -> None:
        """Put what counts into the copy."""
        new = self._new
        for told in new.told:
            await told.wait()
        await self._put(new.messages, [*new.operations, *self._notes(self.position)])
        new.told, new.messages, new.operations = [], [], []
        self._owners.are_in_copy()
        self._is_applied(self.position)

    def _notes(self, position: int) -> list[Operation]:
        """How far the copy is with this. Of an entry that is not whole yet, all is read again."""
        through = min([position, *[since - 1 for since, _ in self._parts.values()]])
        wrote = [self.writers[broker] for broker in sorted(self._new.wrote)]
        return [*[Put(each) for each in wrote], Put(CopyDocument(COPY, self.log_id, through))]

    async def _put(self, messages: Sequence[Message], operations: Sequence[Operation]) -> None:
        """Raises StoreConflict, and what ends the copy."""
        first = self._copy.high_watermark + 1
        while True:
            try:
                await self._copy.append(messages, operations, durable=False)
                break
            except (StoreFull, StoreBusy):
                await self._sleep(FULL_RETRY_S)
        if messages and messages[0].offset != first:
            raise StoreCorrupt(
                f"the copy of the shared log has offset {messages[0].offset} where the log has"
                f" {first}; remove it, and it is made anew"
            )

    def _is_applied(self, position: int) -> None:
        self._new.wrote.clear()
        self.applied = position
        others, self._new.others = self._new.others, []
        if others:
            self.changed_elsewhere(others)
        self._wake()

    def _wake(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()
