from __future__ import annotations

import asyncio
import random

import pytest

from broker.store.shared.memory_log import MemoryLog, Trouble
from broker.store.shared.shared_log import Logged, Undecided
from tests.support.shared import troubles


async def followed(log: MemoryLog, start: int, last: int) -> list[Logged]:
    found: list[Logged] = []
    async for part in log.follow(start):
        found += part
        if found[-1].position >= last:
            return found
    return found


async def test_records_are_followed_in_their_order_from_anywhere() -> None:
    log = MemoryLog(turns=5, random_=random.Random(1))
    reading = asyncio.create_task(followed(log, 2, 100))
    assert [await log.append(b"%d" % n) for n in range(1, 101)] == [*range(1, 101)]
    assert await reading == [Logged(n, b"%d" % n) for n in range(2, 101)]
    assert (await log.open()).newest == 100


@pytest.mark.parametrize(
    ("trouble", "stored"),
    [
        (Trouble.CUT_OFF, [b"next"]),
        (Trouble.REPLY_LOST, [b"it", b"next"]),
        (Trouble.STORED_LATE, [b"next", b"it"]),
    ],
)
async def test_who_gets_no_answer_does_not_know(trouble: Trouble, stored: list[bytes]) -> None:
    log = MemoryLog()
    log.trouble = troubles(trouble)
    with pytest.raises(Undecided):
        await log.append(b"it")
    await log.append(b"next")
    assert log.records == stored


async def test_a_record_may_be_stored_twice() -> None:
    log = MemoryLog()
    log.trouble = troubles(Trouble.STORED_TWICE)
    await log.append(b"it")
    assert log.records == [b"it", b"it"]
