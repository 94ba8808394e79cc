"""Care: what runs in the background, and what it tells."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.registry.upkeep.care import Care
from broker.settings.retention import RetentionRule
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


async def test_other_settings_count_once_they_are_put_in_force(
    world: World, tmp_path: Path
) -> None:
    care = Care(Config(data_dir=tmp_path), world.log, world.delivery, world.counters, world.clock)
    rules = (RetentionRule("a/#", count=2),)
    renew = await care.renewal(Config(data_dir=tmp_path, retention=rules, disk_free_min=77))
    assert list(care.retaining.status()["rules"]) == ["all else"]  # type: ignore[call-overload]
    renew()
    assert list(care.retaining.status()["rules"]) == ["a/#", "all else"]  # type: ignore[call-overload]
    assert care._space.most == 77
    wrong = (RetentionRule("a/#/b", count=2),)
    with pytest.raises(ConfigError, match="is no Topic Filter"):
        await care.renewal(Config(data_dir=tmp_path, retention=wrong))
