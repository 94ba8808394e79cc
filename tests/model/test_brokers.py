"""Clients with wills go between brokers on one log that die and start anew, drawn from a seed.

Each connection that came about and did not say goodbye leaves its will, once; whoever said goodbye
leaves none. A durable subscriber gets every message that was acknowledged; all copies are equal.
The log is trimmed meanwhile.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from contextlib import AsyncExitStack
from itertools import count

import pytest

from broker.config import Config
from broker.documents import WillDocument
from broker.errors import StoreError
from broker.store.shared.memory_log import MemoryLog, Trouble
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.shared import content, settled
from tests.support.trials import seeds
from tests.support.two_brokers import both_settled, one_more, pass_away, store_of
from tests.support.world import Subscriber, World, payloads, subscription

BROKERS = 3
CLIENTS = ("x", "y", "s")
KEEP_BYTES = 2000
"""So little of the log that brokers start from a backup of another."""
STEPS = 60
AT_ONCE = Config(will_restart_grace_s=0)


class Traveller(Subscriber):
    """As a client's that leaves without a word: by itself, or as it is taken over."""

    def __init__(self, world: World, client_id: str, will: bytes) -> None:
        super().__init__(world)
        self.client_id = client_id
        self.will = will

    def close(self) -> None:
        if self.session is not None:
            expiry_s, now = self.session.session_expiry_s, self.world.clock.now()
            self.world.wills.client_lost(self.client_id, session_expiry_s=expiry_s, now=now)
            super().close()

    def say_goodbye(self) -> None:
        self.world.wills.withdrawn(self.client_id)
        super().close()


class Moves:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = MemoryLog(turns=4, random_=self.random)
        self.log.trouble = self.trouble
        self.clock = FakeClock()
        self.numbers = count(1)
        self.worlds: dict[int, tuple[World, AsyncExitStack]] = {}
        self.connections: list[Traveller] = []
        self.left: list[bytes] = []
        """Wills of those that came about; ..."""
        self.unknown: set[bytes] = set()
        """... of those of which that is not known, or whether they said goodbye."""
        self.got: set[bytes] = set()
        self.owed: list[bytes] = []
        self.subscribed = False

    def trouble(self) -> Trouble:
        kinds = [kind for kind in Trouble if kind is not Trouble.FULL]
        return self.random.choices(kinds, [90, 2, 3, 3, 2])[0]

    @property
    def living(self) -> list[World]:
        return [world for world, _ in self.worlds.values()]

    async def start(self, place: int) -> None:
        stack = AsyncExitStack()
        name = f"b{next(self.numbers)}"
        trimmed = self.log.oldest > 1
        backup = self.random.choice(self.living).disk.backup() if trimmed else None
        opening = one_more(
            *(self.log, name, self.clock, AT_ONCE), backup=backup, keep_bytes=KEEP_BYTES
        )
        world = await stack.enter_async_context(opening)
        self.worlds[place] = world, stack

    async def crash(self, place: int) -> None:
        world, stack = self.worlds.pop(place)
        for connection in self.connections:
            if connection.world is world:
                self.keep(connection)
                connection.session = None
        self.connections = [each for each in self.connections if each.session is not None]
        await stack.aclose()

    def keep(self, connection: Traveller) -> None:
        if connection.client_id == "s":
            self.got.update(payloads(connection.got))

    async def connect(self) -> None:
        world, client_id = self.random.choice(self.living), self.random.choice(CLIENTS)
        will = b"will %d" % next(self.numbers)
        document = WillDocument(client_id, "will", will, 1, False, b"", None, 0)
        connection = Traveller(world, client_id, will)
        expiry_s = 100_000 if client_id == "s" else self.random.choice([0, 100_000])
        for before in self.connections:
            self.keep(before)
        try:
            await world.passing_time(connection.open(client_id, expiry_s=expiry_s, will=document))
        except StoreError:
            return
        self.left.append(will)
        self.connections.append(connection)
        if client_id == "s" and not self.subscribed and connection.session is not None:
            connection.subscribe(subscription(client_id="s"))
            await world.flushed()
            self.subscribed = connection.session is not None

    async def publish(self) -> None:
        payload = b"message %d" % next(self.numbers)
        world = self.random.choice(self.living)
        try:
            await world.passing_time(world.log.commit_now([], [message(payload.decode())]))
        except StoreError:
            return
        if self.subscribed:
            self.owed.append(payload)

    async def leave(self) -> None:
        if self.connections:
            connection = self.random.choice(self.connections)
            self.keep(connection)
            if connection.session is not None and self.random.random() < 0.3:
                self.left.remove(connection.will)
                self.unknown.add(connection.will)
                connection.say_goodbye()
            else:
                connection.close()
            self.connections.remove(connection)

    async def step(self) -> None:
        kinds = [self.connect, self.publish, self.leave, self.die, self.look]
        await self.random.choices(kinds, [8, 6, 3, 1, 3])[0]()
        for _ in range(self.random.randrange(30)):
            await asyncio.sleep(0)

    async def die(self) -> None:
        place = self.random.randrange(BROKERS)
        await self.crash(place)
        await self.start(place)

    async def look(self) -> None:
        self.clock.advance(2)
        for world in self.living:
            assert world.brokers is not None
            await world.passing_time(world.brokers.look())
            await world.passing_time(store_of(world).trim_log())

    async def run(self) -> None:
        for place in range(BROKERS):
            await self.start(place)
        for _ in range(STEPS):
            await self.step()
        self.log.trouble = lambda: Trouble.NONE
        for connection in self.connections:
            self.keep(connection)
            connection.close()
        await both_settled(*self.living)
        for _ in range(2):
            await pass_away(*self.living)
        if self.subscribed:
            last = Traveller(self.living[0], "s", b"")
            await self.living[0].passing_time(last.open("s", expiry_s=100_000))
            await both_settled(*self.living)
            self.keep(last)
        await settled(self.log, [store_of(world) for world in self.living])
        contents = [content(world.disk) for world in self.living]
        for place in [*self.worlds]:
            await self.crash(place)
        assert contents[1:] == contents[:-1]
        stored = Counter(m.payload for m in contents[0][0] if m.topic == "will")
        assert {will: stored[will] for will in self.left} == dict.fromkeys(self.left, 1)
        assert all(stored[will] <= 1 for will in self.unknown)
        assert set(stored) <= {*self.left, *self.unknown}
        assert set(self.owed) <= self.got


@pytest.mark.parametrize("block", range(4))
async def test_each_will_goes_out_once_and_nothing_is_lost(block: int) -> None:
    for seed in seeds(block, usual=60):
        try:
            await Moves(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
