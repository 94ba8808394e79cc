"""Messages with deduplication keys at brokers on one log: several take the same key at the same
time, some die meanwhile; drawn from a seed.

In the window of a key one message with it is stored, and everybody who sent one hears its offset.
Some are delayed: one with each key is stored in the end.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from contextlib import AsyncExitStack
from itertools import count
from types import SimpleNamespace
from typing import Any

import pytest

from broker.clients.mixed import append_asked
from broker.config import Config
from broker.documents import Author, DedupDocument
from broker.errors import StoreError
from broker.message import Message
from broker.mqtt.properties import Property, property_section
from broker.settings.dedup import DedupRule
from broker.store.shared.keys import Keys
from broker.store.shared.memory_log import MemoryLog, Trouble
from broker.topics import DELAYED_PREFIX
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.shared import content, settled
from tests.support.trials import trials
from tests.support.two_brokers import both_settled, one_more, pass_away, store_of
from tests.support.world import World

BROKERS, KEYS, ROUNDS, AT_ONCE = 3, 4, 3, 14
WINDOW_S = 600
CONFIG = Config(dedup=(DedupRule(filter="#", window=f"{WINDOW_S}s"),))
SENDER: Any = SimpleNamespace(client_id="p")


class Sent:
    """One message with a key; whether its publisher heard that it is `stored`, and where."""

    def __init__(self, world: World, key: str, payload: str, *, later: bool) -> None:
        self.key, self.payload, self.stored, self.offset = key, payload.encode(), False, 0
        properties = property_section({Property.USER_PROPERTY: [("dedup-key", key)]}, b"")
        topic = f"{DELAYED_PREFIX}5/t" if later else "t"
        said = message(payload, topic, publisher="p", properties=properties[1:])
        self.asked = world.asking.accept(said, None, Author())
        self.world = world
        append_asked(
            world.log, self.asked, self.heard, self.failed, SENDER, qos=1, keep_if_full=True
        )

    def heard(self, error: StoreError | None) -> None:
        if self.world.asking.settle(self.asked, error):
            first: Message | None = next(iter(self.asked.messages), None)
            known = self.asked.known
            assert known is not None
            self.offset = known.offset if first is None else first.offset
            self.stored = True

    def failed(self, error: Exception) -> None:
        raise error


class Rounds:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = MemoryLog(turns=4, random_=self.random)
        self.clock = FakeClock()
        self.numbers = count(1)
        self.worlds: list[tuple[World, AsyncExitStack]] = []

    def trouble(self) -> Trouble:
        kinds = [kind for kind in Trouble if kind is not Trouble.FULL]
        return self.random.choices(kinds, [85, 4, 4, 4, 3])[0]

    @property
    def living(self) -> list[World]:
        return [world for world, _ in self.worlds]

    async def start(self) -> None:
        stack = AsyncExitStack()
        opening = one_more(self.log, f"b{next(self.numbers)}", self.clock, CONFIG)
        self.worlds.append((await stack.enter_async_context(opening), stack))

    async def crash(self) -> None:
        _, stack = self.worlds.pop(self.random.randrange(len(self.worlds)))
        await stack.aclose()

    async def run(self) -> None:
        for _ in range(BROKERS):
            await self.start()
        for number in range(ROUNDS):
            self.log.trouble = self.trouble
            sent: list[Sent] = []
            for _ in range(AT_ONCE):
                key = self.random.randrange(KEYS)
                world, payload = self.random.choice(self.living), f"{key} in {number}"
                sent.append(Sent(world, f"k{key}", payload, later=not key))
                for _ in range(self.random.choice([0, 0, 0, 3, 20])):
                    await asyncio.sleep(0)
                if self.random.random() < 0.05:
                    await self.crash()
                    await self.start()
            self.log.trouble = lambda: Trouble.NONE
            await both_settled(*self.living)
            await self.judge(sent, later=False)
            await self.windows_end()
            await self.judge(sent, later=True)
        await settled(self.log, [store_of(world) for world in self.living])
        contents = [content(world.disk) for world in self.living]
        for _ in range(BROKERS):
            await self.crash()
        assert contents[1:] == contents[:-1]

    async def judge(self, sent: list[Sent], *, later: bool) -> None:
        offsets = defaultdict(set)
        for each in self.living[0].disk.content.log:
            offsets[each.payload].add(each.offset)
        assert all(len(found) == 1 for found in offsets.values()), "stored once"
        for one in sent:
            if not one.stored:
                assert one.world not in self.living, "its broker has died"
            elif one.offset:
                assert offsets[one.payload] == {one.offset}
            elif later:
                assert len(offsets[one.payload]) == 1
            else:
                assert one.key == "k0", "it is delayed"

    async def windows_end(self) -> None:
        for _ in range(2):
            await pass_away(*self.living)
        self.clock.advance(WINDOW_S + 1)
        for _ in range(2):
            await both_settled(*self.living)
        for world in self.living:
            assert await world.disk.scan(DedupDocument) == []
            assert len(world.asking.dedup) == 0


async def test_of_the_messages_with_a_key_one_is_stored() -> None:
    for seed in range(trials(40)):
        try:
            await Rounds(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


async def test_it_sees_that_the_order_of_the_log_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Keys, "repeated", lambda self, operations: set())
    failed = 0
    for seed in range(10):
        try:
            await Rounds(seed).run()
        except AssertionError:
            failed += 1
    assert failed > 3
