"""Everything counts in its order of arrival, compared with a broker of a few lines.

Several clients publish, subscribe, change subscriptions and unsubscribe, on connections of their
own, while commits are held up and let go. Who gets which message at which QoS, live or as retained,
what UNSUBACK follows, and who hears that nobody is subscribed: the model says it at arrival.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from dataclasses import dataclass, field

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    FromClient,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from broker.topics import matches
from tests.support.clients import NOTHING_TO_TELL, Dialogue
from tests.support.lines import Lines
from tests.support.raw_client import next_packet
from tests.support.trials import seeds
from tests.support.world import Disk, World, running

TOPICS = ("a", "b", "c/d")
FILTERS = ("a", "b", "#", "+", "c/#")
ROUNDS = 12
Live = tuple[str, int, int]
"""Topic, number and QoS."""
NOBODY = 0x10


@dataclass
class Model:
    """What a broker is that does everything at once."""

    subscribed: dict[str, dict[str, int]] = field(default_factory=lambda: defaultdict(dict))
    """By client: the granted QoS of each Topic Filter."""
    retained: dict[str, int] = field(default_factory=dict)
    live: dict[str, list[Live]] = field(default_factory=lambda: defaultdict(list))
    """By client: the messages that it gets live."""
    wanting: list[tuple[str, str, dict[str, int]]] = field(default_factory=list)
    """Client, Topic Filter, and the retained messages of that moment."""
    unwanted: dict[int, bool] = field(default_factory=dict)
    before_unsuback: dict[tuple[str, int], int] = field(default_factory=dict)
    """By client and Packet Identifier: how many live messages leave before the UNSUBACK."""

    def publish(self, number: int, topic: str, qos: int, *, retain: bool) -> None:
        if retain:
            self.retained[topic] = number
        wanted = False
        for client, filters in self.subscribed.items():
            granted = [q for topic_filter, q in filters.items() if matches(topic_filter, topic)]
            if granted:
                wanted = True
                self.live[client].append((topic, number, min(qos, max(granted))))
        self.unwanted[number] = not wanted

    def subscribe(self, client: str, topic_filter: str, qos: int, handling: int) -> None:
        new = topic_filter not in self.subscribed[client]
        if handling == 0 or (handling == 1 and new):
            matching = {t: n for t, n in self.retained.items() if matches(topic_filter, t)}
            self.wanting.append((client, topic_filter, matching))
        self.subscribed[client][topic_filter] = qos

    def unsubscribe(self, client: str, packet_id: int, topic_filter: str) -> None:
        self.subscribed[client].pop(topic_filter, None)
        self.before_unsuback[client, packet_id] = len(self.live[client])


class Party:
    """One MQTT client that acknowledges what it gets."""

    def __init__(self, world: World, name: str, version: int) -> None:
        self.dialogue = Dialogue(world)
        self.name = name
        self.version = version
        self.world = world
        self.sent: dict[int, int] = {}
        """The number of each message that it published, by Packet Identifier."""
        self.next_id = 0
        self.live: list[Live] = []
        self.retained: list[tuple[str, int]] = []
        self.unsubacks: dict[int, int] = {}
        self.nobody: dict[int, bool] = {}
        self.writing: list[FromClient | Publish] = []

    def identifier(self) -> int:
        self.next_id += 1
        return self.next_id

    def write(self) -> None:
        """Everything that waits, in one read of the broker."""
        data = b"".join(encode(packet, self.version) for packet in self.writing)
        self.writing.clear()
        self.dialogue.peer.receive(data, self.world.clock.monotonic())

    def read(self) -> bool:
        """Whether anything came."""
        buffer = bytearray(self.dialogue.transport.written)
        self.dialogue.transport.written = b""
        came = bool(buffer)
        while (packet := next_packet(buffer, self.version)) is not None:
            self._take(packet)
        self.write()
        return came

    def _take(self, packet: object) -> None:
        match packet:
            case Publish(retain=True):
                self.retained.append((packet.topic, int(packet.payload)))
            case Publish():
                self.live.append((packet.topic, int(packet.payload), packet.qos))
            case Unsuback():
                self.unsubacks[packet.packet_id] = len(self.live)
            case Ack() if packet.type in (PacketType.PUBACK, PacketType.PUBREC):
                for packet_id in packet.packet_ids:
                    self.nobody[self.sent[packet_id]] = packet.reason_code == NOBODY
                if packet.type is PacketType.PUBREC:
                    self.writing.append(Ack(PacketType.PUBREL, packet.packet_ids))
            case Ack() if packet.type is PacketType.PUBREL:
                self.writing.append(Ack(PacketType.PUBCOMP, packet.packet_ids))
            case Suback():
                assert max(packet.reason_codes) < 0x80
        if isinstance(packet, Publish) and packet.qos:
            kind = PacketType.PUBACK if packet.qos == 1 else PacketType.PUBREC
            self.writing.append(Ack(kind, [packet.packet_id]))


def by_topic(live: list[Live]) -> dict[str, list[Live]]:
    """QoS 0 goes ahead of what waits for its commit, but not on its topic. [MQTT-4.6.0-6]"""
    found: dict[str, list[Live]] = defaultdict(list)
    for message in live:
        found[message[0]].append(message)
    return found


async def everything_read(world: World, peers: list[Party]) -> None:
    came = True
    while came:
        await world.settled()
        came = sum(peer.read() for peer in peers) > 0


async def one_run(seed: int) -> None:
    rng = random.Random(seed)
    model = Model()
    number = 0
    async with running(Disk(gaps=seed % 2 * 10), NOTHING_TO_TELL) as world:
        peers: list[Party] = []
        for name in "abcd"[: rng.randrange(1, 5)]:
            peer = Party(world, name, rng.choice([MQTT_5, MQTT_5, MQTT_3_1_1]))
            durable = rng.random() < 0.5
            expiry_s = 100 if durable and peer.version == MQTT_5 else None
            await peer.dialogue.connect(
                name, version=peer.version, clean_start=not durable, expiry_s=expiry_s
            )
            peers.append(peer)
        lines = Lines(world, confirm=False)
        lines.says("SUBSCRIBE nothing line")  # Its session is open from here on.
        lined: list[int] = []
        line_retained: set[int] = set()
        await world.settled()
        for _ in range(ROUNDS):
            model.wanting.clear()
            for peer in peers:
                peer.retained.clear()
            changed: dict[tuple[str, str], int] = defaultdict(int)
            retained_before: dict[str, int] = dict(model.retained)
            for _ in range(rng.randrange(1, 8)):
                if rng.random() < 0.3:
                    world.disk.may_commit.clear()
                elif rng.random() < 0.5:
                    world.disk.may_commit.set()
                if rng.random() < 0.15:
                    topic_filter = rng.choice(FILTERS)
                    if topic_filter in model.subscribed["line"]:
                        lines.says(f"UNSUBSCRIBE {topic_filter} line")
                        model.subscribed["line"].pop(topic_filter)
                    else:
                        lines.says(f"SUBSCRIBE {topic_filter} line")
                        model.subscribe("line", topic_filter, 1, 1)
                    world.disk.may_commit.set()
                    await world.settled()  # One command at a time: the next waits for its answer.
                peer = rng.choice(peers)
                for _ in range(rng.randrange(1, 5)):
                    packet_id = peer.identifier()
                    if (choice := rng.random()) < 0.5:
                        number += 1
                        topic, qos = rng.choice(TOPICS), rng.randrange(3)
                        retain = rng.random() < 0.3
                        peer.sent[packet_id] = number
                        model.publish(number, topic, qos, retain=retain)
                        peer.writing.append(
                            Publish(
                                topic,
                                str(number).encode(),
                                qos,
                                retain,
                                dup=False,
                                packet_id=packet_id if qos else 0,
                            )
                        )
                        continue
                    topic_filter = rng.choice(FILTERS)
                    changed[peer.name, topic_filter] += 1
                    if choice < 0.8:
                        qos = rng.randrange(3)
                        handling = rng.randrange(3) if peer.version == MQTT_5 else 0
                        model.subscribe(peer.name, topic_filter, qos, handling)
                        request = SubscriptionRequest(topic_filter, qos, retain_handling=handling)
                        peer.writing.append(Subscribe(packet_id, [request]))
                    else:
                        model.unsubscribe(peer.name, packet_id, topic_filter)
                        peer.writing.append(Unsubscribe(packet_id, [topic_filter]))
                peer.write()
                for _ in range(rng.randrange(4) * rng.randrange(4)):
                    await asyncio.sleep(0)
            world.disk.may_commit.set()
            await everything_read(world, peers)
            lined += [int(line) for line in lines.written() if line.isdigit()]
            line_retained |= {
                value
                for client, _, matching in model.wanting
                if client == "line"
                for value in matching.values()
            }
            kept = {t for t, n in model.retained.items() if retained_before.get(t) == n}
            for peer in peers:
                assert by_topic(peer.live) == by_topic(model.live[peer.name])
                possible = {
                    (topic, value)
                    for client, _, matching in model.wanting
                    if client == peer.name
                    for topic, value in matching.items()
                }
                assert set(peer.retained) <= possible
                for client, topic_filter, matching in model.wanting:
                    if client == peer.name and changed[client, topic_filter] == 1:
                        for topic in kept & matching.keys():
                            assert (topic, matching[topic]) in peer.retained
        for peer in peers:
            for packet_id, count in peer.unsubacks.items():
                assert count >= model.before_unsuback[peer.name, packet_id]
            if peer.version == MQTT_5:
                for sent, nobody in peer.nobody.items():
                    assert nobody == model.unwanted[sent]
        live = {n for _, n, _ in model.live["line"]}
        assert live <= set(lined) <= live | line_retained


@pytest.mark.parametrize("block", range(4))
async def test_everything_counts_in_its_order_of_arrival(block: int) -> None:
    for seed in seeds(block, usual=40):
        try:
            await one_run(seed)
        except AssertionError as error:
            raise AssertionError(f"seed {seed}") from error
