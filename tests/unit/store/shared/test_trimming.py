from __future__ import annotations

import asyncio
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import pytest

from broker.documents import CursorDocument, Put
from broker.errors import LogReplaced, StoreConflict
from broker.message import Offset
from broker.store.memory import MemoryStore
from broker.store.shared import cluster
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.entries import APPEND, encode, records_of
from broker.store.shared.memory_log import MemoryLog
from broker.store.sqlite.store import SqliteStore
from cli.care.backup import backup
from cli.care.restore import restore
from tests.support.messages import message, numbered
from tests.support.patience import PATIENCE_S
from tests.support.shared import (
    a_moment,
    content,
    ids,
    make_session,
    opened,
    rows,
    settled,
    take,
)
from tests.support.stores import payloads, read_all

KEEP_BYTES = 4000


def trimming(log: MemoryLog, *names: str) -> list[ClusterStore]:
    """Stores that are not open and keep little."""
    return [store_on(log, MemoryStore(), name) for name in names]


def store_on(log: MemoryLog, copy: MemoryStore | SqliteStore, name: str) -> ClusterStore:
    return ClusterStore(log, copy, new_id=ids(name), sleep=a_moment, keep_bytes=KEEP_BYTES)


def size_of(log: MemoryLog) -> int:
    return sum(map(len, log.records))


async def fill(store: ClusterStore) -> None:
    """Append more than is to be kept."""
    for n in range(60):
        await store.append([message(b"x" * 200, f"t/{n}")])


async def look(stores: Sequence[ClusterStore], times: int = 4) -> None:
    """As brokers do it, again and again."""
    for _ in range(times):
        for store in stores:
            await store.sync()
        for store in stores:
            await store.sync()  # Has heard of the others.
            await store.trim_log()


def in_memory(store: ClusterStore) -> MemoryStore:
    assert isinstance(store.copy, MemoryStore)
    return store.copy


async def test_what_all_have_goes_from_the_log_and_stays_in_the_copies() -> None:
    log = MemoryLog(turns=3)
    stores = trimming(log, "a", "b", "c")
    async with opened(*stores):
        await fill(stores[1])
        assert size_of(log) > 2 * KEEP_BYTES
        await look(stores)
        assert log.oldest > 30
        assert KEEP_BYTES // 4 < size_of(log) <= KEEP_BYTES + 500
        before = log.oldest
        await fill(stores[0])
        await look(stores)
        assert log.oldest > before
        await settled(log, stores)
        for store in stores:
            assert len(await read_all(store)) == 120
            assert content(in_memory(store)) == content(in_memory(stores[0]))


async def test_little_stays_whole() -> None:
    log = MemoryLog()
    stores = trimming(log, "a", "b")
    async with opened(*stores):
        await look(stores)
        assert log.oldest == 1


async def test_no_more_is_kept_than_half_of_what_the_engine_takes() -> None:
    log = MemoryLog()
    log.bytes_max = KEEP_BYTES
    stores = trimming(log, "a", "b")
    async with opened(*stores):
        await stores[0].append([message(b"x" * (KEEP_BYTES // 2))])
        await look(stores)
        assert log.oldest > 1


async def test_the_first_of_the_living_trims_alone() -> None:
    log = MemoryLog()
    stores = trimming(log, "a", "b")
    async with opened(*stores):
        await fill(stores[0])
        for _ in range(6):
            for store in stores:
                await store.sync()
            await stores[1].trim_log()
        assert log.oldest == 1
        await stores[0].leave()
        await stores[1].sync()
        await stores[1].trim_log()
        assert log.oldest > 1


async def test_nothing_goes_that_a_living_broker_may_lack() -> None:
    log = MemoryLog()
    first, lags = trimming(log, "a", "b")
    async with opened(first, lags):
        await look([first, lags])
        at = len(log.records)
        await fill(first)
        for _ in range(6):
            await first.sync()
            await first.trim_log()
        assert log.oldest <= at
        held_at = log.oldest
        # It is heard of once more: so it has read what it had appended before, and no more.
        await lags.sync()
        await first.sync()
        await first.trim_log()
        assert log.oldest <= at
        assert held_at <= log.oldest
        await look([first, lags])
        assert log.oldest > at


async def test_one_that_has_just_come_is_waited_for_and_a_dead_one_is_not() -> None:
    log = MemoryLog()
    first, other = trimming(log, "a", "b")
    async with opened(first, other):
        await fill(first)
        for _ in range(6):
            await first.sync()
            await first.trim_log()
        assert log.oldest == 1
        assert await first.declare_dead(other.broker_id)
        await first.trim_log()
        assert log.oldest > 1


async def test_an_entry_that_is_not_whole_yet_stays() -> None:
    log = MemoryLog()
    first, other = trimming(log, "a", "b")
    async with opened(first, other):
        await look([first, other])
        begins = len(log.records) + 1
        parts = records_of("c", 1, APPEND, encode(numbered(1), (), ()), 20)
        log.store(parts[0])
        await fill(first)
        await look([first, other])
        assert 1 < log.oldest <= begins
        for part in parts[1:]:
            log.store(part)
        await settled(log, [first, other])
        assert payloads(await read_all(first))[-1] == payloads(numbered(1))[0]


async def test_a_new_copy_and_one_that_is_behind_are_refused_and_told_what_helps() -> None:
    log = MemoryLog()
    stores = trimming(log, "a", "b", "c")
    new = trimming(log, "d")[0]
    async with opened(*stores):
        await stores[2].close()
        await stores[0].declare_dead(stores[2].broker_id)
        ended_at = stores[2]._follower.applied
        await fill(stores[0])
        await look(stores[:2])
        with pytest.raises(LogReplaced, match=rf"this copy ends at {ended_at}: .*pubsub restore"):
            await stores[2].open()
        with pytest.raises(LogReplaced, match=r"there is no copy here yet: .*pubsub backup FILE"):
            await new.open()


async def test_who_follows_and_falls_behind_the_log_hears_of_it() -> None:
    log = MemoryLog()
    await log.append(b"1")
    await log.append(b"2")
    await log.trim(2)
    following = log.follow(1)
    with pytest.raises(LogReplaced, match="begins at record 2"):
        await anext(following)
    async with asyncio.timeout(PATIENCE_S):
        assert (await anext(log.follow(2)))[0] == (2, b"2")


async def test_a_copy_of_another_broker_goes_on_as_that_one() -> None:
    """Who is dead, whose sessions are whose, which append was which broker's newest: all of it is
    in the copy, though the records that said so are gone."""
    log = MemoryLog(turns=2)
    stores = trimming(log, "a", "b", "c")
    async with opened(*stores):
        await make_session(stores[0], "x")
        dead = stores[2]
        await make_session(dead, "y")
        late = records_of(dead.broker_id, 1000, APPEND, encode(numbered(1), (), ()), 1 << 20)
        again = next(body for body in log.records if dead.broker_id.encode() in body)
        await stores[0].declare_dead(dead.broker_id)
        await fill(stores[1])
        await look(stores[:2])
        assert log.oldest > 30
        restored = store_on(log, deepcopy(in_memory(stores[1])), "d")
        async with opened(restored):
            for body in (*late, again):
                log.store(body)
            session = Put(CursorDocument("x", Offset(1), Offset(1), 1, b""))
            with pytest.raises(StoreConflict):
                await restored.transact([session])
            await take(restored, "x")
            await restored.transact([session])
            with pytest.raises(StoreConflict):
                await stores[0].transact([session])
            await restored.append(numbered(3))
            living = [*stores[:2], restored]
            await look(living)
            await settled(log, living)
            for store in living:
                assert len(await read_all(store)) == 63
                assert content(in_memory(store)) == content(in_memory(restored))


@pytest.mark.parametrize("had_a_copy", [False, True])
async def test_a_backup_that_is_restored_is_equal_row_by_row(
    tmp_path: Path, had_a_copy: bool
) -> None:
    log = MemoryLog()
    for name in "ab":
        (tmp_path / name).mkdir()
    paths = [tmp_path / name / "pubsub.db" for name in "ab"]
    a, b = [store_on(log, SqliteStore(p, is_copy=True), p.parent.name) for p in paths]
    file = tmp_path / "backup.db"
    async with opened(a):
        if had_a_copy:
            await b.open()
            await b.append(numbered(3))
            await b.leave()
            await b.close()
        await make_session(a, "x")
        await fill(a)
        await look([a])
        assert log.oldest > 30
        with pytest.raises(LogReplaced):
            await b.open()
        backup(tmp_path / "a", file, json=False)
        await fill(a)
        restore(file, tmp_path / "b", replace=True)
        await b.open()
        batch = numbered(2)
        await b.append(batch)
        assert batch[0].offset == 121 + 3 * had_a_copy
        await look([a, b], times=1)
        await settled(log, [a, b])
        await b.close()
    assert rows(paths[0]) == rows(paths[1])


async def test_a_broker_reads_what_it_missed_before_it_lives(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Others count the seconds from its first append on."""
    monkeypatch.setattr(cluster, "CAUGHT_UP_RECORDS", 10)
    log = MemoryLog()
    first, late = trimming(log, "a", "b")
    applied: list[int] = []
    async with opened(first):
        await fill(first)
        newest = len(log.records)
        append = log.append

        async def watched(body: bytes) -> int:
            applied.append(late._follower.applied)
            return await append(body)

        log.append = watched  # type: ignore[method-assign]
        await late.open()
        await late.close()
    assert applied[0] >= newest


async def test_how_much_the_log_has_is_told_also_by_those_that_do_not_trim() -> None:
    log = MemoryLog()
    log.bytes_max = 100_000
    a, b = stores = trimming(log, "a", "b")
    async with opened(*stores):
        assert b.status()["bytes"] is None
        await look(stores)
        told = b.status()
        assert (told["bytes_max"], told["other_brokers"]) == (100_000, {a.broker_id: ""})
        assert isinstance(told["bytes"], int)
        assert 0 < told["bytes"] <= size_of(log)
