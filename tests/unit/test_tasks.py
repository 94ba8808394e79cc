"""Nobody has to wait for a task to hear of its end."""

from __future__ import annotations

import asyncio

from broker import tasks


async def test_what_ended_a_task_is_told() -> None:
    errors: list[Exception] = []
    mistake = ValueError("a mistake")

    async def work() -> None:
        raise mistake

    tasks.start(work(), errors.append)
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert errors == [mistake]


async def test_nothing_is_told_of_one_that_is_done_or_cancelled() -> None:
    errors: list[Exception] = []
    tasks.start(asyncio.sleep(0, None), errors.append)
    waiting = tasks.start(asyncio.sleep(1000, None), errors.append)
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    await asyncio.sleep(0)
    assert errors == []
