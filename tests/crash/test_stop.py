"""Stop the broker with SIGTERM, again and again, under load: a clean stop forgets nothing (P4)."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.crash.checker import check, continued
from tests.crash.history import History
from tests.crash.killable_broker import KillableBroker
from tests.crash.load import Load

STOPS = 4


async def test_a_clean_stop_repeats_nothing_and_continues_what_was_in_flight(
    tmp_path: Path, seed: int
) -> None:
    """Nothing acknowledged comes again; the rest does, with its Packet Identifier and DUP."""
    history = History()
    faults: list[str] = []
    source = random.Random(seed)
    with KillableBroker(tmp_path) as broker:
        async with asyncio.timeout(120), Load(seed, broker, history, polite=True) as load:
            subscribers = [*load.subscribers, *load.absent]
            await broker.start()
            await load.start()
            for _ in range(STOPS):
                await asyncio.sleep(source.uniform(0.1, 0.4))
                # What a client writes to a connection that is being closed is lost, so they keep
                # quiet until the broker is gone: what they acknowledged, it has read.
                for subscriber in subscribers:
                    subscriber.suspend()
                await asyncio.gather(*(subscriber.ping() for subscriber in subscribers))
                assert await broker.stop() == 0
                await asyncio.gather(*(subscriber.offline.wait() for subscriber in subscribers))
                faults += broker.examine(history)
                for subscriber in subscribers:
                    subscriber.resume()
                await broker.start()
            await load.drain()
            assert await broker.stop() == 0
            # With nothing in flight, the next messages are all that comes after a restart.
            await broker.start()
            await load.drain()
            assert await broker.stop() == 0
    faults += broker.examine(history)
    faults += [*check(history, repeats_max=0), *continued(history)]
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])
