"""How often the store is asked again is tested where it is asked: `test_delivery.py`."""

from __future__ import annotations

import asyncio

from broker.delivery.looks import Looks
from broker.message import Offset
from broker.session.session import Session
from tests.support.clock import FakeClock


def session() -> Session:
    return Session("sub1", created_at_us=1, start=Offset(0), inflight_max=10)


async def test_a_session_looks_once_at_a_time_and_others_meanwhile() -> None:
    looks, one, another = Looks(FakeClock()), session(), session()
    looking: list[str] = []
    may_answer = asyncio.Event()

    async def look(of: Session, name: str) -> None:
        async def read() -> None:
            looking.append(name)
            await may_answer.wait()

        await looks.look(of, read)

    async with asyncio.TaskGroup() as readers:
        for of, name in ((one, "first"), (one, "second"), (another, "other")):
            readers.create_task(look(of, name))
        for _ in range(5):
            await asyncio.sleep(0)
        assert looking == ["first", "other"]
        may_answer.set()
    assert looking == ["first", "other", "second"]
