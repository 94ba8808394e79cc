"""When the log commits: in the turn in which something came, or in its task."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from broker.log.waking import CURSOR_COMMIT_DELAY_S, Waking
from tests.support.clock import FakeClock


class TaskAndTurns:
    """A task, and what is done in turns."""

    def __init__(self, clock: FakeClock) -> None:
        self.done: list[str] = []
        self.quick = True
        self.works = asyncio.Event()
        self.works.set()
        self.waking = Waking(clock, self._in_turn)
        self.task = asyncio.create_task(self._forever())

    def _in_turn(self) -> bool:
        if self.quick:
            self.done.append("in turn")
        return self.quick

    async def _forever(self) -> None:
        while True:
            await self.waking.wait()
            await self.works.wait()
            self.done.append("task")


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def work(clock: FakeClock) -> AsyncIterator[TaskAndTurns]:
    work = TaskAndTurns(clock)
    await turns()
    yield work
    work.task.cancel()
    await asyncio.gather(work.task, return_exceptions=True)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_all_that_came_in_one_turn_is_done_at_its_end(work: TaskAndTurns) -> None:
    for _ in range(3):
        work.waking.now()
    assert work.done == []
    await asyncio.sleep(0)
    assert work.done == ["in turn"]
    await turns()
    assert work.done == ["in turn"]


async def test_the_task_does_what_cannot_be_done_in_the_turn(work: TaskAndTurns) -> None:
    work.quick = False
    work.waking.now()
    await turns()
    assert work.done == ["task"]


@pytest.mark.parametrize("after", [0, 1, 2, 3])
async def test_what_comes_once_the_task_was_woken_is_done_after_it(
    work: TaskAndTurns, after: int
) -> None:
    work.quick = False
    work.works.clear()
    work.waking.now()
    await turns(after)
    work.waking.now()
    await turns()
    work.quick = True
    work.works.set()
    await turns()
    assert work.done == (["task", "task"] if after else ["task"])


async def test_before_the_task_begins_and_once_it_has_ended_nothing_is_done_in_turn(
    clock: FakeClock,
) -> None:
    work = TaskAndTurns(clock)
    work.waking.now()
    await turns()
    assert work.done == ["task"], "which had not begun"
    work.task.cancel()
    await turns()
    work.waking.now()
    await turns()
    assert work.done == ["task"]


async def test_what_waits_for_company_is_done_in_a_moment_or_with_the_next(
    work: TaskAndTurns, clock: FakeClock
) -> None:
    for _ in range(2):
        work.waking.soon()
    await turns()
    assert work.done == []
    clock.advance(CURSOR_COMMIT_DELAY_S)
    await turns()
    assert work.done == ["in turn"]
    work.waking.cancel_timer()
    work.waking.soon()
    work.waking.cancel_timer()
    clock.advance(CURSOR_COMMIT_DELAY_S)
    await turns()
    assert work.done == ["in turn"]
    assert clock.timers == []
