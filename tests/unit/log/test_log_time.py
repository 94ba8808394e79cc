"""The log's own time, over jumps of the wall clock, suspension and restarts."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

import pytest

from broker.clock import NEVER, US
from broker.counters import Counters
from broker.documents import NEVER_US, Delete, SessionDocument, TimeDocument
from broker.log.log import Log
from broker.log.log_time import IDLE_NOTE_INTERVAL_S, NOTE_AHEAD_S, NOTE_INTERVAL_S
from broker.log.outage import FULL_RETRY_S
from broker.message import Monotonic
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.patience import PATIENCE_S
from tests.support.world import Disk

BORN_S = 1_700_000_000
YEAR_S = 365 * 86_400
JUMPS_S = [-40 * YEAR_S, -31 * 86_400, -3600, -1, 3600, YEAR_S]


@dataclass
class LogRun:
    """One run of a log, from `start` to a crash or a clean stop."""

    disk: Disk
    clock: FakeClock
    log: Log = field(init=False)
    task: asyncio.Task[None] = field(init=False)

    def __post_init__(self) -> None:
        self.log = Log(self.disk, Counters(), self.clock, append_bytes_max=1 << 20)

    async def begin(self) -> LogRun:
        await self.disk.open()
        await self.log.start()
        self.task = asyncio.create_task(self.log.commit_forever())
        return self

    async def commit(self) -> None:
        self.log.append([message()])
        await self.log.flushed()

    async def crash(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def stop(self) -> None:
        await self.log.end()
        await self.crash()

    @property
    def served_s(self) -> float:
        return self.log.time.served_at(self.clock.monotonic()) / US

    @property
    def aged_s(self) -> float:
        return self.log.time.aged_us() / US


async def begun(disk: Disk, *, wall_s: float = BORN_S, monotonic_s: float = 5) -> LogRun:
    return await LogRun(disk, FakeClock(wall_s=int(wall_s), monotonic_s=monotonic_s)).begin()


@pytest.fixture
def disk() -> Disk:
    return Disk()


async def test_a_new_log_begins_with_the_time_of_the_wall(disk: Disk) -> None:
    run = await begun(disk)
    assert (run.served_s, run.aged_s) == (BORN_S, BORN_S)


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_who_sets_the_wall_clock_does_not_move_it(disk: Disk, jump_s: int) -> None:
    run = await begun(disk)
    run.clock.advance(10)
    run.clock.set_wall(BORN_S + 10 + jump_s)
    run.clock.advance(10)
    assert (run.served_s, run.aged_s) == (BORN_S + 20, BORN_S + 20)


async def test_what_is_suspended_serves_nobody_and_yet_grows_older(disk: Disk) -> None:
    run = await begun(disk)
    run.clock.suspend(3600)
    assert (run.served_s, run.aged_s) == (BORN_S, BORN_S + 3600)


async def test_served_time_stands_still_while_no_broker_runs(disk: Disk) -> None:
    """And the new process counts its seconds from another zero."""
    run = await begun(disk)
    run.clock.advance(100)
    await run.commit()
    await run.crash()
    run = await begun(disk, wall_s=BORN_S + 5000, monotonic_s=777)
    assert run.served_s == BORN_S + 100
    assert run.aged_s == BORN_S + 5000


@pytest.mark.parametrize("jump_s", JUMPS_S)
async def test_a_restart_by_a_wrong_wall_clock_moves_it_only_forward(
    disk: Disk, jump_s: int
) -> None:
    run = await begun(disk)
    run.clock.advance(100)
    await run.stop()
    before = run.served_s, run.aged_s
    run = await begun(disk, wall_s=run.clock.wall_us() / US + jump_s)
    assert run.served_s == pytest.approx(before[0])
    assert run.aged_s == pytest.approx(before[1] + max(0, jump_s), abs=1)


async def test_it_goes_on_over_many_restarts_of_a_board_without_a_battery(disk: Disk) -> None:
    """Each begins in 1970, and gets the right time a minute later."""
    for n in range(5):
        run = await begun(disk, wall_s=0)
        run.clock.advance(60)
        run.clock.set_wall(BORN_S + n * 86_400)
        run.clock.advance(60)
        await run.stop()
    assert run.served_s == pytest.approx(5 * 120, abs=1)
    assert run.aged_s == pytest.approx(5 * 120, abs=1)


@pytest.mark.parametrize("after_s", [0, 0.4, NOTE_INTERVAL_S, 1.7, 30])
async def test_nothing_that_is_stored_is_younger_than_the_next_start(
    disk: Disk, after_s: float
) -> None:
    """[MQTT-3.3.2-6] Whatever the wall clock has then."""
    run = await begun(disk)
    await run.commit()
    run.clock.advance(after_s)
    await run.commit()
    stored_s = run.aged_s
    await run.crash()
    run = await begun(disk, wall_s=0)
    assert stored_s <= run.aged_s <= stored_s + NOTE_AHEAD_S


async def test_after_a_clean_stop_both_are_exact(disk: Disk) -> None:
    run = await begun(disk)
    await run.commit()
    run.clock.advance(0.25)
    await run.stop()
    before = run.served_s, run.aged_s
    run = await begun(disk, wall_s=0)
    assert (run.served_s, run.aged_s) == before


async def test_it_is_noted_once_a_second_and_in_commits_that_happen_anyway(disk: Disk) -> None:
    run = await begun(disk)
    for _ in range(40):
        await run.commit()
        run.clock.advance(0.1)
    notes = [[type(op.document) for op in ops] for _, ops, _ in disk.commits]  # type: ignore[union-attr]
    assert len(notes) == 40
    assert notes.count([TimeDocument]) == 4


async def test_it_is_noted_without_a_sync_while_nothing_is_committed(disk: Disk) -> None:
    run = await begun(disk)
    noting = asyncio.create_task(run.log.time.note_forever(run.log.append))
    for _ in range(3):
        for _ in range(5):
            await asyncio.sleep(0)
        run.clock.advance(IDLE_NOTE_INTERVAL_S)
        for _ in range(5):
            await asyncio.sleep(0)
        await run.log.flushed()
    noting.cancel()
    assert [durable for _, _, durable in disk.commits] == [False] * 3
    await run.crash()
    run = await begun(disk, wall_s=0)
    assert run.served_s == pytest.approx(BORN_S + 180, abs=1)


async def test_a_note_that_the_disk_did_not_take_is_made_again(disk: Disk) -> None:
    run = await begun(disk)
    disk.full = True
    run.log.append([message()])
    for _ in range(5):
        await asyncio.sleep(0)
    disk.full = False
    run.log.append([], operations=[Delete(SessionDocument, ("gone",))])
    run.clock.advance(FULL_RETRY_S)
    await run.log.flushed()
    noted = await disk.scan(TimeDocument)
    assert [note.served_us for note in noted] == [(BORN_S + FULL_RETRY_S) * US]


async def test_a_full_disk_does_not_hold_up_the_end(disk: Disk) -> None:
    run = await begun(disk)
    disk.full = True
    ending = asyncio.create_task(run.log.end())
    for _ in range(5):
        await asyncio.sleep(0)
    run.clock.advance(FULL_RETRY_S)
    async with asyncio.timeout(PATIENCE_S):
        await ending


async def test_never_is_never_on_both_clocks(disk: Disk) -> None:
    time = (await begun(disk)).log.time
    assert time.served_at(NEVER) == NEVER_US
    assert time.monotonic_at(NEVER_US) == NEVER
    assert time.monotonic_at(time.served_at(Monotonic(123.5))) == 123.5
