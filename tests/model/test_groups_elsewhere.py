"""Workers of one group go between brokers on one log that die and start anew, drawn from a seed.

Every job that was stored is done, or a dead letter. No two workers at living brokers have one at
once, unless one has had it for too long; and what was acknowledged in a commit that is stored does
not come again, whichever broker dies or is taken for dead. In the end all copies are equal, and
nothing is left of what went between the brokers.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from itertools import count

import pytest

from broker.config import Config
from broker.documents.queues import (
    DeadLetterDocument,
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
    RetryDocument,
)
from broker.errors import PubSubError, StoreError
from broker.registry.groups.queues import Queues
from broker.store.shared.memory_log import MemoryLog, Trouble
from tests.support.clock import FakeClock
from tests.support.groups import GROUP, member
from tests.support.messages import message
from tests.support.shared import content, settled
from tests.support.two_brokers import both_settled, id_of, one_more, pass_away, store_of
from tests.support.world import Subscriber, World

BROKERS = 3
WORKERS = ("v", "w", "x", "y", "z")
STEPS = 60
LEASE_S = 30.0
SEEDS = 60
CONFIG = Config(will_restart_grace_s=0)


class RovingWorker(Subscriber):
    """Does some of what it has, and does not read at times."""

    def __init__(self, world: World, jobs: Jobs) -> None:
        super().__init__(world)
        self.jobs = jobs
        self.has: dict[int, bytes] = {}
        """Jobs by Packet Identifier."""
        self.since: dict[bytes, float] = {}

    def wake(self) -> None:
        if not self.takes_more:
            return
        before = len(self.got)
        super().wake()
        new = self.got[before:]
        ids = self.packet_ids[len(self.packet_ids) - len(new) :]
        for (job, _), packet_id in zip(new, ids, strict=True):
            self.jobs.handed_out(job.payload, self)
            self.has[packet_id] = job.payload
            self.since[job.payload] = self.world.clock.monotonic()

    async def do(self, number: int) -> None:
        self.jobs.note_late()
        session, done = self.session, dict([*self.has.items()][:number])
        if session is None or not done:
            return
        session.in_flight.puback(done)
        for packet_id in done:
            del self.has[packet_id]
        self.world.log.changed(session)
        self.world.groups.settle(session)
        self.jobs.maybe_done.update(done.values())
        try:
            await self.world.flushed()
        except StoreError:
            return
        if self.session is session and not session.ended:
            self.jobs.done.update(done.values())
            self.wake()

    def refuse(self) -> None:
        if self.session is not None and self.has:
            packet_id = next(iter(self.has))
            del self.has[packet_id]
            leases = self.session.in_flight.leases.refuse([packet_id])
            self.world.groups.refusals.add(self.session, leases, "bad")
            self.session.in_flight.puback([packet_id])

    def stall(self) -> None:
        self.takes_more = not self.takes_more
        if self.session is None:
            return
        if self.takes_more:
            self.wake()
        else:
            self.world.groups.stalled(self.session)

    def close(self) -> None:
        self.has.clear()
        super().close()


class Jobs:
    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.made = seed % 2 == 0
        """Whether a command made the group: then refusals and long leases are tried again."""
        self.paused: int | None = None
        """A broker that does nothing."""
        self.late: set[bytes] = set()
        """Jobs that a worker has had for too long."""
        self.log = MemoryLog(turns=4, random_=self.random)
        self.log.trouble = self.trouble
        self.clock = FakeClock()
        self.numbers = count(1)
        self.worlds: dict[int, tuple[World, AsyncExitStack]] = {}
        self.workers: dict[str, RovingWorker] = {}
        self.stored: list[bytes] = []
        self.maybe_done: set[bytes] = set()
        self.done: set[bytes] = set()
        self.faults: list[str] = []

    def trouble(self) -> Trouble:
        kinds = [kind for kind in Trouble if kind is not Trouble.FULL]
        return self.random.choices(kinds, [90, 2, 3, 3, 2])[0]

    @property
    def living(self) -> list[World]:
        return [world for place, (world, _) in self.worlds.items() if place != self.paused]

    def handed_out(self, job: bytes, to: RovingWorker) -> None:
        self.note_late()
        if job in self.done and job not in self.late:
            self.faults.append(f"{job!r} comes again, and was done")
        dead = set[str]().union(*[store_of(world).dead for world in self.living])
        for worker in self.workers.values():
            if worker is to or worker.session is None or id_of(worker.world) in dead:
                continue
            if job in worker.has.values() and job not in self.late:
                self.faults.append(f"two have {job!r}")

    def note_late(self) -> None:
        now = self.clock.monotonic()
        for worker in self.workers.values() if self.made else ():
            had = [job for job in worker.has.values() if now - worker.since[job] >= LEASE_S - 3]
            self.late.update(had)

    async def start(self, place: int) -> None:
        stack = AsyncExitStack()
        opening = one_more(self.log, f"b{next(self.numbers)}", self.clock, CONFIG)
        self.worlds[place] = await stack.enter_async_context(opening), stack

    async def crash(self, place: int) -> None:
        world, stack = self.worlds.pop(place)
        for name, worker in [*self.workers.items()]:
            if worker.world is world:
                worker.session = None
                worker.has.clear()
                del self.workers[name]
        await stack.aclose()

    async def die(self) -> None:
        place = self.random.randrange(BROKERS)
        await self.crash(place)
        await self.start(place)

    async def come(self, name: str = "", world: World | None = None) -> None:
        name, world = name or self.random.choice(WORKERS), world or self.random.choice(self.living)
        window = self.random.choice([1, 3, 100])
        expiry_s = self.random.choice([0, 1000])
        coming: list[RovingWorker] = []

        def worker(world: World) -> RovingWorker:
            coming.append(RovingWorker(world, self))
            self.workers[f"{name}{next(self.numbers)}"] = coming[0]
            return coming[0]

        try:
            await world.passing_time(
                member(world, name, window=window, expiry_s=expiry_s, kind=worker)
            )
        except PubSubError:
            coming[0].close()

    async def leave(self) -> None:
        if self.at_work:
            leaves = self.random.choice(self.at_work)
            del self.workers[next(n for n, worker in self.workers.items() if worker is leaves)]
            leaves.close()

    @property
    def at_work(self) -> list[RovingWorker]:
        return [worker for worker in self.workers.values() if worker.world in self.living]

    async def refuse(self) -> None:
        if self.at_work:
            self.random.choice(self.at_work).refuse()

    async def pause(self) -> None:
        """It is taken for dead while it lives. What it does then does not count."""
        self.paused = self.random.randrange(BROKERS)
        for _ in range(6):
            await self.look()
        for _ in range(3):
            await self.random.choice([self.publish, self.come, self.work])()
        place, self.paused = self.paused, None
        await self.crash(place)
        await self.start(place)

    async def wait_long(self) -> None:
        for _ in range(int(LEASE_S // 2) + 2):
            await self.look()

    async def work(self) -> None:
        for worker in self.random.sample(self.at_work, min(2, len(self.at_work))):
            await worker.do(self.random.choice([1, 2, 100]))

    async def stall(self) -> None:
        if self.at_work:
            self.random.choice(self.at_work).stall()

    async def publish(self) -> None:
        jobs = [b"job %d" % next(self.numbers) for _ in range(self.random.choice([1, 1, 2, 7]))]
        world = self.random.choice(self.living)
        messages = [message(job.decode(), "jobs/a") for job in jobs]
        try:
            await world.passing_time(world.log.commit_now([], messages))
        except StoreError:
            return
        self.stored += jobs

    async def look(self) -> None:
        self.clock.advance(2)
        for world in self.living:
            assert world.brokers is not None
            await world.passing_time(world.brokers.look())

    async def step(self) -> None:
        kinds = [self.come, self.leave, self.work, self.publish, self.stall, self.die, self.look]
        more = [self.refuse, self.pause, self.wait_long]
        weights = [50, 20, 60, 60, 10, 10, 30, 10, 3, 3 if self.made else 0]
        await self.random.choices([*kinds, *more], weights)[0]()
        for _ in range(self.random.randrange(30)):
            await asyncio.sleep(0)

    async def run(self) -> None:
        for place in range(BROKERS):
            await self.start(place)
        # Whatever becomes of the workers, somebody is subscribed.
        (await member(self.living[0], "stays", expiry_s=100_000)).close()
        await both_settled(*self.living)
        if self.made:
            first = self.living[0]
            made = GroupDocument(GROUP, 3, 1000, 1000, round(LEASE_S * 1000), created_at_us=0)
            await first.passing_time(Queues(first.log, first.groups, first.clock).create(made, ""))
        for _ in range(STEPS):
            await self.step()
        self.log.trouble = lambda: Trouble.NONE
        await both_settled(*self.living)
        for _ in range(2):
            await pass_away(*self.living)
        for number, world in enumerate(self.living):
            await self.come(f"last{number}", world)
        for worker in self.workers.values():
            if not worker.takes_more:
                worker.stall()
        await self.work_all_off()
        for worker in self.workers.values():
            worker.close()
        await both_settled(*self.living)
        await settled(self.log, [store_of(world) for world in self.living])
        contents = [content(world.disk) for world in self.living]
        kinds = (MemberDocument, LoanDocument, ReportDocument, RetryDocument)
        left = [d for kind in kinds for d in await self.living[0].disk.scan(kind)]
        self.done |= await self.dead_letters()
        for place in [*self.worlds]:
            await self.crash(place)
        assert self.faults == []
        assert {*self.stored} <= self.done, "lost"
        assert left == []
        assert contents[1:] == contents[:-1]

    async def dead_letters(self) -> set[bytes]:
        disk = self.living[0].disk
        dead = {letter.offset for letter in await disk.scan(DeadLetterDocument)}
        return {job.payload for job in disk.content.log if job.offset in dead}

    async def work_all_off(self) -> None:
        for _ in range(200):
            await both_settled(*self.living)
            busy = [worker for worker in self.workers.values() if worker.has]
            for worker in busy:
                await worker.do(100)
            self.clock.advance(1)  # What a lost worker had is tried again.
            if not busy and {*self.stored} <= self.done | await self.dead_letters():
                return


@pytest.mark.parametrize("block", range(4))
async def test_each_job_is_done_and_no_two_workers_have_it(block: int) -> None:
    for seed in range(block * SEEDS // 4, (block + 1) * SEEDS // 4):
        try:
            await Jobs(seed).run()
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
