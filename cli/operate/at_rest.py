"""At rest: runs what an operator does to a log that no broker has, and tells what was refused."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import TypeVar

from broker.errors import CommandInvalid, CommandRefused, NotFound, PeerError, QuotaExceeded
from cli.terminal.failure import CommandFailed, Exit

T = TypeVar("T")


def ran(do: Callable[[], Awaitable[T]]) -> T:
    """What it returns. The broker's own lines are not shown: the command says what was done. Raises
    CommandFailed for what is refused."""

    async def run() -> T:
        return await do()

    logger = logging.getLogger("broker")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        return asyncio.run(run())
    except NotFound as error:
        raise CommandFailed(error.reason, error.remedy, Exit.NOTHING_THERE) from error
    except CommandRefused as error:
        code = Exit.USAGE if isinstance(error, CommandInvalid) else Exit.FAILED
        raise CommandFailed(error.reason, error.remedy, code) from error
    except PeerError as error:
        code = Exit.FAILED if isinstance(error, QuotaExceeded) else Exit.USAGE
        raise CommandFailed(error.reason, code=code) from error
    finally:
        logger.setLevel(level)
