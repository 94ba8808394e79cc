"""A mistake of ours while one client is served ends that client, and touches nobody else.

A client does what clients do, and meanwhile one of the functions that serve it raises. Whichever it
is, the broker goes on, another client is served as ever, and the first can come back. PLACES of
these functions are drawn; `make soak` tries each of them (a minute).
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import broker
from broker.clients.faces import NetworkClient
from broker.log.outage import FULL_RETRY_S
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.lines import Lines
from tests.support.messages import message
from tests.support.trials import trials
from tests.support.world import Disk, World, running

PLACES = trials(25)
ROOT = Path(broker.__file__).parent
SERVING = {"clients", "delivery", "lines", "mqtt", "registry", "session"}
SERVES_ALL = {
    "Delivery.deliver_forever",
    "Looks.until_answered",
    "Delivery._deliver_tail",
    "Delivery._deliver",
    "Delivery._routed_through",
    "Delivery.wake",
    "Changes.routed",
    "Changes.split",
    "Changes._next_place",
    "Changes._next_turn",
    "Changes._is_due",
    "place_of",
    "LivePosition.advance",
    "Position.advance",
    "Wills.publish_forever",
    "Wills.publish_due",
    "Recent.add",
    "Recent.add.<locals>.<listcomp>",
    "Waking.unfinished",
    "Waking._go_on",
    "Waking.finished",
    "Waking.wake",
}
"""Mistakes in these are of no client."""
TAKES_A_COROUTINE = {"Client._wait_for", "Client._go_on_after"}
"""Python warns of a coroutine that nobody awaits."""


class Mistake(Exception):
    pass


class Rim:
    """Calls a client as `TcpConnection` does."""

    def __init__(self, client: NetworkClient) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Callable[..., Any]:
        call = getattr(self._client, name)

        def guarded(*args: object, **kwargs: object) -> object:
            try:
                return call(*args, **kwargs)
            except Mistake as error:
                self._client.failed(error)
                return None

        return guarded


def mqtt_client(world: World) -> Dialogue:
    dialogue = Dialogue(world)
    dialogue.peer = Rim(dialogue.peer)  # type: ignore[assignment]
    return dialogue


def line_client(world: World) -> Lines:
    lines = Lines(world, confirm=False)
    lines.client = Rim(lines.client)  # type: ignore[assignment]
    return lines


async def mqtt_life(world: World, begin: Callable[[], None]) -> None:
    """It comes with a will, has all that MQTT has, is cut off, comes back, and is taken over."""
    first, second, successor = (mqtt_client(world) for _ in range(3))
    begin()
    for client in (first, second):
        client.client(
            "10 ( 0004'MQTT'05 04 003C 08 11000003E8 210005 0001'a' 00 0001'w' 0001'x' )"
            "82 ( 0001 00 0001't' 02 )  82 ( 0002 00 000F'$share/g/shared' 01 )"
        )
        await world.settled()
        client.client("82 ( 0003 00 0012'$replay/earliest/t' 01 )")
        client.client("30 ( 0001't' 00'0' ) 33 ( 0001't' 0001 00'1' ) 34 ( 0001't' 0002 00'2' )")
        client.client("32 ( 0006'shared' 0003 00'3' )")
        await world.settled()
        if client is second:
            client.client("62 02 0002")
            await client.deliveries()
        client.peer.writable(yes=False)
        client.client("32 ( 0001't' 0004 00'4' ) C0 00")
        await world.settled()
        client.peer.writable(yes=True)
        client.peer.expire(world.clock.monotonic())
        await world.settled()
        if client is first:
            client.peer.lost()
            await world.settled()
    second.client("A2 ( 0005 00 0001't' )")
    successor.client("10 ( 0004'MQTT'05 02 003C 00 0001'a' ) E0 00")
    await world.settled()


async def life_on_a_full_disk(world: World, begin: Callable[[], None]) -> None:
    """The disk is full for a moment; then a delayed will and the session's expiry come due."""
    first, second, _ = (mqtt_client(world) for _ in range(3))
    begin()
    first.client(
        "10 ( 0004'MQTT'05 04 003C 05 11000003E8 0001'a' 05 180000000A 0001'w' 0001'x' )"
        "82 ( 0001 00 0001't' 02 )"
    )
    await world.settled()
    world.disk.full = True
    first.client("30 ( 0001't' 00'0' ) 32 ( 0001't' 0001 00'1' ) 34 ( 0001't' 0002 00'2' )")
    for _ in range(2):
        for _ in range(20):
            await asyncio.sleep(0)
        world.clock.advance(FULL_RETRY_S)
    world.disk.full = False
    world.clock.advance(FULL_RETRY_S)
    await world.settled()
    first.peer.lost()
    for seconds in (20, 2000):
        await world.settled()
        world.clock.advance(seconds)
    await world.settled()
    second.client("10 ( 0004'MQTT'04 00 003C 0001'a' ) 82 ( 0001 0001't' 01 )")
    second.client("32 ( 0001't' 0001 '1' )")
    await world.settled()
    second.peer.shut_down()
    await world.settled()


async def life_in_a_group(world: World, begin: Callable[[], None]) -> None:
    """Two members with leases: one is taken over, the other unsubscribes and leaves."""
    connect = "10 ( 0004'MQTT'05 00 003C 08 11000003E8 210003 0001'{}' )"
    one, two, successor = (mqtt_client(world) for _ in range(3))
    begin()
    one.client(connect.format("a") + "82 ( 0001 00 000F'$share/g/shared' 02 )")
    two.client(connect.format("c") + "82 ( 0001 00 000F'$share/g/shared' 01 )")
    await world.settled()
    await world.publish(*[message(str(n), "shared", qos=n % 3) for n in range(12)])
    one.client("50 02 0001")
    two.client("40 02 0001")
    await world.settled()
    one.peer.writable(yes=False)
    await world.settled()
    two.client("A2 ( 0005 00 000F'$share/g/shared' )")
    await world.settled()
    one.peer.writable(yes=True)
    two.client("40 02 0002")
    successor.client(connect.format("a"))
    await world.settled()
    two.peer.lost()
    await world.settled()
    successor.peer.lost()
    await world.settled()


async def line_life(world: World, begin: Callable[[], None]) -> None:
    """It subscribes, publishes, does not read for a while, and comes back twice."""
    first, second, third = (line_client(world) for _ in range(3))
    begin()
    for client in (first, second):
        client.says("CONFIRM", "SUBSCRIBE t a", "PUBLISH t 1 p", "nonsense")
        await world.settled()
        client.client.writable(yes=False)
        client.says("PUBLISH t 2 p", "SUBSCRIBE $replay/earliest/t a")
        await world.settled()
        client.client.writable(yes=True)
        await world.settled()
        client.client.lost()
        await world.settled()
    third.says("SUBSCRIBE t a", "UNSUBSCRIBE t a")
    await world.settled()
    third.client.shut_down()
    await world.settled()


Life = Callable[[World, Callable[[], None]], Awaitable[None]]


@contextmanager
def tracing(called: Callable[[CodeType], None]) -> Iterator[Callable[[], None]]:
    """`called` at each call of a function that serves a client, once that was begun."""

    def trace(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if code.co_filename.startswith(str(ROOT)) and serves_one(code):
            called(code)

    try:
        yield lambda: sys.settrace(trace)
    finally:
        sys.settrace(None)


def serves_one(code: CodeType) -> bool:
    place = Path(code.co_filename).relative_to(ROOT).parts[0]
    return (
        place in SERVING
        and code.co_name != "failed"
        and (code.co_qualname not in SERVES_ALL | TAKES_A_COROUTINE)
    )


async def places(life: Life) -> list[CodeType]:
    found: dict[CodeType, None] = {}
    async with running(Disk(), NOTHING_TO_TELL) as world:
        with tracing(lambda code: found.update({code: None})) as begin:
            await life(world, begin)
    return list(found)


async def try_with_a_mistake(life: Life, place: CodeType) -> bool:
    """Whether it was made: what is remembered from an earlier run is not called again."""
    made = False

    def called(code: CodeType) -> None:
        nonlocal made
        if code is place:
            made = True
            raise Mistake(place.co_qualname)  # Which ends the tracing.

    async with running(Disk(), NOTHING_TO_TELL) as world:
        brokers_own = asyncio.all_tasks() - {asyncio.current_task()}
        bystander = Dialogue(world)
        await bystander.connect("b")
        await bystander.subscribe("b")
        with tracing(called) as begin:
            await life(world, begin)
        assert not any(task.done() for task in brokers_own)
        assert world.log.failure is None
        bystander.client("32 ( 0001'b' 0001 00'1' )")
        assert [publish.payload for publish in await bystander.deliveries()] == [b"1"]
        assert not bystander.transport.closed.is_set()
        back = Dialogue(world)
        await back.connect("a")
        await back.subscribe("back")
        back.client("32 ( 0004'back' 0001 00'5' )")
        assert b"5" in [publish.payload for publish in await back.deliveries()]
    return made


@pytest.mark.parametrize("life", [mqtt_life, life_on_a_full_disk, life_in_a_group, line_life])
async def test_a_mistake_anywhere_while_one_client_is_served_touches_nobody_else(
    life: Life, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    found = await places(life)
    assert len(found) > 150
    for place in random.Random(seed).sample(found, min(PLACES, len(found))):
        caplog.clear()
        made = await try_with_a_mistake(life, place)
        told = any(record.levelname == "CRITICAL" for record in caplog.records)
        assert told == made, place.co_qualname
