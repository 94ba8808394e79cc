"""Several stores on one log."""

from __future__ import annotations

import asyncio
import random
from itertools import count
from pathlib import Path

import pytest

from broker.documents import (
    CursorDocument,
    Delete,
    OwnerDocument,
    Put,
    SessionDocument,
    SubscriptionDocument,
    UserDocument,
)
from broker.documents.queues import MemberDocument
from broker.errors import (
    LogReplaced,
    SchemaMismatch,
    StoreConflict,
    StoreFenced,
    StoreFull,
    StoreUnavailable,
)
from broker.message import NOT_STORED, Message, Offset, WallUs
from broker.store.memory import MemoryStore
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.entries import (
    APPEND,
    CLASSES,
    CLOSED,
    Told,
    encode,
    encode_closed,
    records_of,
)
from broker.store.shared.memory_log import MemoryLog, Trouble
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.shared import (
    a_moment,
    brokers,
    content,
    ids,
    make_session,
    opened,
    rows,
    settled,
    take,
    troubles,
)
from tests.support.stores import payloads, read_all, tail_until


def cursor(offset: int, client_id: str = "x") -> CursorDocument:
    return CursorDocument(client_id, Offset(offset), Offset(offset), 1, b"")


async def test_all_have_the_same_in_the_same_order() -> None:
    log = MemoryLog(turns=5, random_=random.Random(2))
    stores = brokers(log, 3)
    async with opened(*stores):
        tails = [asyncio.create_task(tail_until(store, 1, 90)) for store in stores]

        async def publish(store: ClusterStore, name: str) -> list[Message]:
            batches = [[message(f"{name}{n}.{i}", name) for i in range(3)] for n in range(10)]
            for batch in batches:
                await store.append(batch)
            return [m for batch in batches for m in batch]

        names = zip(stores, "abc", strict=True)
        sent = await asyncio.gather(*[publish(store, name) for store, name in names])
        seen = [await tail for tail in tails]
        assert (
            seen[0]
            == seen[1]
            == seen[2]
            == sorted([m for batch in sent for m in batch], key=lambda m: m.offset)
        )
        assert [m.offset for m in seen[0] if isinstance(m, Message)] == [*range(1, 91)]
        for store, name in zip(stores, "abc", strict=True):
            mine = await read_all(store, [name])
            assert payloads(mine) == [
                b"%s%d.%d" % (name.encode(), n, i) for n in range(10) for i in range(3)
            ]
        await settled(log, stores)
        contents = [content(store.copy) for store in stores if isinstance(store.copy, MemoryStore)]
        assert contents[0] == contents[1] == contents[2]


async def test_each_tells_of_itself_while_it_lives() -> None:
    log = MemoryLog()
    a, b, c = stores = brokers(log, 3)
    async with opened(*stores):
        await a.tell(Told("a:1", connections=2))
        await b.tell(Told("b:1"))
        await settled(log, stores)
        assert [(told.advertise, told.connections) for told in c.told] == [("a:1", 2), ("b:1", 0)]
        assert 0 < c.told[0].position < c.told[1].position, "how far their copies are"
        await a.leave()
        await settled(log, [b, c])
        assert [told.advertise for told in c.told] == ["b:1"]


async def test_what_one_appends_that_was_forgotten_does_not_count() -> None:
    """Also an entry in parts, which is never waited for."""
    log = MemoryLog()
    a, b, c = stores = brokers(log, 3)
    async with opened(*stores):
        await a.append([message("1")])
        name, number = a.broker_id, a._number
        with pytest.raises(StoreConflict):
            await b.forget([name])
        await a.leave()
        await settled(log, [b, c])
        await b.forget([name])
        await settled(log, [b, c])
        assert b.dead == c.dead == set()
        late = encode([message("late")], (), ())
        for body in records_of(name, number + 1, APPEND, late, 1 << 19):
            log.store(body)
        first, *_ = records_of(name, number + 2, APPEND, late, 10)
        log.store(first)
        await b.append([message("2")])
        await settled(log, [b, c])
        assert payloads(await read_all(c)) == [b"1", b"2"]
        assert name not in b.others
        assert b._follower.goes_on_after == len(log.records)
        with pytest.raises(StoreConflict):
            await c.forget([name])
        assert content(b.copy) == content(c.copy)  # type: ignore[arg-type]


async def test_what_others_appended_before_is_there_after_sync() -> None:
    stores = brokers(MemoryLog(turns=9), 2)
    async with opened(*stores):
        await stores[0].append(numbered(3))
        await stores[1].sync()
        assert stores[1].high_watermark == 3
        assert len(await read_all(stores[1])) == 3


async def test_who_appends_finds_it_at_once() -> None:
    (store,) = brokers(MemoryLog(turns=9), 1)
    async with opened(store):
        for n in range(1, 20):
            await store.append(numbered(1))
            assert store.high_watermark == n
            assert len((await store.read(Offset(1), Offset(n))).messages) == n


@pytest.mark.parametrize(
    "trouble", [Trouble.CUT_OFF, Trouble.REPLY_LOST, Trouble.STORED_LATE, Trouble.STORED_TWICE]
)
async def test_whatever_goes_wrong_an_append_counts_once(trouble: Trouble) -> None:
    log = MemoryLog()
    store, other = brokers(log, 2)
    async with opened(store, other):
        log.trouble = troubles(trouble, trouble)
        batch = numbered(2)
        await store.append(batch, [Put(SessionDocument("x", 60, 1, None))])
        await store.append(numbered(1, first=3))
        await other.sync()
        for each in (store, other):
            assert payloads(await read_all(each)) == [b"1", b"2", b"3"]
        assert [m.offset for m in batch] == [1, 2]


async def test_what_may_be_stored_already_is_not_refused_for_want_of_room() -> None:
    """Who is told that there is no room appends it again, as something new."""
    log = MemoryLog()
    store, other = brokers(log, 2)
    async with opened(store, other):
        log.trouble = troubles(Trouble.STORED_LATE, Trouble.FULL)
        appending = asyncio.create_task(store.append(numbered(1)))
        for _ in range(20):
            await asyncio.sleep(0)
        await other.append(numbered(1, first=2))  # And with it what was stored late.
        await appending
        await store.append(numbered(1, first=3))
        assert sorted(payloads(await read_all(store))) == [b"1", b"2", b"3"]


async def test_a_log_without_room_says_so() -> None:
    log = MemoryLog()
    (store,) = brokers(log, 1)
    async with opened(store):
        log.trouble = troubles(Trouble.FULL)
        with pytest.raises(StoreFull):
            await store.append(numbered(1))
        await store.append(numbered(1))
        assert len(await read_all(store)) == 1


async def test_large_appends_of_two_do_not_get_mixed_up() -> None:
    """Also while each of their records is appended several times."""
    log = MemoryLog(turns=4, random_=random.Random(3))
    stores = brokers(log, 2)
    async with opened(*stores):
        log.trouble = lambda: random_.choice(
            [Trouble.NONE, Trouble.REPLY_LOST, Trouble.STORED_TWICE]
        )
        random_ = random.Random(4)
        batches = [[message(bytes([n]) * 700_000), message("end")] for n in (1, 2)]
        await asyncio.gather(*[s.append(b) for s, b in zip(stores, batches, strict=True)])
        log.trouble = lambda: Trouble.NONE
        for store in stores:
            await store.sync()
        found = [await read_all(store) for store in stores]
        assert found[0] == found[1] == sorted(batches[0] + batches[1], key=lambda m: m.offset)


async def test_only_one_of_two_puts_a_document_over_the_same_revision() -> None:
    store, other = brokers(MemoryLog(turns=3), 2)
    async with opened(store, other):
        users = [UserDocument("u", name, "", "", WallUs(0), WallUs(0)) for name in "ab"]
        lost = [message("a", retain=True), message("b", retain=True)]
        done = await asyncio.gather(
            store.append([lost[0]], [Put(users[0], 0)]),
            other.append([lost[1]], [Put(users[1], 0)]),
            return_exceptions=True,
        )
        won = done.index(None)
        assert isinstance(done[1 - won], StoreConflict)
        assert lost[1 - won].offset == NOT_STORED
        for each in (store, other):
            await each.sync()
            assert await each.get(UserDocument, ("u",)) == users[won]
            assert payloads(await read_all(each)) == [b"ab"[won : won + 1]]


async def test_only_who_has_a_session_changes_it() -> None:
    """And says whose it was, so that the rest can be appended again. Nothing of it is stored."""
    store, other = brokers(MemoryLog(), 2)
    async with opened(store, other):
        await make_session(store, "x")
        await make_session(other, "y")
        await store.sync()
        refused = message("of x")
        with pytest.raises(StoreConflict) as error:
            await other.append([refused], [Put(cursor(1, "y")), Put(cursor(1))])
        assert error.value.of == {"x"}
        assert refused.offset == NOT_STORED
        with pytest.raises(StoreConflict):
            await other.transact([Delete(SubscriptionDocument, ("x",))])
        with pytest.raises(StoreConflict):
            await other.transact([Delete(SessionDocument, ("x",))])
        await other.append([message("of y")], [Put(cursor(1, "y"))])
        await store.append([], [Put(cursor(7))])
        await other.sync()
        assert await other.get(CursorDocument, ("x",)) == cursor(7)
        assert payloads(await read_all(other)) == [b"of y"]


async def test_an_append_is_before_a_session_goes_or_does_not_count() -> None:
    log = MemoryLog(turns=8, random_=random.Random(5))
    store, other = brokers(log, 2)
    async with opened(store, other):
        await make_session(store, "x")
        conflicts = []
        for n in range(30):
            here, there = (store, other) if n % 2 == 0 else (other, store)
            await here.sync()
            await there.sync()
            appending = asyncio.create_task(here.append([message(str(n))], [Put(cursor(n))]))
            await take(there, "x")
            found = await there.get(CursorDocument, ("x",))
            try:
                await appending
                assert found == cursor(n)
            except StoreConflict as error:
                conflicts.append(error.of)
                assert found != cursor(n)
            owner = await there.get(OwnerDocument, ("x",))
            assert owner == OwnerDocument("x", there.broker_id, n + 2)
        assert 0 < len(conflicts) < 30
        assert {*conflicts} == {frozenset({"x"})}


async def test_of_two_that_take_a_session_one_has_it() -> None:
    log = MemoryLog(turns=8, random_=random.Random(6))
    owner, *others = brokers(log, 3)
    async with opened(owner, *others):
        await make_session(owner, "x")
        for store in others:
            await store.sync()
        done = await asyncio.gather(*[take(o, "x") for o in others], return_exceptions=True)
        assert [type(each) for each in done if each] == [StoreConflict]
        won = others[done.index(None)]
        await owner.sync()
        assert await owner.get(OwnerDocument, ("x",)) == OwnerDocument("x", won.broker_id, 2)


async def test_a_session_that_was_removed_elsewhere_is_not_here() -> None:
    store, other = brokers(MemoryLog(), 2)
    async with opened(store, other):
        await make_session(store, "x")
        await other.sync()
        revision = await other.revision(SessionDocument, ("x",))
        await other.transact([Delete(SessionDocument, ("x",), revision)])
        with pytest.raises(StoreConflict) as error:
            await store.append([message()], [Put(cursor(1))])
        assert error.value.of == {"x"}
        assert await store.get(SessionDocument, ("x",)) is None
        await make_session(store, "x")
        await store.transact([Put(cursor(1))])


async def test_nothing_counts_that_a_dead_broker_appended_before_and_that_comes_late() -> None:
    log = MemoryLog()
    (other,) = brokers(log, 1)
    never = asyncio.Event()

    async def sleeps(seconds: float) -> None:
        await never.wait()

    dead = ClusterStore(log, MemoryStore(), sleep=sleeps)
    async with opened(dead, other):
        await other.sync()
        log.trouble = troubles(Trouble.STORED_LATE)
        appending = asyncio.create_task(dead.append([late := message("late")]))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert await other.declare_dead(dead.broker_id)
        with pytest.raises(StoreFenced):
            await appending
        assert late.offset == NOT_STORED
        await other.sync()
        assert b"late" in b"".join(log.records)
        assert await read_all(other) == []
        assert not await other.declare_dead("nobody")


async def test_a_broker_that_was_taken_for_dead_hears_of_it_and_starts_anew() -> None:
    dead, other = brokers(MemoryLog(), 2)
    async with opened(dead, other):
        await other.sync()
        assert await other.declare_dead(dead.broker_id)
        with pytest.raises(StoreFenced):
            await dead.append([message("late")])
        assert isinstance(dead.failure, StoreFenced)
        await other.sync()
        assert await read_all(other) == []
        await dead.close()
        await dead.open()
        await dead.append([message("again")])
        await other.sync()
        assert payloads(await read_all(other)) == [b"again"]


async def test_who_has_appended_since_is_not_dead() -> None:
    store, other = brokers(MemoryLog(), 2)
    async with opened(store, other):
        await other.sync()
        heard_of_at = other._follower.writers[store.broker_id].position
        await store.append([message("alive")])
        await other._append(CLOSED, encode_closed(store.broker_id, heard_of_at))
        await store.append([message("still")])
        assert store.failure is None
        await other.sync()
        assert payloads(await read_all(other)) == [b"alive", b"still"]


async def test_after_a_while_without_an_answer_it_gives_up() -> None:
    log, now = MemoryLog(), iter(range(100))
    store = ClusterStore(
        log,
        MemoryStore(),
        append_timeout_s=5,
        monotonic=lambda: next(now),
        sleep=a_moment,
    )
    async with opened(store):
        log.trouble = lambda: Trouble.CUT_OFF
        with pytest.raises(StoreUnavailable, match="does not answer"):
            await store.append([message()])


async def test_a_log_that_does_not_answer_is_told_once_and_that_it_does_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log, now = MemoryLog(), count()
    store = ClusterStore(log, MemoryStore(), monotonic=lambda: next(now), sleep=a_moment)
    async with opened(store):
        log.trouble = troubles(*[Trouble.CUT_OFF] * 2)
        await store.append([message("soon")])
        assert caplog.messages == []
        log.trouble = troubles(*[Trouble.CUT_OFF] * 20)
        await store.append([message("late")])
    silent, again = caplog.messages
    assert silent.startswith("the shared log does not answer, and nothing is acknowledged: ")
    assert again.startswith("the shared log answers again, after ")


async def test_a_store_that_is_opened_again_is_another_broker_with_the_same_copy() -> None:
    log = MemoryLog()
    (store,) = brokers(log, 1)
    async with opened(store):
        await store.append(numbered(3))
        first = store.broker_id
        await store.close()
        await store.open()
        assert store.broker_id != first
        assert len(await read_all(store)) == 3


async def test_a_new_copy_is_made_from_the_log() -> None:
    log = MemoryLog()
    (store,) = brokers(log, 1)
    async with opened(store):
        await make_session(store, "x")
        await store.append([message("r", retain=True), *numbered(200)], [Put(cursor(3))])
        copy = MemoryStore()
        late = ClusterStore(log, copy, sleep=a_moment)
        async with opened(late):
            await settled(log, [store, late])
            assert isinstance(store.copy, MemoryStore)
            assert content(copy) == content(store.copy)


async def test_copies_in_sqlite_are_equal_row_by_row_also_after_a_crash(tmp_path: Path) -> None:
    """What a crash takes from a copy is read again, at the same offsets: it leaves no gap."""
    log = MemoryLog(turns=3)
    paths = [tmp_path / name for name in ("1.db", "2.db", "3.db")]
    stores = [
        ClusterStore(log, SqliteStore(path, is_copy=True), new_id=ids(path.stem), sleep=a_moment)
        for path in paths
    ]
    async with opened(*stores):
        await make_session(stores[0], "x")
        for n in range(5):
            for store in stores:
                await store.append(numbered(400, lambda i: f"t/{i % 7}"), [])
            await stores[0].append([message(str(n), retain=True)], [Put(cursor(n))])
        crashed = stores[2]
        copy = crashed.copy
        assert isinstance(copy, SqliteStore)
        copy._writer.refusal = "a crash"
        await crashed.close()
        await stores[0].append(numbered(100))
        await crashed.open()
        batch = numbered(1)
        await crashed.append(batch)
        assert batch[0].offset == 5 * 1201 + 101
        await stores[0].sync()
        await stores[1].sync()
        await settled(log, stores)
    first, second, third = map(rows, paths)
    assert first == second == third
    assert len(first["messages"]) == 5 * 1201 + 101


async def test_the_copy_of_another_log_is_refused() -> None:
    (store,) = brokers(MemoryLog("one"), 1)
    async with opened(store):
        await store.append(numbered(3))
    for log, says in ((MemoryLog("two"), "copy of the log one"), (MemoryLog("one"), "ends at 0")):
        with pytest.raises(LogReplaced, match=says):
            await ClusterStore(log, store.copy, sleep=a_moment).open()


async def test_the_log_of_a_broker_alone_is_no_copy() -> None:
    copy = MemoryStore()
    await copy.open()
    await copy.append(numbered(1))
    with pytest.raises(LogReplaced, match="broker alone"):
        await ClusterStore(MemoryLog(), copy, sleep=a_moment).open()


async def test_an_older_program_ends_where_a_newer_one_wrote_and_goes_on_there_when_it_is_newer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    log = MemoryLog()
    (store,) = brokers(log, 1)
    newer = encode([message("2")], [Put(MemberDocument("$share/g/t", "b2.0", 1, "w", 9))], ())
    async with opened(store):
        await store.append([message("1")])
        await make_session(store, "$share/g/t")
        monkeypatch.setattr("broker.store.shared.entries.CLASSES", CLASSES[:-4])
        (body,) = records_of("b2.0", 1, APPEND, newer, 9999)
        log.store(body)
        with pytest.raises(SchemaMismatch, match="upgrade this one"):
            await store.append([message("3")])
        with pytest.raises(SchemaMismatch):
            await store.append([message("4")])
    monkeypatch.undo()
    async with opened(store):
        await store.append([message("5")])
        assert payloads(await read_all(store))[:2] == [b"1", b"2"]
