"""Brokers that die, and what others do about what they left."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Any

import pytest

from broker.config import Config
from broker.documents import (
    OwnerDocument,
    SessionDocument,
    WillDeadlineDocument,
    WriterDocument,
)
from broker.errors import StoreError, StoreFenced, StoreUnavailable
from broker.registry.brokers import (
    BROKER_TIMEOUT_S,
    FORGET_DEAD_S,
    HEARTBEAT_S,
    TAKEN_AT_ONCE_MAX,
    TRIM_INTERVAL_S,
)
from broker.store.shared.memory_log import MemoryLog
from tests.support.messages import message
from tests.support.two_brokers import (
    both_settled,
    id_of,
    logged,
    one_more,
    opened,
    pass_away,
    store_of,
    subscribed,
    two_brokers,
    will_of,
)
from tests.support.world import Subscriber, World, payloads

AT_ONCE = Config(will_restart_grace_s=0)


async def look(world: World) -> None:
    assert world.brokers is not None
    await world.passing_time(world.brokers.look())


async def test_each_tells_who_lives_itself_among_them() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await both_settled(a, b, c)
            three = " ".join(sorted([id_of(a), id_of(b), id_of(c)]))
            for world in (a, b, c):
                assert told(world) == {"brokers/count": 3, "brokers/alive": three}
        await pass_away(a, b)
        two = " ".join(sorted([id_of(a), id_of(b)]))
        assert told(a) == told(b) == {"brokers/count": 2, "brokers/alive": two}


async def test_who_is_dead_for_long_is_forgotten_everywhere() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c, "x")
            await both_settled(a, b, c)
            dead = id_of(c)
        await pass_away(a, b)
        assert [store_of(world).dead for world in (a, b)] == [{dead}, {dead}]
        a.clock.advance(FORGET_DEAD_S)
        for world in (a, b):
            await look(world)
        await both_settled(a, b)
        assert [store_of(world).dead for world in (a, b)] == [set(), set()]
        for world in (a, b):
            assert dead not in {each.broker for each in await world.disk.scan(WriterDocument)}


async def test_what_a_dead_one_left_is_taken_up_later_if_the_copy_cannot_be_read_now(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryLog()
    async with two_brokers(AT_ONCE, log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c, "x", will=will_of("x"))
            await both_settled(a, b, c)
        scan, failures = a.disk.scan_part, [StoreUnavailable("too many open files")]

        async def failing(*args: Any) -> Any:
            if failures:
                raise failures.pop()
            return await scan(*args)

        a.disk.scan_part = failing  # type: ignore[assignment]
        for _ in range(8):
            await look(a)
            a.clock.advance(HEARTBEAT_S)
        await both_settled(a)
        assert failures == []
        assert "is taken up later: too many open files" in caplog.text
        assert logged(a) == [b"x"]


def told(world: World) -> dict[str, object]:
    assert world.brokers is not None
    return world.brokers.values()


async def test_the_wills_of_a_dead_broker_go_out_once() -> None:
    log, many = MemoryLog(), 2 * TAKEN_AT_ONCE_MAX + 1
    async with two_brokers(AT_ONCE, log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            for n in range(many):
                await opened(c, f"x{n}", will=will_of(f"x{n}"), expiry_s=100 * (n % 2))
            await both_settled(a, b, c)
        await opened(b, "x7")
        await both_settled(a, b)
        assert logged(a) == [b"x7"], "its client came elsewhere, as it does if it is taken over"
        await pass_away(a, b)
        assert Counter(logged(a)) == Counter(logged(b)) == Counter(b"x%d" % n for n in range(many))
        assert await a.disk.scan(WillDeadlineDocument) == []
        owners = {each.broker for each in await a.disk.scan(OwnerDocument)}
        assert owners <= {id_of(a), id_of(b)}
        assert len(await a.disk.scan(SessionDocument)) == many // 2


async def test_who_comes_back_in_time_has_no_will_published() -> None:
    log = MemoryLog()
    async with two_brokers(Config(will_restart_grace_s=30), log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c, "back", will=will_of("back"))
            await opened(c, "gone", will=will_of("gone"))
        await pass_away(a, b)
        await opened(b, "back")
        await both_settled(a, b)
        assert logged(a) == []
        a.clock.advance(31)
        await both_settled(a, b)
        assert logged(a) == logged(b) == [b"gone"]


async def test_the_last_that_a_dead_broker_did_is_taken_up_too() -> None:
    """Though the copy has none of it yet when it is heard that the broker is dead."""
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            permits, copy_append = asyncio.Semaphore(0), b.disk.append

            async def slowly(*args: Any, **kwargs: Any) -> None:
                await permits.acquire()
                await copy_append(*args, **kwargs)

            b.disk.append = slowly  # type: ignore[method-assign]
            await a.publish(message("1"))
            await both_settled(a, c)
            (await subscribed(c)).close()
            await both_settled(a, c)
            await store_of(c).leave()
        assert b.brokers is not None
        permits.release()  # Of what comes then, all is read before any of it is in the copy.
        for _ in range(100):
            await asyncio.sleep(0)
        assert id_of(c) in store_of(b).dead
        taking = asyncio.create_task(b.brokers.take_up())
        await asyncio.sleep(0)
        for _ in range(1000):
            permits.release()
        await taking
        assert "sub1" in b.sessions.kept


async def test_the_sessions_of_a_dead_broker_are_there_for_their_clients_and_expire() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            for name in ("connected", "away"):
                there = await subscribed(c, name, expiry_s=100)
            there.close()
            await both_settled(a, b, c)
        await pass_away(a, b)
        await a.publish(message("1"))
        await both_settled(a, b)
        back = Subscriber(b)
        assert await back.open("connected", expiry_s=100)
        await both_settled(a, b)
        assert payloads(back.got) == [b"1"]
        a.clock.advance(101)
        await both_settled(a, b)
        assert [d.client_id for d in await a.disk.scan(SessionDocument)] == ["connected"]


async def test_nobody_waits_for_a_broker_to_be_taken_for_dead() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await subscribed(c)
            await both_settled(a, b, c)
        assert await Subscriber(a).open(), "Session Present"


async def test_a_broker_that_has_nothing_to_say_lives() -> None:
    async with two_brokers() as (a, b):
        await pass_away(a, b)
        await pass_away(a, b)
        assert store_of(a).dead == set()
        assert [*store_of(a).others] == [id_of(b)]


async def test_a_broker_that_was_taken_for_dead_serves_nobody() -> None:
    """Whatever it is told then, it acknowledges nothing; it has to start anew."""
    async with two_brokers(AT_ONCE) as (a, b):
        await opened(b, will=will_of())
        for _ in range(6):
            await look(a)
            a.clock.advance(HEARTBEAT_S)
        heard: list[StoreError | None] = []
        b.log.append([message("too late")], heard.append)
        with pytest.raises(StoreFenced):
            await b.flushed()
        assert isinstance(heard[0], StoreFenced)
        await both_settled(a)
        assert logged(a) == [b"sub1"]


async def test_while_our_own_appends_are_slow_nobody_is_taken_for_dead() -> None:
    """It may be us who are cut off."""
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        await look(b)
        for _ in range(10):
            looking = asyncio.create_task(a.brokers.look())  # type: ignore[union-attr]
            await asyncio.sleep(0)
            a.clock.advance(BROKER_TIMEOUT_S / 2)
            await looking
        assert store_of(a).dead == set()
        await both_settled(a, b)


async def test_what_the_dead_left_is_taken_up_also_if_who_took_them_for_dead_dies() -> None:
    log = MemoryLog()
    async with two_brokers(AT_ONCE, log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c, will=will_of())
            await both_settled(a, b, c)
        assert await store_of(b).declare_dead("c.0")
        for _ in range(5):  # Then b says nothing more.
            await pass_away(a)
        await both_settled(a)
        assert logged(a) == [b"sub1"]


async def test_it_is_told_who_is_taken_for_dead(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "broker.registry.brokers")
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            await opened(c)
        await pass_away(a, b)
        await pass_away(a, b)
    assert caplog.messages == [
        "broker c.0 is taken for dead: silent for 8 s",
        "1 session of brokers that are dead: taken up",
    ]


async def test_what_a_broker_leaves_that_stops_is_taken_up_at_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    log = MemoryLog()
    async with two_brokers(AT_ONCE, log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            for name in ("x", "y"):
                await opened(c, name, will=will_of(name))
            await both_settled(a, b, c)
            await store_of(c).leave()
            with pytest.raises(StoreFenced):
                await store_of(c).append([message("too late")])
        for world in (a, b):
            await look(world)
        await both_settled(a, b)
        assert sorted(logged(a)) == sorted(logged(b)) == [b"x", b"y"]
        assert "taken for dead" not in caplog.text


async def test_a_log_that_is_not_trimmed_is_told_once_and_looked_at_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    silent = StoreUnavailable("no answer")
    answers = iter([silent, silent, None, silent])
    looked: list[float] = []
    async with two_brokers() as (a, _):

        async def trim_log() -> None:
            looked.append(a.clock.monotonic())
            if error := next(answers):
                raise error

        monkeypatch.setattr(store_of(a), "trim_log", trim_log)
        assert a.brokers is not None
        trimming = asyncio.create_task(a.brokers.trim_forever())
        await a.settled()
        began = a.clock.monotonic()
        for _ in range(4):
            a.clock.advance(TRIM_INTERVAL_S)
            await a.settled()
        trimming.cancel()
        await asyncio.wait([trimming])
    assert looked == [began + n * TRIM_INTERVAL_S for n in (1, 2, 3, 4)]
    assert caplog.messages.count("the shared log was not trimmed: no answer") == 2
