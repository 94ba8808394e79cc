"""Mixed: QoS 0 beside QoS 1 and 2 keeps its order, and somebody hears of the last commit."""

from __future__ import annotations

import asyncio

import pytest

from broker.clients.asking import Asked
from broker.clients.mixed import append_asked, append_mixed
from broker.documents import NEVER_US, DedupDocument, Put
from broker.errors import StoreError
from broker.message import Offset
from tests.support.messages import message
from tests.support.world import Subscriber, World


def fail(error: Exception) -> None:
    raise error


@pytest.mark.parametrize("qualities", [(0, 1, 0, 2, 0), (0, 1), (0, 0), (1, 0)])
async def test_the_order_stays_and_the_callback_is_called_once(
    world: World, qualities: tuple[int, ...]
) -> None:
    heard: list[StoreError | None] = []
    messages = [message(str(n), qos=qos) for n, qos in enumerate(qualities)]
    append_mixed(world.log, messages, heard.append, fail, keep_if_full=True)
    await world.settled()
    assert heard == [None]
    assert [m.offset for m in messages] == sorted(m.offset for m in messages)
    assert all(m.offset for m in messages)


@pytest.mark.parametrize("qualities", [(0, 1, 0, 2, 0), (0, 0)])
async def test_the_callback_waits_for_the_last_that_is_acknowledged_and_qos_0_for_nobody(
    world: World, qualities: tuple[int, ...]
) -> None:
    """P1, P9"""
    heard: list[StoreError | None] = []
    world.disk.may_commit.clear()
    messages = [message(str(n), qos=qos) for n, qos in enumerate(qualities)]
    append_mixed(world.log, messages, heard.append, fail, keep_if_full=True)
    for _ in range(20):
        await asyncio.sleep(0)
    assert heard == []
    world.disk.may_commit.set()
    await world.settled()
    assert heard == [None]


@pytest.mark.parametrize(("qos", "durable"), [(0, False), (1, True), (2, True)])
async def test_what_is_asked_is_committed_with_its_message(
    world: World, qos: int, durable: bool
) -> None:
    heard: list[StoreError | None] = []
    key = DedupDocument("digest", Offset(0), NEVER_US)
    asked = Asked([message("1", qos=qos)], operations=[Put(key)])
    subscriber = Subscriber(world)
    await subscriber.open()
    assert subscriber.session is not None
    append_asked(
        world.log, asked, heard.append, fail, subscriber.session, qos=qos, keep_if_full=False
    )
    await world.settled()
    assert heard == [None]
    assert await world.disk.get(DedupDocument, ("digest",)) == key
    assert [d for payloads, _, d in world.disk.commits if payloads] == [durable]
