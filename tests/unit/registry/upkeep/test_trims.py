"""Trims: what is removed by hand, beside a broker and at rest."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.config import Config
from broker.errors import QuotaExceeded, ReplaySpecInvalid, StoreError, StoreFull, StoreUnavailable
from broker.registry.upkeep.retaining import Retaining
from broker.registry.upkeep.trims import AtRest, Trims
from broker.store.removing import Order, Removed
from tests.support.messages import message, numbered
from tests.support.patience import PATIENCE_S
from tests.support.sqlite import opened, problems
from tests.support.stores import payloads, read_all
from tests.support.world import Subscriber, World, subscription


@pytest.fixture
async def trims(world: World, tmp_path: Path) -> Trims:
    """Of a broker with six messages, those of `b` unread."""
    absent = Subscriber(world)
    await absent.open()
    absent.subscribe(subscription("b"))
    await world.publish(*numbered(6, lambda n: "ab"[n % 2]))
    absent.close()
    await world.settled()
    config = Config(data_dir=tmp_path)
    return Retaining(config, world.log, world.delivery, world.counters, SystemClock()).trims


async def done(trims: Trims) -> dict[str, object]:
    async with asyncio.timeout(PATIENCE_S):
        while not trims.state()["done"]:  # noqa: ASYNC110  There is no event.
            await asyncio.sleep(0)
    return trims.state()


async def test_what_would_go_is_what_goes(world: World, trims: Trims) -> None:
    await trims.begin("5", ["#"], unread=False, dry_run=True)
    said = await done(trims)
    assert (said["removed"], said["kept_unread"], said["dry_run"]) == (2, 2, True)
    assert len(await read_all(world.disk)) == 6
    await trims.begin("5", ["#"], unread=False, dry_run=False)
    said = await done(trims)
    assert (said["removed"], said["unread"], said["log_start"]) == (2, 0, 1)
    await trims.begin("latest", [], unread=True, dry_run=False)
    said = await done(trims)
    assert (said["removed"], said["unread"], said["log_start"]) == (4, 3, 7)
    assert await read_all(world.disk) == []
    assert world.counters.removed_unread == 3


async def test_one_at_a_time_and_only_where_it_makes_sense(world: World, trims: Trims) -> None:
    with pytest.raises(ReplaySpecInvalid):
        await trims.begin("3:4", [], unread=False, dry_run=False)
    await trims.begin("3", [], unread=False, dry_run=False)
    with pytest.raises(QuotaExceeded, match="already"):
        await trims.begin("3", [], unread=False, dry_run=False)
    await done(trims)
    await trims.begin("3", [], unread=False, dry_run=False)
    trims.cancel()
    await done(trims)


@pytest.mark.parametrize(
    ("error", "said"),
    [(StoreUnavailable, StoreUnavailable.reason), (StoreFull, "is full; removing needs room")],
)
async def test_what_fails_is_told_and_what_to_do_about_a_full_disk(
    world: World,
    trims: Trims,
    monkeypatch: pytest.MonkeyPatch,
    error: type[StoreError],
    said: str,
) -> None:
    async def broken(order: Order, rows_max: int, **how: bool) -> Removed:
        raise error("the disk")

    monkeypatch.setattr(world.disk.removing, "remove", broken)
    await trims.begin("3", [], unread=False, dry_run=False)
    assert said in str((await done(trims))["error"])


async def test_at_rest(tmp_path: Path) -> None:
    path = tmp_path / "pubsub.db"
    async with opened(path) as store:
        await store.append([message("r", "r", retain=True), *numbered(3000)])
    async with AtRest(path) as trims:
        await trims.begin("-10", ["t"], unread=False, dry_run=False)
        assert (await done(trims))["removed"] == 2990
    assert problems(path, at_rest=True) == []
    async with opened(path) as store:
        assert payloads(await read_all(store, ["t"]))[0] == b"2991"
        assert store.log_start == 2992
        assert len(await store.retained(["r"])) == 1
