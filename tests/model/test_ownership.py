"""A client that sends QoS 2 moves among brokers on one log, at any moment and without a word.

Replies are lost, appends are stored late and twice, and living brokers are taken for dead. Each
message must be in the log once, in order, and so must those of another client that are in the same
appends; and all copies must be equal. Each run is drawn from a seed.

Without the rules that make it so, the same runs fail: then this test sees what it looks for.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress
from itertools import count

import pytest

from broker.documents import OwnerDocument, Put, ReceivedQos2Document, SessionDocument
from broker.errors import StoreConflict, StoreError
from broker.message import Message
from broker.store.memory import MemoryStore
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.entries import Part
from broker.store.shared.follower import Follower
from broker.store.shared.memory_log import MemoryLog, Trouble
from broker.store.shared.owners import Owners
from tests.support.messages import message
from tests.support.shared import a_moment, content, settled, take
from tests.support.trials import seeds

X = "x"
MESSAGES = 12
BROKERS = 3
STEPS_MAX = 3000


class Gone(Exception):
    """The connection is over."""


class Race:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.log = MemoryLog(turns=6, random_=self.random)
        self.log.trouble = self.trouble
        self.names = count(1)
        self.others = count(1)
        self.stores: list[ClusterStore] = []
        self.acknowledged: list[bytes] = []
        self.conflicts: set[str] = set()
        self.connections: dict[ClusterStore, Visit] = {}
        """The newest at each broker: that knows what is over there, and of the others nothing."""

    def trouble(self) -> Trouble:
        kinds = [kind for kind in Trouble if kind is not Trouble.FULL]
        return self.random.choices(kinds, [80, 5, 7, 5, 3])[0]

    async def a_while(self, turns: int) -> None:
        for _ in range(self.random.randrange(turns)):
            await asyncio.sleep(0)

    async def new_store(self) -> ClusterStore:
        store = ClusterStore(
            self.log, MemoryStore(), new_id=lambda: f"b{next(self.names)}", sleep=a_moment
        )
        await store.open()
        return store

    async def deaths_happen(self) -> None:
        while True:
            await self.a_while(300)
            one, other = self.random.sample(range(BROKERS), 2)
            if self.random.random() < 0.3:
                with suppress(StoreError):  # It may be dead itself.
                    await self.stores[one].declare_dead(self.stores[other].broker_id)
            for i, store in enumerate(self.stores):
                if store.failure is not None:
                    await store.close()
                    self.stores[i] = await self.new_store()

    def other(self) -> Message:
        return message(f"y{next(self.others)}", publisher="y")

    async def publish_other(self, store: ClusterStore, other: Message) -> None:
        try:
            await store.append([other])
            self.acknowledged.append(other.payload)
        except StoreError:
            pass  # Nobody was told that it is stored.

    async def others_publish(self, i: int) -> None:
        while True:
            await self.a_while(100)
            await self.publish_other(self.stores[i], self.other())

    async def connect(self) -> Visit:
        store = self.random.choice(self.stores)
        if store in self.connections:
            self.connections[store].alive = False
        while True:
            try:
                if await store.get(SessionDocument, (X,)) is None:
                    owner = OwnerDocument(X, store.broker_id, 1)
                    session = SessionDocument(X, 60, 1, None)
                    await store.transact([Put(session, 0), Put(owner, 0)])
                else:
                    await take(store, X)
                found = await store.get(ReceivedQos2Document, (X,))
                received = set() if found is None else {*found.packet_ids}
                connection = self.connections[store] = Visit(self, store, received)
                return connection
            except StoreConflict:
                await store.sync()


class Visit:
    def __init__(self, race: Race, store: ClusterStore, received: set[int]) -> None:
        self.race = race
        self.store = store
        self.received = received
        self.alive = True

    async def in_the_network(self) -> None:
        await self.race.a_while(30)
        if not self.alive:
            raise Gone

    def changes(self) -> list[Put]:
        return [Put(ReceivedQos2Document(X, bytes(sorted(self.received))))]

    async def publish(self, number: int) -> None:
        """Beside a message of another client, as in a group commit."""
        await self.in_the_network()
        if number in self.received:
            return
        self.received.add(number)
        sent, other = message(str(number), publisher=X, qos=2), self.race.other()
        try:
            await self.store.append([sent, other], self.changes())
            self.race.acknowledged.append(other.payload)
        except StoreConflict as error:
            self.race.conflicts |= error.of
            await self.race.publish_other(self.store, other)
            raise Gone from error
        except StoreError as error:
            raise Gone from error

    async def release(self, number: int) -> None:
        await self.in_the_network()
        self.received.discard(number)
        try:
            await self.store.append([], self.changes())
        except StoreError as error:
            raise Gone from error


def is_heard(task: asyncio.Task[None]) -> None:
    """Whoever gave up waiting for it does not want to know what became of it."""
    if not task.cancelled():
        task.exception()


async def drive(race: Race, left: set[asyncio.Task[None]]) -> None:
    """The client sends its messages, each of them until that is acknowledged."""
    connection: Visit | None = None
    number, released = 1, True
    for _ in range(STEPS_MAX):
        if number > MESSAGES:
            return
        try:
            if connection is None or race.random.random() < 0.25:
                connection = await race.connect()
            work = connection.publish(number) if released else connection.release(number)
            task = asyncio.create_task(work)
            task.add_done_callback(is_heard)
            left.add(task)
            if race.random.random() < 0.3:  # It gives up waiting, and the packet goes on.
                await race.a_while(25)
                if not task.done():
                    connection = None
                    continue
            await asyncio.shield(task)
        except (Gone, StoreError):
            connection = None
            continue
        if not released:
            number += 1
        released = not released
    raise AssertionError("it comes to no end")


async def one_run(seed: int) -> None:
    race = Race(seed)
    race.stores = [await race.new_store() for _ in range(BROKERS)]
    left: set[asyncio.Task[None]] = set()
    background = [
        asyncio.create_task(race.deaths_happen()),
        *[asyncio.create_task(race.others_publish(i)) for i in range(BROKERS)],
    ]
    try:
        await drive(race, left)
        for task in background:
            task.cancel()
        await asyncio.gather(*background, *left, return_exceptions=True)
        race.log.trouble = lambda: Trouble.NONE
        for _ in range(2):  # The first stores what was to be stored late.
            await asyncio.gather(*[s.sync() for s in race.stores], return_exceptions=True)
        await settled(race.log, race.stores)
        contents = [
            content(store.copy)
            for store in race.stores
            if store.failure is None and isinstance(store.copy, MemoryStore)
        ]
    finally:
        for task in (*background, *left):
            task.cancel()
        await asyncio.gather(*background, *left, return_exceptions=True)
        for store in race.stores:
            await store.close()
    stored = [m.payload for m in contents[0][0]]
    ours = [payload for payload in stored if not payload.startswith(b"y")]
    others = [payload for payload in stored if payload.startswith(b"y")]
    assert ours == [b"%d" % n for n in range(1, MESSAGES + 1)]
    assert race.conflicts <= {X}
    assert len(others) == len(set(others))
    assert set(race.acknowledged) <= set(others)
    for each in contents[1:]:
        assert each == contents[0]


@pytest.mark.parametrize("block", range(4))
async def test_every_message_is_in_the_log_once_and_in_order(block: int) -> None:
    for seed in seeds(block, usual=200):
        try:
            await one_run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error


async def fails(runs: int) -> bool:
    """Whether one of so many runs does."""
    for seed in range(runs):
        try:
            await one_run(seed)
        except AssertionError:
            return True
    return False


async def test_without_the_numbers_of_appends_it_would_not_be_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decide = Follower._decide

    async def forgets(self: Follower, entry: Part, position: int) -> None:
        if entry.broker in self.writers:
            self.writers[entry.broker].number = 0
        await decide(self, entry, position)

    monkeypatch.setattr(Follower, "_decide", forgets)
    assert await fails(20)


async def test_without_looking_whose_a_session_is_it_would_not_be_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def nobody(*_: object) -> set[str]:
        return set()

    monkeypatch.setattr(Owners, "strangers", nobody)
    assert await fails(20)
