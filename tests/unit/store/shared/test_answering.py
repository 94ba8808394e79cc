"""What a copy answers is held to the contract in `tests/unit/store`; here: when it does."""

from __future__ import annotations

import asyncio

from broker.message import Offset
from broker.store.memory import MemoryStore
from broker.store.shared.answering import AnsweredByCopy
from tests.support.messages import numbered


class Behind(AnsweredByCopy):
    def __init__(self) -> None:
        super().__init__(MemoryStore())
        self.caught_up = asyncio.Event()

    async def current(self) -> None:
        await self.caught_up.wait()


async def test_a_read_waits_until_the_copy_has_what_was_appended() -> None:
    store = Behind()
    await store.copy.open()
    reading = asyncio.ensure_future(store.read(Offset(1), Offset(9)))
    await asyncio.sleep(0)
    await store.copy.append(numbered(2))
    assert not reading.done()
    store.caught_up.set()
    assert len((await reading).messages) == 2
    assert "shared log" in (await store.stats()).engine
