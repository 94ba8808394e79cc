"""What `Server` gives to a `Client` or a `LineClient`: a transport, and the parts of a `World`."""

from __future__ import annotations

import asyncio

from broker.clients.services import Services
from broker.clients.subscriptions import Subscriptions
from broker.config import Config
from broker.mqtt.limits import Limits
from broker.observe.sys_tree import SysTree
from tests.support.world import World


class Transport:
    """Keeps what was written."""

    def __init__(self) -> None:
        self.written = b""
        self.closed = asyncio.Event()

    def write(self, data: bytes) -> None:
        self.written += data

    def close(self) -> None:
        self.closed.set()

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def deadline_moved(self) -> None:
        pass


def services(world: World, config: Config) -> Services:
    now = world.clock.monotonic()
    sys_tree = SysTree(world.log, world.delivery, world.sessions, world.groups, world.counters, now)
    return Services(
        config,
        world.clock,
        world.log,
        world.delivery,
        world.sessions,
        world.groups,
        Subscriptions(world.log, world.delivery, world.groups, sys_tree, config, world.clock),
        world.wills,
        sys_tree,
        world.counters,
        Limits.of(config),
        {},
    )
