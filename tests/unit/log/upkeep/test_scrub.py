"""Scrub: all of the log is read, slowly, and what is damaged is told once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from broker.errors import StoreUnavailable
from broker.log.upkeep.scrub import FIRST_ROUND_S, READ_BYTES_MAX, READ_MESSAGES_MAX, REST_S, Scrub
from broker.message import Message, Offset
from broker.store import Read, Store
from broker.store.memory import MemoryStore
from broker.store.sqlite.store import SqliteStore
from tests.support.clock import FakeClock
from tests.support.messages import message, numbered
from tests.support.patience import PATIENCE_S
from tests.support.sqlite import change

BYTES_PER_S = 10_000


class Reads(MemoryStore):
    """Remembers what was read of it."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[list[Message]] = []
        self.broken = False

    async def read(self, *args: Any, **kwargs: Any) -> Read:
        if self.broken:
            raise StoreUnavailable("the disk")
        read = await super().read(*args, **kwargs)
        self.parts.append(read.messages)
        return read

    async def fetch(self, offsets: Sequence[Offset], **kwargs: Any) -> Read:
        read = await super().fetch(offsets, **kwargs)
        self.parts.append(read.messages)
        return read

    def offsets(self) -> list[int]:
        return [message.offset for part in self.parts for message in part]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def reads() -> Reads:
    reads = Reads()
    await reads.open()
    return reads


@asynccontextmanager
async def scrubbing(store: Store, clock: FakeClock) -> AsyncIterator[Scrub]:
    scrub = Scrub(store, clock, bytes_per_s=BYTES_PER_S)
    task = asyncio.create_task(scrub.run_forever())
    await asyncio.sleep(0)
    yield scrub
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def until(clock: FakeClock, reached: Callable[[], bool]) -> float:
    """Let time pass, as far as the scrub asks for it; how much that was, in seconds."""
    begun = clock.monotonic()
    async with asyncio.timeout(PATIENCE_S):
        while not reached():
            if clock.timers:
                clock.advance(clock.timers[0])
            await asyncio.sleep(0)
    return clock.monotonic() - begun


async def test_everything_is_read_in_small_parts_and_not_faster_than_it_may(
    reads: Reads, clock: FakeClock
) -> None:
    await reads.append(numbered(1000))
    await reads.append([message(bytes(50_000)) for _ in range(10)])
    async with scrubbing(reads, clock) as scrub:
        took_s = await until(clock, lambda: scrub.rounds == 1)
        assert reads.offsets() == [*range(1, 1011)]
        assert scrub.offset == 1010
    assert max(map(len, reads.parts)) <= READ_MESSAGES_MAX
    sizes = [sum(m.size for m in part) for part in reads.parts]
    assert max(sizes) <= READ_BYTES_MAX + 50_000
    assert sum(sizes) / BYTES_PER_S < took_s - FIRST_ROUND_S < 2 * sum(sizes) / BYTES_PER_S


async def test_a_round_begins_a_day_after_the_last(reads: Reads, clock: FakeClock) -> None:
    await reads.append(numbered(3))
    async with scrubbing(reads, clock) as scrub:
        await until(clock, lambda: scrub.rounds == 1)
        await reads.append(numbered(2))
        assert await until(clock, lambda: scrub.rounds == 2) >= REST_S
        assert reads.offsets() == [1, 2, 3, 1, 2, 3, 4, 5]


async def test_an_empty_log_is_soon_read(reads: Reads, clock: FakeClock) -> None:
    async with scrubbing(reads, clock) as scrub:
        assert await until(clock, lambda: scrub.rounds == 1) == FIRST_ROUND_S


async def test_retained_messages_below_the_log_start_are_read_too(
    reads: Reads, clock: FakeClock
) -> None:
    kept = [message(str(i), f"t/{i}", retain=True) for i in range(READ_MESSAGES_MAX + 3)]
    await reads.append([*kept, *numbered(5)])
    await reads.trim(Offset(len(kept) + 3))
    async with scrubbing(reads, clock) as scrub:
        await until(clock, lambda: scrub.rounds == 1)
    first = len(kept) + 3
    assert reads.offsets() == [*range(first, first + 3), *range(1, len(kept) + 1)]


async def test_a_disk_that_cannot_be_read_is_told_and_tried_again_the_next_day(
    reads: Reads, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    await reads.append(numbered(3))
    reads.broken = True
    async with scrubbing(reads, clock) as scrub:
        await until(clock, lambda: bool(caplog.messages))
        reads.broken = False
        await until(clock, lambda: scrub.rounds == 1)
    assert caplog.messages == ["the log was scrubbed to offset 0 only: the disk"]


async def test_what_is_damaged_is_counted_and_told_once(
    sqlite: SqliteStore, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    """P5, P8. All that is damaged in a block, though it is read in parts."""
    await sqlite.append(numbered(3000))
    await sqlite.close()
    damage = "UPDATE messages SET payload = 'x' WHERE offset IN (70, 71, 900, 1500)"
    change(sqlite.path, damage.replace("'x'", "CAST('x' AS BLOB)"))
    await sqlite.open()
    caplog.clear()
    async with scrubbing(sqlite, clock) as scrub:
        await until(clock, lambda: scrub.rounds == 2)
    told = [text for text in caplog.messages if "damaged" in text]
    assert [text.rpartition(" offsets ")[2] for text in told] == ["70-71, 900-900", "1500-1500"]
    assert sqlite.damaged_offsets == 4
