"""Disk space: messages stop being taken before the disk is full."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from broker.log.outage import Outage
from broker.log.upkeep.disk_space import LOOK_NEAR_S, LOOK_S, DiskSpace, usage_of
from broker.store.memory import MemoryStore
from tests.support.clock import FakeClock

MB = 1_000_000


class Watched:
    def __init__(self, size: int, least: int = 200 * MB) -> None:
        self.size, self.free, self.in_database = size, size, 0
        self.outage = Outage(FakeClock())
        self.clock = FakeClock()
        self.store = store = MemoryStore()
        store.removing.free_bytes = self._free_bytes  # type: ignore[method-assign]  # A stand-in.
        self.space = DiskSpace(
            Path("x"), least, store, self.outage, self.clock, lambda _: (self.size, self.free)
        )

    async def _free_bytes(self) -> int:
        return self.in_database

    async def low_with(self, free: int, *, in_database: int = 0) -> bool:
        self.free, self.in_database = free, in_database
        await self.space.look()
        return bool(self.outage.low)


async def test_it_is_low_below_the_setting_and_not_any_more_when_there_is_a_tenth_more(
    caplog: pytest.LogCaptureFixture,
) -> None:
    disk = Watched(100_000 * MB)
    with caplog.at_level(logging.WARNING):
        assert not await disk.low_with(200 * MB)
        assert await disk.low_with(199 * MB)
        assert await disk.low_with(100 * MB)
        assert await disk.low_with(219 * MB)
        assert not await disk.low_with(220 * MB)
    assert len(caplog.messages) == 2
    assert "199.0 MB left, and messages are refused below 200.0 MB" in caplog.messages[0]
    assert "pubsub log trim" in caplog.messages[0]
    assert disk.space.status() == {"free": 220 * MB, "least": 200 * MB, "low": False}


async def test_a_small_file_system_is_of_use_all_the_same() -> None:
    """The smaller of the setting and a twentieth of it."""
    disk = Watched(100 * MB)
    assert not await disk.low_with(5 * MB)
    assert await disk.low_with(4 * MB)


async def test_free_pages_of_the_database_count() -> None:
    """So a trim makes room, though the file does not become smaller."""
    disk = Watched(100_000 * MB)
    assert await disk.low_with(10 * MB)
    assert not await disk.low_with(10 * MB, in_database=250 * MB)


async def test_the_store_keeps_its_spare_while_there_is_room() -> None:
    """Not at once, and again when it was used."""
    disk = Watched(100_000 * MB)
    kept: list[float] = []

    async def keep_spare() -> None:
        kept.append(disk.clock.monotonic() - began)

    async def sleep(seconds: float) -> None:
        disk.clock.advance(seconds)
        passed = disk.clock.monotonic() - began
        disk.free = (300 if 100 < passed < 200 else 500) * MB
        if passed > 300:
            raise asyncio.CancelledError

    began = disk.clock.monotonic()
    disk.store.removing.keep_spare = keep_spare  # type: ignore[method-assign]  # A stand-in.
    disk.space._clock.sleep = sleep  # type: ignore[method-assign]  # A stand-in.
    with pytest.raises(asyncio.CancelledError):
        await disk.space.watch_forever()
    assert [round(at) for at in kept] == [60, 200, 260]


async def test_more_in_the_write_ahead_log_than_is_free_is_nothing_free() -> None:
    disk = Watched(100_000 * MB)
    assert await disk.low_with(1 * MB, in_database=-5 * MB)
    assert disk.space.free == 0


async def test_who_waits_for_room_is_called_once() -> None:
    disk = Watched(100_000 * MB)
    await disk.low_with(0)
    called: list[str] = []

    def one() -> None:
        called.append("one")

    def other() -> None:
        called.append("other")

    disk.outage.when_room(one)
    disk.outage.when_room(one)
    disk.outage.when_room(other)
    disk.outage.forget(other)
    for free in (10 * MB, 500 * MB, 500 * MB):
        await disk.low_with(free)
    assert called == ["one"]


def test_the_usage_is_that_of_the_file_system(tmp_path: Path) -> None:
    size, free = usage_of(tmp_path)
    assert 0 < free <= size


async def test_it_is_looked_at_more_often_the_less_there_is() -> None:
    disk = Watched(100_000 * MB)
    sleeps: list[float] = []

    async def sleep(seconds: float) -> None:
        sleeps.append(seconds)
        disk.free -= 1000 * MB
        if disk.free < 0:
            raise asyncio.CancelledError

    disk.space._clock.sleep = sleep  # type: ignore[method-assign]  # A stand-in.
    disk.free = 2500 * MB
    with pytest.raises(asyncio.CancelledError):
        await disk.space.watch_forever()
    assert sleeps == [LOOK_S, LOOK_NEAR_S, LOOK_NEAR_S]
