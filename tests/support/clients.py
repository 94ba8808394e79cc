"""What `Server` gives to a `Client` or a `LineClient`, and a client's side of the conversation."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

from broker.clients.client import Client
from broker.clients.faces import Peer
from broker.clients.services import Services
from broker.clients.subscriptions import Subscriptions
from broker.config import Config
from broker.mqtt.encode import encode
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    MQTT_5,
    RECEIVE_MAXIMUM_DEFAULT,
    Ack,
    Connect,
    PacketType,
    Publish,
)
from broker.observe.sys_tree import SysTree
from tests.support.raw_client import next_packet
from tests.support.wire import script_bytes, script_pattern
from tests.support.world import Disk, World, running

NOTHING_TO_TELL = Config(
    receive_max=RECEIVE_MAXIMUM_DEFAULT, packet_bytes_max=PACKET_BYTES_MAX, topic_alias_max=0
)
"""With limits that are MQTT's own defaults, so that a CONNACK need not tell them."""
HERE = Peer("here")


class Transport:
    """Keeps what was written, and whether it is read from."""

    def __init__(self) -> None:
        self.written = b""
        self.writes: list[bytes] = []
        self.closed = asyncio.Event()
        self.aborted = False
        self.not_read_because: set[str] = set()
        self.deadlines_moved = 0

    def write(self, data: bytes) -> None:
        self.written += data
        self.writes.append(data)

    def close(self) -> None:
        self.closed.set()

    def abort(self) -> None:
        self.aborted = True
        self.closed.set()

    @property
    def reading(self) -> bool:
        return not self.not_read_because

    def pause_reading(self, reason: str) -> None:
        self.not_read_because.add(reason)

    def resume_reading(self, reason: str) -> None:
        self.not_read_because.discard(reason)

    def deadline_moved(self) -> None:
        self.deadlines_moved += 1

    left = False

    def has_left(self) -> bool:
        return self.left

    # Only of a line client's transport.

    tells_arrival = True
    arrived = True
    gone = False

    def watch_peer(self) -> bool:
        return self.tells_arrival

    def has_arrived(self) -> bool:
        return self.arrived

    def is_gone(self) -> bool:
        return self.gone


def services(world: World, config: Config) -> Services:
    now = world.clock.monotonic()
    sys_tree = SysTree(world.log, world.delivery, world.sessions, world.groups, world.counters, now)
    subscriptions = Subscriptions(
        world.log, world.delivery, world.groups, sys_tree, config, world.clock
    )
    subscriptions.allowance.quota_of = world.quotas.of
    return Services(
        config,
        world.clock,
        world.log,
        world.delivery,
        world.sessions,
        world.groups,
        subscriptions,
        world.wills,
        world.asking,
        sys_tree,
        world.counters,
        Limits.of(config),
        {},
        world.users,
        world.permissions,
        world.logins,
        world.quotas,
        world.references,
    )


class Dialogue:
    """What an MQTT client writes to its `Client` and gets from it, in scripts (`wire.py`)."""

    def __init__(self, world: World, config: Config = NOTHING_TO_TELL) -> None:
        self.world = world
        self.transport = Transport()
        self.services = services(world, config)
        self.peer = Client(self.services, self.transport, HERE, world.clock.monotonic())

    def client(self, script: str) -> None:
        """The client writes."""
        self.peer.receive(script_bytes(script), self.world.clock.monotonic())

    def written(self, script: str) -> None:
        """What the broker has written since this was asked last."""
        written, self.transport.written = self.transport.written, b""
        self.transport.writes.clear()
        assert re.fullmatch(script_pattern(script), written, re.DOTALL), written.hex(" ")

    async def broker(self, script: str) -> None:
        """The same, when all that is on its way has come."""
        await self.world.settled()
        self.written(script)

    async def deliveries(self, *, version: int = MQTT_5) -> list[Publish]:
        """What comes until nothing more does, all of it acknowledged as it should be."""
        published: list[Publish] = []
        while True:
            await self.world.settled()
            buffer = bytearray(self.transport.written)
            self.transport.written = b""
            if not buffer:
                return published
            while (packet := next_packet(buffer, version)) is not None:
                answer = None
                if isinstance(packet, Publish):
                    published.append(packet)
                    if packet.qos:
                        kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
                        answer = Ack(kind, [packet.packet_id])
                elif isinstance(packet, Ack) and packet.type is PacketType.PUBREL:
                    answer = Ack(PacketType.PUBCOMP, packet.packet_ids)
                if answer is not None:
                    self.peer.receive(encode(answer, version), self.world.clock.monotonic())

    async def connect(
        self,
        client_id: str = "a",
        *,
        version: int = MQTT_5,
        clean_start: bool = False,
        expiry_s: int | None = None,
        receive_maximum: int = RECEIVE_MAXIMUM_DEFAULT,
        packet_bytes_max: int | None = None,
    ) -> None:
        """The client connects and is accepted."""
        connect = Connect(
            version,
            client_id,
            clean_start,
            60,
            session_expiry_s=expiry_s,
            receive_maximum=receive_maximum,
            packet_bytes_max=packet_bytes_max,
        )
        self.peer.receive(encode(connect, version), self.world.clock.monotonic())
        await self.broker("20 .. .. 00 *" if version == MQTT_5 else "20 02 .. 00")

    async def subscribe(self, topic_filter: str, qos: int = 1) -> None:
        """The client of MQTT 5 subscribes, and that is granted."""
        self.client(f"82 ( 0009 00  00 ('{topic_filter}') {qos:02X} )")
        await self.broker(f"90 04 0009 00 {qos:02X}")


@asynccontextmanager
async def connected(
    *, expiry_s: int | None = None, **settings: Any
) -> AsyncIterator[tuple[World, Dialogue]]:
    """A client that was accepted, in a world of its own whose broker has these settings."""
    config = replace(NOTHING_TO_TELL, **settings)
    async with running(Disk(), config) as world:
        dialogue = Dialogue(world, config)
        await dialogue.connect(expiry_s=expiry_s)
        yield world, dialogue
