"""Retaining: the rules that a broker has by default, and what it says of them."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import pytest

from broker.config import Config
from broker.registry.upkeep.retaining import DEFAULT_BYTES_MAX, Retaining, rules_for
from broker.settings.retention import RetentionRule
from broker.store.removing import SEGMENT
from tests.support.messages import message, numbered
from tests.support.stores import payloads, read_all
from tests.support.world import Subscriber, World, subscription

LIMITED = RetentionRule("a/#", count=2)


def retaining(world: World, tmp_path: Path, *rules: RetentionRule) -> Retaining:
    config = Config(retention=rules, data_dir=tmp_path)
    return Retaining(config, world.log, world.delivery, world.counters, world.clock)


async def passed(world: World) -> None:
    """A pass of retention."""
    for _ in range(40):
        world.clock.advance(1)
        await world.settled()


def test_a_new_log_keeps_what_no_rule_matches_for_30_days_up_to_10_gib() -> None:
    config = Config(retention=(LIMITED,))
    assert rules_for(config, 1 << 50, keeps_all=False) == [
        LIMITED,
        RetentionRule(None, age_s=30 * 86_400, bytes=DEFAULT_BYTES_MAX),
    ]
    assert rules_for(config, 10**9, keeps_all=False)[1].bytes == 10**9 // 2
    assert rules_for(config, 1 << 50, keeps_all=True) == [LIMITED]


async def test_a_log_that_was_there_before_keeps_everything_and_says_so(
    world: World, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    world.disk.removing.keeps_all = True
    await world.publish(*numbered(5))
    of = retaining(world, tmp_path)
    running = asyncio.create_task(of.run_forever())
    with caplog.at_level(logging.WARNING):
        for _ in range(10):
            await world.settled()
    assert "0.0 MB (5 messages), which an older pubsub has made: set [[retention]]" in caplog.text
    of.renewal(Config(retention=(RetentionRule("#", count=2),), data_dir=tmp_path))()
    await passed(world)
    running.cancel()
    assert payloads(await read_all(world.disk)) == [b"4", b"5"], "until a rule is set"


async def test_other_rules_count_from_the_next_pass_on(world: World, tmp_path: Path) -> None:
    await world.publish(*numbered(5, "a/b"))
    of = retaining(world, tmp_path, LIMITED)
    running = asyncio.create_task(of.run_forever())
    await asyncio.sleep(0)
    await passed(world)
    assert payloads(await read_all(world.disk)) == [b"4", b"5"]
    await world.publish(*numbered(3, "b"))
    only = (RetentionRule("b", count=1), RetentionRule("a/#", count=1))
    of.renewal(Config(retention=only, data_dir=tmp_path))()
    await passed(world)
    running.cancel()
    assert payloads(await read_all(world.disk)) == [b"5", b"3"]
    assert of.status()["messages"] == 2


async def test_what_was_counted_by_other_rules_is_counted_anew(
    world: World, tmp_path: Path
) -> None:
    await world.publish(*numbered(SEGMENT + 10, "a/b"))
    of = retaining(world, tmp_path, RetentionRule("a/#", count=5000))
    running = asyncio.create_task(of.run_forever())
    await asyncio.sleep(0)
    await passed(world)
    renewed = (RetentionRule("b", count=1), RetentionRule("a/#", count=5))
    of.renewal(Config(retention=renewed, data_dir=tmp_path))()
    await passed(world)
    running.cancel()
    assert of.status()["messages"] == len(await read_all(world.disk)) == 5


async def test_whether_qos_0_is_logged_changes_at_once(world: World, tmp_path: Path) -> None:
    of = retaining(world, tmp_path)
    assert world.log.qos0.leaves_out is None
    of.renewal(Config(retention=(RetentionRule("fast/#", log=False),), data_dir=tmp_path))()
    assert world.log.qos0.leaves_out is not None
    assert world.log.qos0.leaves_out("fast/a")
    of.renewal(Config(retention=(RetentionRule("slow/#", log=False),), data_dir=tmp_path))()
    assert not world.log.qos0.leaves_out("fast/a")
    of.renewal(Config(data_dir=tmp_path))()
    assert world.log.qos0.leaves_out is None


async def test_where_all_is_logged_first_it_does_not_change(world: World, tmp_path: Path) -> None:
    """Of several brokers that share a log: what is not logged, nobody would get."""
    of = retaining(world, tmp_path)
    world.log.qos0.log_first()
    of.renewal(Config(retention=(RetentionRule("fast/#", log=False),), data_dir=tmp_path))()
    assert world.log.qos0.leaves_out is None


async def test_it_runs_and_tells(world: World, tmp_path: Path) -> None:
    await world.publish(*numbered(5, "a/b"))
    of = retaining(world, tmp_path, LIMITED)
    running = asyncio.create_task(of.run_forever())
    await asyncio.sleep(0)
    await passed(world)
    running.cancel()
    assert payloads(await read_all(world.disk)) == [b"4", b"5"]
    status = of.status()
    assert (status["removed"], status["removed_bytes"]) == ({"age": 0, "count": 3}, 3 * 65)
    assert (status["messages"], status["bytes"]) == (2, 130)
    assert of.values()["retention/removed/count"] == 3
    assert list(status["rules"]) == ["a/#", "all else"]  # type: ignore[call-overload]  # A dict.


async def test_qos_0_of_a_rule_without_log_is_delivered_and_not_logged(
    world: World, tmp_path: Path
) -> None:
    retaining(world, tmp_path, RetentionRule("fast/#", log=False))
    live = Subscriber(world)
    await live.open()
    live.subscribe(subscription("#", qos=0))
    await world.settled()
    world.log.append(
        [
            message("1", "fast/1", qos=0),
            message("2", "slow", qos=0),
            message("3", "fast/1", qos=0, retain=True),
        ],
        durable=False,
    )
    world.log.append([message("4", "fast/1")])
    world.log.append([message("5", "fast/2", qos=0)], durable=False)
    await world.settled()
    assert sorted(m.payload for m, _ in live.got) == [b"1", b"2", b"3", b"4", b"5"]
    assert payloads(await read_all(world.disk)) == [b"2", b"3", b"4"]
    assert not world.counters.dropped
