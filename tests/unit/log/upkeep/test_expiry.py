"""Expired retained messages are forgotten every minute, also after a minute when that failed."""

from __future__ import annotations

import asyncio

import pytest

from broker.clock import US
from broker.errors import StoreBusy
from broker.log.log_time import LogTime
from broker.log.upkeep.expiry import INTERVAL_S, forget_expired_forever
from broker.store.memory import MemoryStore
from tests.support.clock import FakeClock
from tests.support.messages import message
from tests.support.stores import payloads, retained


async def turns() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_what_expires_is_forgotten_within_a_minute(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store, clock = MemoryStore(), FakeClock()
    await store.open()
    time = LogTime(clock)
    soon = time.aged_us() + int(1.5 * INTERVAL_S * US)
    await store.append(
        [message("kept", "a", retain=True), message("1", "b", retain=True, expires_at_us=soon)]
    )
    forgetting = asyncio.create_task(forget_expired_forever(store, time, clock))
    await turns()
    clock.set_wall(2_000_000_000)  # Nor is anything forgotten because somebody sets the clock.
    clock.advance(INTERVAL_S)
    await turns()
    assert payloads(await retained(store, ["#"])) == [b"kept", b"1"]

    async def locked(now_us: int) -> None:
        raise StoreBusy("locked")

    with monkeypatch.context() as patch:
        patch.setattr(store, "forget_expired", locked)
        clock.advance(INTERVAL_S)
        await turns()
    assert caplog.messages == ["expired retained messages are not forgotten: locked"]
    clock.advance(INTERVAL_S)
    await turns()
    assert payloads(await retained(store, ["#"])) == [b"kept"]
    forgetting.cancel()
