"""QoS 0 comes at most once in the life of a session, and what does not come is counted.

Clients with durable sessions change their subscriptions, leave and come back, are taken over, have
a window of a few messages or a socket that is full, while others publish and the disk takes what
it is given sooner or later. Each seed is one run; it draws what happens when. (P3, P5, P9)
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from broker.documents import Operation, Place
from broker.message import Message
from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Connect,
    Disconnect,
    FromClient,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from broker.store.memory import MemoryStore
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.raw_client import next_packet
from tests.support.trials import seeds
from tests.support.world import Disk, World, running

TOPICS = ("t/a", "t/b", "t/c")
FILTERS = ("z/z", "t/a", "t/+")
"""Beside `t/#`, which all have from the beginning."""
STEPS = 60
CONFIG = replace(NOTHING_TO_TELL, outbox_messages_max=12, outbox_bytes_max=4000)


class OftenQuickDisk(Disk):
    """Commits in the turn in which something came, now and then."""

    def __init__(self, rng: random.Random, gaps: int) -> None:
        super().__init__(gaps=gaps)
        self._rng = rng

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        if not self.may_commit.is_set() or self._rng.random() < 0.5:
            return False
        stored = MemoryStore.append(self, batch, state, durable=durable, places=places)
        with pytest.raises(StopIteration):
            stored.send(None)  # It waits for nothing.
        committed()
        return True


class Guest:
    """A client with a durable session, as long as that lasts."""

    def __init__(self, world: World, name: str, rng: random.Random) -> None:
        self.world = world
        self.name = name
        self.rng = rng
        self.window = rng.choice((1, 1, 2, 100))
        self.dialogue: Dialogue | None = None
        self.earlier: list[Dialogue] = []
        """Connections that are over; something may be left to read of them."""
        self.got: dict[int, int] = {}
        """The QoS of each message that came, by its number, in the order of arrival."""
        self.newest: dict[str, int] = {}
        """Of QoS 0, by topic."""
        self.acks: list[Ack] = []
        self.filters: set[str] = set()
        self.next_id = 0

    def connect(self) -> None:
        """Also when it is connected: that is a takeover."""
        self.read()
        if self.dialogue is not None:
            self.earlier.append(self.dialogue)
        self.acks.clear()
        self.dialogue = Dialogue(self.world, CONFIG)
        self.dialogue.peer.receive(
            encode(
                Connect(
                    MQTT_5,
                    self.name,
                    clean_start=False,
                    keep_alive_s=0,
                    session_expiry_s=100,
                    receive_maximum=self.window,
                ),
                MQTT_5,
            ),
            self.world.clock.monotonic(),
        )

    def write(self, *packets: FromClient | Publish) -> None:
        if self.dialogue is not None and not self.dialogue.transport.closed.is_set():
            data = b"".join([encode(packet, MQTT_5) for packet in packets])
            self.dialogue.peer.receive(data, self.world.clock.monotonic())

    def leave(self, *before: FromClient | Publish) -> None:
        """These and its DISCONNECT, or nothing at all, come in one read."""
        if self.dialogue is not None:
            if before or self.rng.random() < 0.7:
                self.write(*before, *self.acks[: self.rng.randrange(3)], Disconnect())
            else:
                self.dialogue.peer.lost()
                self.dialogue.transport.closed.set()
            self.earlier.append(self.dialogue)
            self.dialogue = None
            self.acks.clear()
            self.read()

    def change(self) -> Subscribe | Unsubscribe:
        """Of its subscriptions."""
        self.next_id = self.next_id % 60_000 + 1
        topic_filter = self.rng.choice((*FILTERS, "z/z", "t/#"))
        if topic_filter in self.filters:
            self.filters.remove(topic_filter)
            return Unsubscribe(self.next_id, [topic_filter])
        if topic_filter != "t/#":
            self.filters.add(topic_filter)
        request = SubscriptionRequest(topic_filter, 1, retain_handling=2)
        return Subscribe(self.next_id, [request])

    def acknowledge(self, many: int) -> None:
        now, self.acks = self.acks[:many], self.acks[many:]
        self.write(*now)

    def read(self) -> bool:
        """Whether anything came."""
        came = False
        for dialogue in filter(None, (*self.earlier, self.dialogue)):
            buffer = bytearray(dialogue.transport.written)
            dialogue.transport.written = b""
            came |= bool(buffer)
            while (packet := next_packet(buffer, MQTT_5)) is not None:
                if isinstance(packet, Suback | Unsuback):
                    assert max(packet.reason_codes) < 0x80
                elif isinstance(packet, Publish):
                    self._take(packet, acknowledge=dialogue is self.dialogue)
        if self.dialogue is not None and self.dialogue.transport.closed.is_set():
            self.dialogue = None
        self.earlier = [each for each in self.earlier if not each.transport.closed.is_set()]
        return came

    def _take(self, packet: Publish, *, acknowledge: bool) -> None:
        number = int(packet.payload)
        if packet.qos == 0:
            assert number not in self.got, f"{self.name}: {number} came again"
            last = self.newest.get(packet.topic, 0)
            assert number > last, f"{self.name}: {number} comes after {last}"
            self.got[number], self.newest[packet.topic] = 0, number
        else:
            self.got.setdefault(number, packet.qos)
            if acknowledge:
                self.acks.append(Ack(PacketType.PUBACK, [packet.packet_id]))


async def one_run(seed: int) -> None:
    rng = random.Random(seed)
    number = 0
    async with running(OftenQuickDisk(rng, seed % 2 * 10), CONFIG) as world:
        world.log._pace.batch_bytes_max = rng.choice((1000, 1 << 20))
        publisher = Dialogue(world, CONFIG)
        await publisher.connect("publisher")
        parties = [Guest(world, name, rng) for name in "abc"[: rng.randrange(1, 4)]]
        for party in parties:
            party.connect()
            await world.settled()
            party.write(Subscribe(1, [SubscriptionRequest("t/#", 1)]))
        await world.settled()
        for _ in range(STEPS):
            if rng.random() < 0.25:
                world.disk.may_commit.clear()
            elif rng.random() < 0.4:
                world.disk.may_commit.set()
            burst: list[Publish] = []
            for _ in range(rng.choice((0, 1, 2, 6))):
                number += 1
                qos = int(rng.random() < 0.15)
                payload = b"%d" % number
                burst.append(
                    Publish(rng.choice(TOPICS), payload, qos, False, False, number if qos else 0)
                )
            data = b"".join([encode(packet, MQTT_5) for packet in burst])
            publisher.peer.receive(data, world.clock.monotonic())
            publisher.transport.written = b""
            party = rng.choice(parties)
            match rng.randrange(10):
                case 0 | 1 if party.dialogue is None or rng.random() < 0.2:
                    party.connect()
                case 2:
                    party.leave()
                case 3 | 4 if party.dialogue is not None:
                    party.write(party.change())
                case 5 if party.dialogue is not None:
                    party.leave(party.change())
                case 6 if party.dialogue is not None:
                    party.dialogue.peer.writable(yes=rng.random() < 0.6)
                case 7:
                    world.clock.advance(rng.choice((0.01, 0.3)))
                case _:
                    party.acknowledge(rng.randrange(4))
            for _ in range(rng.choice((0, 0, 1, 2, 5, 20))):
                await asyncio.sleep(0)
            for party in parties:
                party.read()
        world.disk.may_commit.set()
        for party in parties:
            if party.dialogue is None:
                party.connect()
            assert party.dialogue is not None
            party.dialogue.peer.writable(yes=True)
        more = True
        while more:
            await world.settled()
            more = False
            for party in parties:
                more |= party.read() or bool(party.acks)
                party.acknowledge(100)
        dropped = {why: many for why, many in world.counters.dropped.items() if many}
        assert not dropped, dropped
        for party in parties:
            missing = {*range(1, number + 1)} - party.got.keys()
            assert not missing, f"{party.name} never got {sorted(missing)}"


@pytest.mark.parametrize("block", range(4))
async def test_qos_0_comes_at_most_once_and_is_not_lost(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 6)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 8)
    monkeypatch.setattr("broker.delivery.changes.ROUTED_AT_ONCE_MAX", 5)
    monkeypatch.setattr("broker.delivery.delivery.ROUTED_AT_ONCE_MAX", 5)
    for seed in seeds(block, usual=80):
        try:
            await one_run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
