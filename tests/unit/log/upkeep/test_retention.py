"""Retention: which messages go by which rule, and which stay."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import TypeVar

import pytest

from broker.clock import US
from broker.documents import MarkDocument, Operation
from broker.errors import StoreCorrupt
from broker.log.log_time import LogTime
from broker.log.upkeep import retention as module
from broker.log.upkeep.retention import SWEEP_S, Retention
from broker.log.upkeep.sweep import ByHand
from broker.message import Offset
from broker.settings.retention import RetentionRule
from broker.store import Store
from broker.store.removing import SEGMENT, ByTopic, Order, Removed, Segment
from tests.support.clock import FakeClock
from tests.support.messages import message, numbered
from tests.support.patience import PATIENCE_S
from tests.support.retention import SIZE, Rules, four
from tests.support.stores import END, read_all, retained

DAY = 86_400


T = TypeVar("T")


class LogWithRetention:
    """A log with retention."""

    def __init__(self, store: Store, clock: FakeClock, *rules: RetentionRule) -> None:
        self.store = store
        self.clock = clock
        self.keeper = Rules(store, *rules)
        self.retention = self.begin()
        self.operations: list[Operation] = []

    def begin(self) -> Retention:
        """Of a broker that has just been started."""
        self.time = LogTime(self.clock)
        return Retention(
            *(self.store, self.time, self.clock, self.keeper, self.commit), interval_s=10
        )

    def commit(self, operations: Sequence[Operation]) -> None:
        self.operations += operations

    async def passing_time(self, work: Coroutine[None, None, T]) -> T:
        """Its pauses pass."""
        running = asyncio.create_task(work)
        async with asyncio.timeout(PATIENCE_S):
            while not running.done():
                for timer in self.clock.timers[:1]:
                    self.clock.advance(timer)
                await asyncio.sleep(0)
        return await running

    async def run(self) -> list[int]:
        """A pass; the offsets that are left."""
        await self.passing_time(self.retention.run_once())
        await self.store.transact(self.operations)
        self.operations.clear()
        return [found.offset for found in await read_all(self.store)]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


async def test_messages_go_when_they_are_old(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, age_s=7 * DAY))
    await store.append(numbered(1500))
    assert len(await kept.run()) == 1500
    clock.advance(4 * DAY)
    await store.append(numbered(10))
    assert len(await kept.run()) == 1510
    clock.advance(3 * DAY)
    assert await kept.run() == list(range(1501, 1511))
    assert store.log_start == 1501
    assert +kept.retention.removed == {"age": 1500}
    assert kept.retention.kept.messages == 10


async def test_what_comes_behind_messages_that_stay_is_looked_at(
    store: Store, clock: FakeClock
) -> None:
    """The first segment has only held ones at first, and is not whole."""
    kept = LogWithRetention(store, clock, RetentionRule(None, count=30))
    await store.append([message("kept", f"r/{n}", retain=True) for n in range(40)])
    assert await kept.run() == list(range(1, 41))
    kept.keeper.rules = [RetentionRule(None, count=50)]
    await store.append(numbered(3000))
    assert await kept.run() == list(range(3031, 3041))


async def test_bytes_take_what_is_unread_but_for_the_last(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, bytes=10 * SIZE, keep_last=1))
    await store.append(four(3000))
    kept.keeper.wanted = {"t": 1}
    left = await kept.run()
    assert left == list(range(2991, 3001))
    assert kept.keeper.told == list(range(1, 2991))


async def test_a_clock_that_jumps_ahead_deletes_nothing(store: Store, clock: FakeClock) -> None:
    """A year ahead for 1.5 s, and at a start."""
    kept = LogWithRetention(store, clock, RetentionRule(None, age_s=7 * DAY))
    await store.append(numbered(5))
    await kept.run()
    real = clock.wall_us() // US
    clock.set_wall(real + 365 * DAY)
    await store.append([message("of next year", at=clock.wall_us())])
    clock.advance(1.5)
    assert len(await kept.run()) == 6
    await store.transact([kept.time.note()])
    kept.retention = kept.begin()
    await kept.time.resume(store)
    assert len(await kept.run()) == 6
    clock.set_wall(real)
    clock.advance(module.MARK_INTERVAL_S_MAX)
    assert len(await kept.run()) == 6
    clock.advance(7 * DAY - 1)
    assert await kept.run() == [6]
    clock.advance(1)
    assert await kept.run() == []


async def test_a_clock_that_was_behind_makes_nothing_old(store: Store, clock: FakeClock) -> None:
    """A board that boots in 1970; also in what was there before there was retention."""
    at = clock.wall_us()
    await store.append([message("now", at=at - DAY * US), message("1970", at=1)])
    kept = LogWithRetention(store, clock, RetentionRule(None, age_s=7 * DAY))
    assert await kept.run() == [1, 2]
    clock.advance(5 * DAY)
    assert await kept.run() == [1, 2]
    clock.advance(2 * DAY)
    assert await kept.run() == []


async def test_what_was_there_before_goes_by_its_own_time(store: Store, clock: FakeClock) -> None:
    """Not only when the program has run for so long."""
    at = clock.wall_us()
    old = [message("old", at=at - 30 * DAY * US) for _ in range(2048)]
    await store.append([*old, message("new", at=at)])
    kept = LogWithRetention(store, clock, RetentionRule(None, age_s=7 * DAY))
    assert await kept.run() == [2048, 2049]


async def test_marks_outlive_a_restart(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, age_s=7 * DAY))
    await store.append(numbered(5))
    await kept.run()
    assert [mark.offset for mark in await store.scan(MarkDocument)] == [5]
    clock.advance(7 * DAY)
    await store.transact([kept.time.note()])
    kept.retention = kept.begin()
    await kept.time.resume(store)
    assert await kept.run() == []
    assert await store.scan(MarkDocument) == []


async def test_each_topic_has_its_rule(store: Store, clock: FakeClock) -> None:
    rules = RetentionRule("a", age_s=DAY), RetentionRule("b"), RetentionRule(None, age_s=9 * DAY)
    kept = LogWithRetention(store, clock, *rules)
    await store.append(numbered(30, lambda n: "abc"[n % 3]))
    await kept.run()
    clock.advance(DAY)
    assert await kept.run() == [n for n in range(1, 31) if n % 3]
    clock.advance(8 * DAY)
    assert await kept.run() == list(range(1, 31, 3))
    assert store.log_start == 1


async def test_only_so_many_messages_stay(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, count=100))
    await store.append(numbered(3000))
    assert await kept.run() == list(range(2901, 3001))
    await store.append(numbered(5))
    assert await kept.run() == list(range(2906, 3006))
    assert +kept.retention.removed == {"count": 2905}
    assert (await store.stats()).messages == 100


@pytest.mark.parametrize("unread_from", [1, 1500])
async def test_for_what_is_unread_nothing_newer_goes_by_count(
    store: Store, clock: FakeClock, unread_from: int
) -> None:
    """So the newest stay that the rule keeps, whatever stays before them."""
    kept = LogWithRetention(store, clock, RetentionRule(None, count=1000))
    await store.append(numbered(4000, lambda n: f"t/{n % 2}"))
    kept.keeper.wanted = {"t/1": unread_from}
    for _ in range(3):
        left = await kept.run()
        assert {*range(3001, 4001)} <= {*left}
        assert {n for n in left if n % 2} == {*range(unread_from | 1, 4001, 2)}
        assert len([n for n in left if n <= 3000 and n % 2 == 0]) < SEGMENT
    kept.keeper.wanted = {}
    clock.advance(SWEEP_S)
    assert await kept.run() == list(range(3001, 4001))


async def test_only_so_many_bytes_stay(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, bytes=2000 * SIZE))
    await store.append(four(3000))
    assert await kept.run() == list(range(1001, 3001))
    assert kept.retention.kept == (2000, 2000 * SIZE)
    assert kept.retention.bytes_removed == 1000 * SIZE


async def test_the_newest_of_each_topic_stay_whatever_the_others_say(
    store: Store, clock: FakeClock
) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, count=0, age_s=DAY, keep_last=2))
    await store.append(numbered(2100, lambda n: "rare" if n in (2, 1030, 1031) else "t"))
    for _ in range(2):
        assert await kept.run() == [1030, 1031, 2099, 2100]
    await store.append(numbered(1, "rare"))
    assert await kept.run() == [1031, 2099, 2100, 2101]
    clock.advance(SWEEP_S)
    assert await kept.run() == [1031, 2099, 2100, 2101]


async def test_a_retained_message_never_goes(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, count=0, bytes=0))
    await store.append([message("1", "r", retain=True), *numbered(5)])
    assert await kept.run() == []
    assert [m.payload for m in await retained(store, ["r"])] == [b"1"]
    await store.append([message("2", "r", retain=True)])
    await kept.run()
    clock.advance(SWEEP_S)
    await kept.run()
    assert [m.payload for m in await retained(store, ["r"])] == [b"2"]
    assert (await store.fetch([Offset(1)])).messages == []


async def test_what_is_unread_stays_until_it_is_read(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, count=0, age_s=1))
    await store.append(numbered(3000, lambda n: f"t/{n % 2}"))
    kept.keeper.wanted = {"t/1": 1025}
    assert await kept.run() == list(range(1025, 3001, 2))
    kept.keeper.wanted = {"t/1": 2999}
    assert await kept.run() == [2999]
    kept.keeper.wanted = {}
    assert await kept.run() == []
    assert kept.keeper.told == []


async def test_the_size_takes_also_what_is_unread_and_tells_it(
    store: Store, clock: FakeClock
) -> None:
    """P5. First goes what nobody wants any more, however new."""
    kept = LogWithRetention(store, clock, RetentionRule(None, bytes=1000 * SIZE))
    kept.keeper.wanted, kept.keeper.unread_from = {"t": 1}, Offset(1)
    await store.append([*four(1500), *four(200, "read")])
    assert await kept.run() == list(range(501, 1501))
    assert kept.keeper.told == list(range(1, 501))
    assert +kept.retention.removed == {"bytes": 200, "unread": 500}
    read = await store.read(Offset(1), END, ["t"])
    assert read.removed == [range(1, 501)]
    assert not (await store.read(Offset(1), END, ["read"])).removed


async def test_what_is_held_stays(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None, bytes=0))
    kept.keeper.held = {Offset(3)}
    await store.append(four(5))
    assert await kept.run() == [3]
    kept.keeper.held = set()
    clock.advance(SWEEP_S)
    assert await kept.run() == []


async def test_a_damaged_segment_stays(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    remove = store.removing.remove

    async def damaged(order: Order, *args: int, **kwargs: bool) -> Removed:
        if order.first == 0:
            raise StoreCorrupt("this one")
        return await remove(order, *args, **kwargs)

    monkeypatch.setattr(store.removing, "remove", damaged)
    kept = LogWithRetention(store, clock, RetentionRule(None, count=0))
    await store.append(numbered(1500))
    assert await kept.run() == list(range(1, 1024))
    assert kept.retention.damaged == {0}


async def test_parts_are_small_while_the_disk_is_slow(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A commit waits for one part; and after it there is a pause of several parts."""
    parts: list[int] = []
    pauses: list[float] = []
    remove, sleep = store.removing.remove, clock.sleep

    async def slow(order: Order, rows_max: int, **kwargs: bool) -> Removed:
        parts.append(rows_max)
        await store.append(four(1))
        removed = await remove(order, rows_max, **kwargs)
        removed.took_s = rows_max / 10_000
        return removed

    async def paused(seconds: float) -> None:
        if seconds > module.BREATH_S:
            pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(store.removing, "remove", slow)
    monkeypatch.setattr(clock, "sleep", paused)
    kept = LogWithRetention(store, clock, RetentionRule(None, count=0))
    await store.append(numbered(2000))
    await kept.run()
    assert parts[-1] == module.ROWS_MIN
    took_s = module.ROWS_MIN / 10_000
    assert pauses[-1] == pytest.approx(module.PAUSE * took_s + module.BREATH_S)
    assert len(pauses) == len(parts)


async def test_there_is_a_pause_after_each_look_while_messages_come(
    store: Store, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It takes the interpreter from the loop, also where it counts, or all that it finds stays."""
    looks = 0
    pauses: list[float] = []
    kept = LogWithRetention(store, clock, RetentionRule(None, count=0))
    kept.keeper.wanted = {"t": 0}
    await store.append(numbered(20 * 1024))
    counted, segments, sleep = store.removing.counted, store.removing.segments, clock.sleep

    async def count(start: Offset, end: Offset) -> tuple[ByTopic, Offset]:
        nonlocal looks
        looks += 1
        await store.append(four(1))
        clock.advance(0.5)
        return await counted(start, Offset(min(end, start + 1024)))

    async def look(start: Offset) -> list[Segment]:
        nonlocal looks
        looks += 1
        await store.append(four(1))
        clock.advance(0.5)
        return (await segments(start))[:1]

    async def paused(seconds: float) -> None:
        pauses.append(seconds)
        await sleep(0)

    monkeypatch.setattr(store.removing, "counted", count)
    monkeypatch.setattr(store.removing, "segments", look)
    monkeypatch.setattr(clock, "sleep", paused)
    await kept.retention.run_once()
    assert kept.retention.kept.messages >= 20 * 1024
    assert looks > 40
    assert pauses.count(module.PAUSE_LOOKING * 0.5 + module.BREATH_S) >= looks - 5


async def test_by_hand(store: Store, clock: FakeClock) -> None:
    kept = LogWithRetention(store, clock, RetentionRule(None))
    await store.append(four(2000))
    by_hand = Rules(store, RetentionRule(None))
    by_hand.wanted = {"t": 1900}
    wanted = ByHand(Offset(1950), unread=False, dry_run=True)
    found = await kept.passing_time(kept.retention.trim(by_hand, wanted))
    assert (found.removed, found.left) == ((1899, 1899 * SIZE), 50)
    assert len(await read_all(store)) == 2000
    wanted.dry_run = False
    done = await kept.passing_time(kept.retention.trim(by_hand, wanted))
    assert (done.removed, done.left) == (found.removed, 50)
    assert store.log_start == 1900
    wanted.unread = True
    done = await kept.passing_time(kept.retention.trim(by_hand, wanted))
    assert (done.removed.messages, done.unread_removed) == (50, 50)
    assert by_hand.told == list(range(1900, 1950))
    assert store.log_start == 1950
