"""Tasks: the one way to start one, so that none ends unheard."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from functools import partial


def start(
    work: Coroutine[None, None, None], failed: Callable[[Exception], None]
) -> asyncio.Task[None]:
    """Run `work` in a task of its own, and call `failed` with the exception that ended it.

    Nobody hears of a task that was cancelled. The caller keeps the task: the loop does not.
    """
    task = asyncio.create_task(work)
    task.add_done_callback(partial(_ended, failed))
    return task


def _ended(failed: Callable[[Exception], None], task: asyncio.Task[None]) -> None:
    """An error that is no `Exception`, such as KeyboardInterrupt, has ended the loop already."""
    if not task.cancelled() and isinstance(error := task.exception(), Exception):
        failed(error)
