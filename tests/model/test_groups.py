"""A group delivers everything in the end, whatever its members and the broker go through.

Members come, some with small windows, some for small packets; they acknowledge or refuse a part of
what they have, do not read, hang, unsubscribe, leave and die. The disk takes what it is given
sooner or later, and the broker stops or crashes, and starts again. At last some members acknowledge
all that comes: then each message was acknowledged or is a dead letter, and nothing waits (P3).

On the way nobody is sent what another has and was not taken from it, nor what was acknowledged, but
after a crash (P4). In some runs an operator lets the group go on elsewhere in the log, and gives
back dead letters; then these may come again. Each seed is one run; it draws what happens when.
"""

from __future__ import annotations

import asyncio
import random

import pytest

from broker.config import Config
from broker.documents import Delete, SubscriptionDocument
from broker.documents.queues import DeadLetterDocument, GroupDocument, RetryDocument
from broker.errors import NotFound
from broker.registry.administration import Administration
from broker.registry.groups.queues import Queues
from tests.support.groups import GROUP, member
from tests.support.messages import message
from tests.support.trials import seeds
from tests.support.world import Disk, Subscriber, World, placed, running

STEPS = 30
ROUNDS_MAX = 40
"""Of 2 seconds: longer than anything is held, or waits to be tried again."""
SMALL = 10
"""Payload bytes."""


class Queue:
    """All messages, by their numbers, and who is there."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.made = rng.random() < 0.5
        """By a command: refusals are failed attempts."""
        self.published = 0
        self.acknowledged: set[int] = set()
        self.crashed_with: set[int] = set()
        """Acknowledged before a crash."""
        self.has_operator = rng.random() < 0.3
        self.again: set[int] = set()
        """An operator let the group go over these again, or over them."""
        self.skipped: set[int] = set()
        self.workers: dict[str, Worker] = {}

    def sent(self, number: int) -> None:
        if number in self.again:
            return
        assert number not in self.acknowledged - self.crashed_with, f"{number} was acknowledged"
        for name, worker in self.workers.items():
            assert number not in worker.leased(), f"{number} is {name}'s"

    async def publish(self, world: World, count: int) -> None:
        first, self.published = self.published + 1, self.published + count
        width = self.rng.choice((1, 1, SMALL + 1))
        numbers = range(first, self.published + 1)
        await world.publish(*[message(str(n).zfill(width), "jobs/a") for n in numbers])

    async def seek(self, world: World) -> None:
        to = self.rng.choice(("earliest", "-5", "latest"))
        operator = Administration(
            *(world.log, world.delivery, world.sessions, world.groups),
            *(world.counters, world.clock),
        )
        published = {*range(1, self.published + 1)}
        self.again |= published
        if to != "earliest":
            self.skipped |= published
        await world.passing_time(operator.seek(GROUP, to))

    async def redrive(self, world: World) -> None:
        try:
            await world.passing_time(
                Queues(world.log, world.groups, world.clock).redrive(GROUP, None)
            )
        except NotFound:
            return
        self.again |= {*range(1, self.published + 1)}

    async def join(self, world: World, name: str) -> None:
        """If it is not there."""
        if name not in self.workers:
            world.disk.may_commit.set()  # Or it waits for that.
            window, expiry_s = self.rng.choice((2, 5, 100)), self.rng.choice((0, 100))
            self.workers[name] = worker = Worker(world, self)
            if self.rng.random() < 0.2:
                worker.payload_bytes_max = SMALL
            await member(world, name, window=window, expiry_s=expiry_s, kind=lambda _: worker)


class Worker(Subscriber):
    def __init__(self, world: World, queue: Queue) -> None:
        super().__init__(world)
        self.queue = queue
        self.has: dict[int, int] = {}
        """The numbers of messages, by Packet Identifier."""

    def leased(self) -> set[int]:
        """What it has, but for what lasted too long."""
        if self.session is None:
            return set()
        leases = self.session.in_flight.leases.current()
        return {self.has[packet_id] for packet_id, _ in leases if packet_id in self.has}

    @property
    def is_member(self) -> bool:
        return self.session is not None and GROUP in self.session.subscriptions

    def wake(self) -> None:
        while self.takes_more and (taken := placed(self).supply.take(0, 1 << 20)).outgoing:
            for (sent, _), packet_id in zip(taken.outgoing, taken.packet_ids, strict=True):
                self.queue.sent(int(sent.payload))
                self.has[packet_id] = int(sent.payload)
        super().wake()

    def read(self, *, yes: bool) -> None:
        self.takes_more, self.limit = yes, yes << 20
        if yes:
            self.wake()
        else:
            self.world.groups.stalled(placed(self))

    def acknowledge_first(self, count: int) -> None:
        packet_ids = [*self.has][:count]
        self.queue.acknowledged |= {self.has.pop(packet_id) for packet_id in packet_ids}
        placed(self).in_flight.puback(packet_ids)
        self._told()

    def refuse_last(self, count: int) -> None:
        session, packet_ids = placed(self), [*self.has][-count:]
        for packet_id in packet_ids:
            del self.has[packet_id]
        leases = session.in_flight.leases.refuse(packet_ids)
        session.in_flight.puback(packet_ids)
        self.world.groups.refusals.add(session, leases, "no")
        self._told()

    def _told(self) -> None:
        session = placed(self)
        if session.durable:
            self.world.log.changed(session)
        self.world.groups.settle(session)
        self.wake()

    def unsubscribe(self) -> None:
        """And finish what it has, later."""
        session = placed(self)
        self.world.delivery.unsubscribe(session, GROUP)
        if session.durable:
            key = (session.client_id, GROUP)
            self.world.log.append([], operations=[Delete(SubscriptionDocument, key)])
        self.world.groups.leave(session, GROUP)

    def leave(self, *, lost: bool) -> None:
        session, self.session = placed(self), None
        del self.queue.workers[session.client_id]
        self.world.groups.detach(session, lost=lost)
        self.world.sessions.close(session, self, self.world.clock.now())


async def one_step(world: World, queue: Queue) -> None:
    rng = queue.rng
    worker = rng.choice([*queue.workers.values()]) if queue.workers else None
    match rng.randrange(14):
        case 0 | 1 | 2:
            await queue.join(world, rng.choice("abcd"))
        case 3 | 4 if world.disk.may_commit.is_set():
            await queue.publish(world, rng.randrange(1, 16))
        case 5 | 6 | 7 if worker is not None:
            if queue.made and rng.random() < 0.3:
                worker.refuse_last(rng.randrange(1, 4))
            else:
                worker.acknowledge_first(rng.randrange(1, 12))
        case 8 | 9 if worker is not None:
            worker.leave(lost=rng.random() < 0.5)
        case 10 if worker is not None:
            worker.read(yes=not worker.takes_more)
        case 11 if worker is not None and worker.is_member:
            if sum(other.is_member for other in queue.workers.values()) > 1:
                worker.unsubscribe()
        case 12 if queue.has_operator and world.disk.may_commit.is_set():
            await (queue.seek(world) if rng.random() < 0.5 else queue.redrive(world))
        case _:
            world.clock.advance(rng.choice((0.1, 0.1, 2, 12)))
    if rng.random() < 0.1:
        world.disk.may_commit.clear()
    elif rng.random() < 0.5:
        world.disk.may_commit.set()
        await world.settled()
    for _ in range(rng.choice((0, 1, 5, 20))):
        await asyncio.sleep(0)


async def one_run(seed: int) -> None:
    rng = random.Random(seed)
    disk, queue = Disk(), Queue(rng)
    config = Config(inflight_max=rng.choice((3, 5, 10)), outbox_messages_max=rng.choice((5, 20)))
    lease_ms = rng.choice((10_000, 300_000))
    for runs_to_come in reversed(range(rng.randrange(2, 5))):
        async with running(disk, config) as world:
            if queue.made:
                world.groups.created[GROUP] = GroupDocument(GROUP, 4, 1000, 4000, lease_ms, 1)
            if runs_to_come:
                await queue.join(world, "a")
                for _ in range(STEPS):
                    await one_step(world, queue)
                disk.may_commit.set()
                if rng.random() < 0.7:
                    await stop(world, queue)
                else:
                    queue.crashed_with |= queue.acknowledged
                queue.workers.clear()
            else:
                await finish(world, queue)


async def stop(world: World, queue: Queue) -> None:
    world.sessions.absent_groups.stopping = True
    for worker in [*queue.workers.values()]:
        worker.leave(lost=False)
    await world.settled()


async def finish(world: World, queue: Queue) -> None:
    """Some of the members are there, and acknowledge what comes."""
    for name in queue.rng.sample("abcd", queue.rng.randrange(1, 5)):
        await queue.join(world, name)
    for _ in range(ROUNDS_MAX):
        for _ in range(4):
            await world.settled()
            for worker in queue.workers.values():
                worker.acknowledge_first(100)
        world.clock.advance(2)
        await world.settled()
        waiting, missing = await world.disk.scan(RetryDocument), await nobody_ended(world, queue)
        if not waiting and not missing:
            break
    assert not missing, f"nobody got {sorted(missing)}"
    assert not waiting
    assert not any(world.counters.dropped.values()), world.counters.dropped


async def nobody_ended(world: World, queue: Queue) -> set[int]:
    """What was neither acknowledged nor is a dead letter."""
    dead = [letter.offset for letter in await world.disk.scan(DeadLetterDocument)]
    read = await world.disk.fetch(sorted(dead))
    buried = {int(each.payload) for each in read.messages}
    return {*range(1, queue.published + 1)} - queue.acknowledged - buried - queue.skipped


@pytest.mark.parametrize("block", range(4))
async def test_a_group_delivers_everything_in_the_end(block: int) -> None:
    for seed in seeds(block, usual=100):
        try:
            await one_run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}") from error
