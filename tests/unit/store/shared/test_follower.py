"""What counts of the records that are there, whoever put them there."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence

import pytest

from broker import tasks
from broker.documents import CopyDocument, Operation, Put, SessionDocument, WriterDocument
from broker.errors import SchemaMismatch, StoreCorrupt, StoreUnavailable
from broker.message import Message, Offset
from broker.store.memory import MemoryStore
from broker.store.shared import follower
from broker.store.shared.entries import APPEND, CLOSED, decode, encode, encode_closed, records_of
from broker.store.shared.follower import COPY, Follower
from broker.store.shared.memory_log import MemoryLog
from tests.support.messages import message, numbered
from tests.support.shared import a_moment
from tests.support.stores import payloads, read_all
from tests.support.world import Disk


def records(
    broker: str,
    number: int,
    batch: Sequence[Message],
    operations: Sequence[Operation] = (),
    bytes_max: int = 1000,
) -> list[bytes]:
    return records_of(broker, number, APPEND, encode(batch, operations, ()), bytes_max)


async def followed(log: MemoryLog, copy: MemoryStore) -> Follower:
    """A follower that has read everything, and ended."""
    follower = Follower(log, copy, "me", a_moment)
    await follower.open(await log.open())
    following = tasks.start(follower.run(), follower.failed)
    await follower.until_applied(len(log.records))
    following.cancel()
    await asyncio.wait([following])
    return follower


@pytest.fixture
async def copy() -> Disk:
    copy = Disk()
    await copy.open()
    return copy


async def test_the_first_of_equal_appends_counts_and_none_that_comes_late(copy: Disk) -> None:
    log = MemoryLog()
    for broker, number in [("a", 1), ("b", 1), ("a", 1), ("a", 3), ("a", 2), ("a", 3), ("b", 2)]:
        log.store(*records(broker, number, [message(f"{broker}{number}")]))
    await followed(log, copy)
    assert payloads(await read_all(copy)) == [b"a1", b"b1", b"a3", b"b2"]
    assert await copy.scan(WriterDocument) == [
        WriterDocument("a", 3, 4),
        WriterDocument("b", 2, 7),
    ]


async def test_an_entry_in_parts_is_read_again_from_its_first_after_a_restart(copy: Disk) -> None:
    """And what came between its parts does not count again."""
    log = MemoryLog()
    parts = records("a", 1, [message(bytes(250)), message("end")], bytes_max=100)
    assert len(parts) == 4
    log.store(records("b", 1, [message("b1")])[0])
    for part in (parts[0], parts[2], parts[0]):
        log.store(part)
    log.store(records("b", 2, [message("b2")])[0])
    await followed(log, copy)
    assert await copy.get(CopyDocument, (COPY,)) == CopyDocument(COPY, "log", 1)
    log.store(parts[1])
    log.store(parts[3])
    follower = await followed(log, copy)
    assert payloads(await read_all(copy)) == [b"b1", b"b2", bytes(250), b"end"]
    assert await copy.get(CopyDocument, (COPY,)) == CopyDocument(COPY, "log", len(log.records))
    assert follower.offset == 4


async def test_parts_of_an_entry_that_its_broker_gave_up_are_forgotten(copy: Disk) -> None:
    log = MemoryLog()
    log.store(records("a", 1, [message("a1")])[0])
    log.store(records("a", 2, [message(bytes(250))], bytes_max=100)[0])
    for part in records("a", 3, [message(b"x" * 250)], bytes_max=100):
        log.store(part)
    await followed(log, copy)
    assert payloads(await read_all(copy)) == [b"a1", b"x" * 250]


async def test_nothing_waits_for_the_rest_of_an_entry_of_a_dead_broker(copy: Disk) -> None:
    log = MemoryLog()
    log.store(records("a", 1, [message("a1")])[0])
    parts = records("a", 2, [message(bytes(250))], bytes_max=100)
    log.store(parts[0])
    log.store(records_of("b", 1, CLOSED, encode_closed("a", 1), 100)[0])
    for part in parts[:2]:
        log.store(part)
    await followed(log, copy)
    assert payloads(await read_all(copy)) == [b"a1"]
    assert await copy.get(CopyDocument, (COPY,)) == CopyDocument(COPY, "log", len(log.records))


async def test_many_entries_are_one_commit_of_the_copy(copy: Disk) -> None:
    log = MemoryLog()
    for number in range(1, 51):
        log.store(records("a", number, numbered(3))[0])
    await followed(log, copy)
    assert len(copy.commits) == 1
    assert copy.high_watermark == 150
    assert not copy.commits[0][2]


async def test_a_copy_on_a_full_disk_goes_on_when_there_is_room(copy: Disk) -> None:
    log = MemoryLog()
    log.store(records("a", 1, numbered(2))[0])
    copy.full = True
    waits = []

    async def waited(seconds: float) -> None:
        waits.append(seconds)
        copy.full = len(waits) < 3
        await asyncio.sleep(0)

    follower = Follower(log, copy, "me", waited)
    await follower.open(await log.open())
    following = tasks.start(follower.run(), follower.failed)
    await follower.until_applied(1)
    following.cancel()
    assert waits == [1.0] * 3
    assert copy.high_watermark == 2


@pytest.mark.parametrize(
    ("body", "error"), [(b"\x02", SchemaMismatch), (b"\x01 damaged and so on ...", StoreCorrupt)]
)
async def test_what_cannot_be_read_ends_it(copy: Disk, body: bytes, error: type) -> None:
    log = MemoryLog()
    log.store(body)
    follower = Follower(log, copy, "me", a_moment)
    await follower.open(await log.open())
    following = tasks.start(follower.run(), follower.failed)
    with pytest.raises(StoreUnavailable):
        await follower.until_applied(1)
    assert isinstance(follower.failure, error)
    assert following.done()


async def test_a_copy_that_has_something_else_is_noticed(copy: Disk) -> None:
    log = MemoryLog()
    log.store(records("a", 1, numbered(2))[0])
    await followed(log, copy)
    log.store(records("a", 2, [message()])[0])
    copy.content.gaps = 3
    follower = Follower(log, copy, "me", a_moment)
    await follower.open(await log.open())
    following = tasks.start(follower.run(), follower.failed)
    with pytest.raises(StoreUnavailable, match="made anew"):
        await follower.until_applied(2)
    assert isinstance(follower.failure, StoreCorrupt)
    assert following.done()


async def test_a_session_is_nobodys_until_a_broker_takes_it(copy: Disk) -> None:
    log = MemoryLog()
    session = SessionDocument("x", 60, 1, None)
    log.store(records("a", 1, [], [Put(session)])[0])
    log.store(records("b", 1, [], [Put(SessionDocument("x", 70, 1, None))])[0])
    await followed(log, copy)
    found = await copy.get(SessionDocument, ("x",))
    assert found is not None
    assert found.session_expiry_s == 70


async def test_no_turn_of_the_loop_reads_more_than_a_few_ms_take(
    copy: Disk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a broker that was cut off for a while serves nobody while it catches up."""
    turns, in_turns = 0, Counter[int]()

    async def count_turns() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    def counted(content: bytes, before: Offset) -> tuple[list[Operation], list[Message]]:
        if threading.current_thread() is threading.main_thread():
            in_turns[turns] += len(content)
        return decode(content, before)

    monkeypatch.setattr(follower, "decode", counted)
    log = MemoryLog()
    for number in range(1, 31):
        large = message("x" * 100_000)
        for body in records("a", number, [large] * (20 if number == 7 else 1), (), 1 << 19):
            log.store(body)
    counting = asyncio.create_task(count_turns())
    await followed(log, copy)
    counting.cancel()
    assert copy.high_watermark == 49
    assert max(in_turns.values()) <= 3 * 100_100
