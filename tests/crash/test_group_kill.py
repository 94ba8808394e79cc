"""Kill the broker under a Shared Subscription whose members come and go: the group loses nothing.

`pytest tests/crash --cycles 500` runs for longer; see `test_kill.py`.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

from tests.crash.checker import check
from tests.crash.group_checker import check_groups
from tests.crash.group_load import GroupLoad
from tests.crash.history import History
from tests.crash.killable_broker import KillableBroker

SETTINGS = {"inflight_max": 50, "outbox_messages_max": 100, "outbox_bytes_max": 20_000}
"""So small that the group is often behind, and the members' windows are full."""
CYCLES_PER_KILL = 2
"""A group has its share of the kills."""


async def test_a_group_survives_kill_9(tmp_path: Path, seed: int, cycles: int) -> None:
    """P1 to P4 for the members of a group together, by the rules of group_checker.py."""
    history = History()
    faults: list[str] = []
    source = random.Random(seed)
    kills = max(2, cycles // CYCLES_PER_KILL)
    with KillableBroker(tmp_path, SETTINGS) as broker:
        async with asyncio.timeout(60 + 10 * kills), GroupLoad(seed, broker, history) as load:
            await broker.start()
            await load.start()
            for kill in range(kills):
                # The first kill comes right after the last SUBACK: that was a promise too.
                await asyncio.sleep(source.uniform(0.1, 0.6) if kill else 0)
                if source.random() < 0.5:
                    await load.absence(source.uniform(0, 0.3))
                    await asyncio.sleep(source.uniform(0, 0.2))
                broker.kill()
                history.killed.add(history.epoch)
                await load.offline()
                faults += broker.examine(history)
                await broker.start()
                if kill % 3 == 1:
                    await asyncio.sleep(source.uniform(0.1, 0.6))
                    assert await load.stop() == 0
                    faults += broker.examine(history)
                    await broker.start()
            # What a restart would heal, as it leases everything anew, must not be there to heal.
            await asyncio.sleep(1)
            await load.drain()
            assert await load.stop() == 0
        faults += broker.examine(history)
        faults += broker.complaints()
    repeats_max = SETTINGS["inflight_max"]
    faults += [*check(history, repeats_max), *check_groups(history, repeats_max)]
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])
