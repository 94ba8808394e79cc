from __future__ import annotations

import random

from broker.message import Offset
from broker.store.removing import Cut, Order
from broker.store.shared.memory_log import MemoryLog
from tests.support.messages import numbered
from tests.support.shared import brokers, opened
from tests.support.stores import read_all


async def test_a_broker_removes_from_its_own_copy_what_was_just_appended() -> None:
    store, other = brokers(MemoryLog(turns=9, random_=random.Random(1)), 2)
    async with opened(store, other):
        await store.append(numbered(10))
        (segment,) = await store.removing.segments(Offset(0))
        cuts = {topic: Cut(Offset(5), Offset(100)) for topic in segment.topics}
        removed = await store.removing.remove(Order(segment.first, segment.last, cuts), 100)
        assert removed.amount.messages == 4
        await store.removing.advance()
        assert store.log_start == 5
        await other.sync()
        assert (len(await read_all(store)), len(await read_all(other))) == (6, 10)
