"""Care: what runs in the background, and what it tells."""

from __future__ import annotations

import asyncio
from pathlib import Path

from broker.config import Config
from broker.registry.care import Care
from tests.support.world import World


async def test_what_is_switched_off_does_not_run(world: World, tmp_path: Path) -> None:
    def begun(config: Config) -> int:
        care = Care(config, world.log, world.delivery, world.counters, world.clock)
        tasks: list[asyncio.Task[None]] = []
        care.begin(lambda work: tasks.append(asyncio.ensure_future(work)))
        for task in tasks:
            task.cancel()
        assert care.status()["scrub"] == {"offset": 0, "rounds": 0}
        return len(tasks)

    everything = begun(Config(data_dir=tmp_path))
    assert begun(Config(data_dir=tmp_path, scrub_bytes_per_s=0)) == everything - 1
    assert begun(Config(data_dir=tmp_path, disk_free_min=0)) == everything - 1
