"""Kill the broker with SIGKILL, again and again, under load; nothing promised may break.

`pytest tests/crash --cycles 500` runs for longer; a failure names the seed to repeat it with. What
the seed cannot repeat is the moment at which the kernel delivers a kill, to the microsecond.
"""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from tests.crash.checker import check
from tests.crash.client import RecordingPublisher, RecordingSubscriber
from tests.crash.history import History
from tests.crash.killable_broker import KillableBroker
from tests.crash.load import Load, payload_of

SMALL = {"inflight_max": 50, "outbox_messages_max": 100, "outbox_bytes_max": 20_000}
"""Windows and outboxes so small that readers are behind most of the time."""
DEFAULTS = {"inflight_max": 2000}


@pytest.mark.parametrize("settings", [DEFAULTS, SMALL], ids=["defaults", "small"])
async def test_every_promise_survives_kill_9(
    tmp_path: Path, seed: int, cycles: int, settings: dict[str, int]
) -> None:
    """P1 to P4, by the rules of checker.py."""
    history = History()
    faults: list[str] = []
    source = random.Random(seed)
    with KillableBroker(tmp_path, settings) as broker:
        async with asyncio.timeout(60 + 5 * cycles), Load(seed, broker, history) as load:
            await broker.start()
            await load.start()
            for cycle in range(cycles):
                # The first kill comes right after the last SUBACK: that was a promise too.
                await asyncio.sleep(source.uniform(0.02, 0.4) if cycle else 0)
                broker.kill()
                faults += broker.examine(history)
                await broker.start()
                if source.random() < 0.3:
                    await asyncio.sleep(source.uniform(0, 0.1))
                    source.choice(load.subscribers).drop()
            await load.drain()
            assert await broker.stop() == 0
        faults += broker.examine(history)
        faults += check(history, repeats_max=settings["inflight_max"])
        faults += broker.complaints()
    assert not faults, "\n".join([f"{len(faults)} faults", *faults[:20]])


async def test_qos_2_that_completed_past_an_unacknowledged_qos_1_is_not_repeated(
    tmp_path: Path,
) -> None:
    """[MQTT-4.3.3-10] The cursor stays at the QoS 1 message, and yet the other is over."""
    history = History()
    publisher = RecordingPublisher("p", history)
    subscriber = RecordingSubscriber("s", history, {"a": 2}, delay_qos1_s=lambda: 3600.0)
    with KillableBroker(tmp_path) as broker:
        async with asyncio.timeout(30):
            await broker.start()
            await subscriber.connect(broker.port)
            await subscriber.subscribed.wait()
            await publisher.connect(broker.port)
            publisher.publish("a", payload_of(1, 20), 1)
            publisher.publish("a", payload_of(2, 20), 2)
            await subscriber.until(
                lambda: len(history.deliveries["s"]) == 2 and not subscriber.held
            )
            await subscriber.ping()
            # Once this is acknowledged, the PUBCOMP before it is committed.
            publisher.publish("elsewhere", payload_of(1, 20), 1)
            await publisher.finished()
            broker.kill()
            faults = broker.examine(history)
            await asyncio.gather(publisher.offline.wait(), subscriber.offline.wait())

            subscriber.hurry()
            await broker.start()
            await publisher.connect(broker.port)
            await subscriber.connect(broker.port)
            last = publisher.publish("a", payload_of(1, 20), 1)
            await publisher.finished()
            await subscriber.settled({last})
            assert await broker.stop() == 0
            await asyncio.gather(publisher.offline.wait(), subscriber.offline.wait())
        faults += broker.examine(history)
    assert [*faults, *check(history, repeats_max=1)] == []
    assert [delivery.key.sequence for delivery in history.deliveries["s"]] == [1, 2, 1, 4]
