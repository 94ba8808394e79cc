"""What is retained, for new subscriptions: the order with live messages, and how soon these go."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from broker.config import Config
from broker.delivery import retained
from broker.message import Offset
from broker.session import owed
from broker.store import Read
from tests.support.messages import message
from tests.support.patience import PATIENCE_S
from tests.support.world import Disk, Subscriber, World, payloads, placed, running, subscription


class Gate:
    """`fetch` of a disk, so many times at once as it is opened for."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self._world = world
        self._passes = asyncio.Semaphore(0)
        self._fetch = world.disk.fetch
        monkeypatch.setattr(world.disk, "fetch", self._wait)

    async def _wait(self, *args: Any, **kwargs: Any) -> Read:
        await self._passes.acquire()
        return await self._fetch(*args, **kwargs)

    async def let_pass(self, times: int = 1) -> None:
        for _ in range(times):
            self._passes.release()
            await self._world.settled()


async def owed_many(world: World, sub: Subscriber, *, qos: int = 1) -> None:
    """A live subscriber that subscribes to 100 retained messages."""
    kept = [replace(message(f"old{n}", f"t/{n}"), retain=True) for n in range(100)]
    await world.publish(*kept)
    await sub.open()
    sub.subscribe(subscription("u"))
    await world.settled()
    sub.subscribe(subscription("t/#", qos, start=100, retained_through=100))
    world.delivery.send_retained(placed(sub))
    await world.settled()


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_live_messages_go_between_many_retained_ones(
    world: World, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    """But on each topic after what is retained there, which comes once. [MQTT-4.6.0-6]"""
    monkeypatch.setattr(retained, "MANY_RETAINED", 10)
    sub, gate = Subscriber(world), Gate(world, monkeypatch)
    await owed_many(world, sub, qos=qos)
    placed(sub).in_flight.open(65_535)
    await gate.let_pass()
    assert len(sub.got) == 10
    live = [
        message("new99", "t/99"),
        replace(message("new98", "t/98"), retain=True),  # What was retained there is no more.
        message("new0", "t/0"),
        message("other", "t/x"),
        message("u", "u"),
    ]
    await world.publish(*live)
    await gate.let_pass(2)
    got = payloads(sub.got)
    assert got[-5:] == [b"new99", b"new98", b"new0", b"other", b"u"]
    assert len(got) <= 40
    await gate.let_pass(20)
    await world.publish(message("later", "t/50"))
    got = payloads(sub.got)
    old = [b"old%d" % n for n in range(100) if n != 98]
    new = [b"new99", b"new98", b"new0", b"other", b"u", b"later"]
    assert sorted(got) == sorted(old + new)
    assert got.index(b"old99") < got.index(b"new99")
    assert got[-1] == b"later"
    assert [g.retained for m, g in sub.got if m.payload == b"old99"] == [True]
    assert placed(sub).owed.subscriptions() == []


async def test_who_leaves_between_many_retained_ones_gets_the_rest_when_it_is_back(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained, "MANY_RETAINED", 10)
    sub, gate = Subscriber(world), Gate(world, monkeypatch)
    await owed_many(world, sub, qos=0)
    await gate.let_pass()
    await world.publish(message("new99", "t/99"))
    await gate.let_pass(3)
    got = payloads(sub.got)
    assert b"new99" in got
    sub.close()
    await world.settled()
    sub.got.clear()
    await sub.open()
    await gate.let_pass(20)
    assert {*got, *payloads(sub.got)} == {*(b"old%d" % n for n in range(100)), b"new99"}


async def test_what_is_published_to_many_topics_waits_for_what_is_retained_on_each(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retained, "MANY_RETAINED", 10)
    monkeypatch.setattr(owed, "BLOCKING_MAX", 7)
    sub, gate = Subscriber(world), Gate(world, monkeypatch)
    await owed_many(world, sub, qos=0)
    await gate.let_pass()
    for n in range(99, 0, -3):
        await world.publish(message(f"new{n}", f"t/{n}", qos=0))
        await gate.let_pass()
    await gate.let_pass(60)
    got = payloads(sub.got)
    assert len(got) == 100 + 33
    for n in range(99, 0, -3):
        assert got.index(b"old%d" % n) < got.index(b"new%d" % n)


# A long search


class LongSearch:
    """`retained` of a disk: with wildcards it takes until `over` is set."""

    def __init__(self, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
        self.over = asyncio.Event()
        self._search = world.disk.retained
        monkeypatch.setattr(world.disk, "retained", self._wait)
        monkeypatch.setattr(retained, "LONG_SEARCH_S", 0.001)
        monkeypatch.setattr(retained, "LOOK_AT_LIVE_S", 0.001)

    async def _wait(self, filters: list[str]) -> list[Offset]:
        if "t/#" in filters:
            await self.over.wait()
        return await self._search(filters)


async def got(sub: Subscriber, payload: bytes) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while payload not in payloads(sub.got):  # noqa: ASYNC110  It has no event.
            await asyncio.sleep(0.001)


@pytest.mark.parametrize("qos", [0, 1, 2])
async def test_live_messages_do_not_wait_for_a_long_search(
    world: World, monkeypatch: pytest.MonkeyPatch, qos: int
) -> None:
    """But for what is retained on their topic. [MQTT-4.6.0-6]"""
    search, sub = LongSearch(world, monkeypatch), Subscriber(world)
    await owed_many(world, sub, qos=qos)
    placed(sub).in_flight.open(65_535)
    await world.publish(message("new5", "t/5"), message("other", "u"), message("newest", "t/5"))
    await got(sub, b"newest")
    assert payloads(sub.got) == [b"old5", b"new5", b"other", b"newest"]
    assert sub.got[0][1].retained
    search.over.set()
    await got(sub, b"old99")
    await world.settled()
    assert sorted(payloads(sub.got)[4:]) == sorted(b"old%d" % n for n in range(100) if n != 5)
    assert placed(sub).owed.subscriptions() == []


async def subscribe_again(world: World, sub: Subscriber, through: int) -> None:
    """At once after a message on a topic that it is subscribed to, which waits."""
    sub.subscribe(subscription("t/#", start=through, retained_through=through))
    world.delivery.send_retained(placed(sub))
    await asyncio.sleep(0.01)


async def live_with(world: World, *kept: str) -> Subscriber:
    """A live subscriber who has no room for what comes, with this retained on t/1."""
    await world.publish(*[replace(message(name, "t/1"), retain=True) for name in kept])
    sub = Subscriber(world, limit=0)
    await sub.open()
    sub.subscribe(subscription("t/1", start=len(kept)))
    await world.settled()
    return sub


async def test_what_waited_before_the_subscribe_goes_first_if_nothing_older_is_retained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, sub = LongSearch(world, monkeypatch), await live_with(world)
    await world.publish(replace(message("last", "t/1"), retain=True))
    await subscribe_again(world, sub, 1)
    sub.limit = 1 << 20
    sub.wake()
    await got(sub, b"last")
    assert [grant.retained for _, grant in sub.got] == [False]
    search.over.set()
    await world.settled()
    assert [(m.payload, g.retained) for m, g in sub.got] == [(b"last", False), (b"last", True)]


async def test_what_waited_before_the_subscribe_waits_for_what_is_older_and_retained(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or the value that is seen last would be an older one."""
    search, sub = LongSearch(world, monkeypatch), await live_with(world, "kept")
    await world.publish(message("last", "t/1"))
    await subscribe_again(world, sub, 2)
    sub.limit = 1 << 20
    sub.wake()
    await asyncio.sleep(0.01)
    assert sub.got == []
    search.over.set()
    await got(sub, b"last")
    assert [(m.payload, g.retained) for m, g in sub.got] == [(b"kept", True), (b"last", False)]


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("outbox_max", [5, 10_000])
async def test_whatever_the_search_takes_no_value_is_followed_by_an_older_one(
    monkeypatch: pytest.MonkeyPatch, seed: int, outbox_max: int
) -> None:
    """[MQTT-4.6.0-6] A subscriber of all that is live subscribes again, to what is retained on
    more and more topics, and reads now and then."""
    async with running(Disk(), Config(outbox_messages_max=outbox_max)) as world:
        choose = random.Random(seed)
        monkeypatch.setattr(retained, "LONG_SEARCH_S", 0.0)
        monkeypatch.setattr(retained, "LOOK_AT_LIVE_S", 0.0)
        monkeypatch.setattr(retained, "MANY_RETAINED", choose.choice([3, 500]))
        search, fetch = world.disk.retained, world.disk.fetch

        async def slow_search(filters: Sequence[str]) -> list[Offset]:
            for _ in range(choose.choice([0, 5, 200])):
                await asyncio.sleep(0)
            return await search(filters)

        async def slow_fetch(*args: Any, **kwargs: Any) -> Read:
            for _ in range(choose.choice([0, 0, 20])):
                await asyncio.sleep(0)
            return await fetch(*args, **kwargs)

        monkeypatch.setattr(world.disk, "retained", slow_search)
        monkeypatch.setattr(world.disk, "fetch", slow_fetch)
        sub, sent = Subscriber(world), 0
        await sub.open(receive_maximum=65_535)
        sub.subscribe(subscription("t/#"))
        await world.settled()
        for _ in range(40):
            some = []
            for _ in range(choose.choice([1, 1, 5])):
                sent += 1
                topic = f"t/{choose.randrange(8)}"
                some.append(message(str(sent), topic, retain=True))
            sub.limit = choose.choice([0, 1 << 20, 1 << 20])
            world.log.append(some)
            if choose.random() < 0.5:
                await world.settled()
            if choose.random() < 0.3 and not world.log.congested:
                await world.settled()
                through = world.disk.high_watermark
                sub.subscribe(subscription("t/#", start=0, retained_through=through))
                world.delivery.send_retained(placed(sub))
            for _ in range(choose.choice([0, 3, 50])):
                await asyncio.sleep(0)
            sub.wake()
        sub.limit = 1 << 20
        for _ in range(20):
            await world.settled()
            sub.wake()
        seen: dict[str, int] = {}
        live: list[int] = []
        for got_message, grant in sub.got:
            number = int(got_message.payload)
            assert number >= seen.get(got_message.topic, 0), (seed, got_message.topic, number)
            seen[got_message.topic] = number
            if not grant.retained:
                live.append(number)
        assert sorted(live) == [*range(1, sent + 1)]
        assert placed(sub).owed.subscriptions() == []
