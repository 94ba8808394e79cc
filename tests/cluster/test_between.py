"""What one broker takes and another gives: the publisher at one, the subscriber at the other."""

from __future__ import annotations

import asyncio
import random
import select
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from broker.mqtt.properties import Property, property_section, user_properties
from broker.mqtt.reasons import ReasonCode
from tests.support.broker_process import ROOT, BrokerProcess, wait_until
from tests.support.nodes import Pair, broker_on, client_of, new_log, running_nodes
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import RawClient, connect_packet

RACES = 50
FLAPS_SEED = 7
MESSAGES = 60


@pytest.fixture(scope="module")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """The same for all: none of them is hurt."""
    directory = tmp_path_factory.mktemp("between")
    with running_nodes(directory) as nodes:
        log = asyncio.run(new_log(nodes))
        with broker_on(log, directory, "a") as a, broker_on(log, directory, "b") as b:
            yield a, b


def connected(broker: BrokerProcess, client_id: str, *, durable: bool = False) -> RawClient:
    client = client_of(broker)
    client.connect(connect_packet(client_id, durable=durable))
    return client


def pubsub(*words: str, at: BrokerProcess, given: str = "") -> str:
    command = [sys.executable, "-m", "cli.main", *words, "--data-dir", str(at.data_dir)]
    ran = subprocess.run(
        command, cwd=ROOT, input=given, capture_output=True, text=True, check=False
    )
    return ran.stdout + ran.stderr


def known_at(broker: BrokerProcess, payload: bytes) -> None:
    """What was published before this last message is there."""
    known = "SELECT 1 FROM history WHERE payload = ?"
    wait_until(lambda: bool(broker.query(known, payload)), timeout_s=PATIENCE_S)


def test_what_is_retained_at_one_is_sent_at_the_other_until_it_is_cleared_there(
    brokers: Pair,
) -> None:
    a, b = brokers
    with connected(a, "p") as publisher, connected(b, "s") as subscriber:
        publisher.send(Publish("kept/1", b"kept", 1, True, False, 1))
        assert publisher.expect(Ack).type == PacketType.PUBACK
        known_at(b, b"kept")
        subscriber.subscribe("other", 1)
        subscriber.send(Subscribe(9, [SubscriptionRequest("kept/#", 1)]))
        found = [subscriber.receive(), subscriber.receive()]
        (publish,) = [packet for packet in found if isinstance(packet, Publish)]
        assert (publish.payload, publish.retain) == (b"kept", True)
        subscriber.send(Publish("kept/1", b"", 1, True, False, 2))
        while not isinstance(packet := subscriber.receive(), Ack):
            assert isinstance(packet, Publish)
        retained = "SELECT 1 FROM retained_messages"
        wait_until(lambda: not a.query(retained), timeout_s=PATIENCE_S)


def test_expiry_and_properties_go_along(brokers: Pair) -> None:
    a, b = brokers
    with connected(a, "p") as publisher, connected(b, "s") as subscriber:
        subscriber.subscribe("props", 1)
        said: dict[int, Any] = {
            Property.USER_PROPERTY: [("who", "me")],
            Property.CONTENT_TYPE: "text/plain",
        }
        section = property_section(said, b"")[1:]
        publisher.send(Publish("props", b"x", 1, False, False, 1, section, 100))
        publish = subscriber.expect(Publish)
        assert user_properties(publish.properties) == [("who", "me")]
        assert publish.message_expiry_s is not None
        assert 90 < publish.message_expiry_s <= 100


def test_a_replay_at_one_of_what_is_published_at_the_other_has_no_seam(brokers: Pair) -> None:
    a, b = brokers
    payloads = [b"replayed %d" % n for n in range(400)]
    with connected(a, "p") as publisher, connected(b, "s") as subscriber:
        publisher.publish_all("replayed", payloads[:200])
        known_at(b, payloads[199])
        with ThreadPoolExecutor(1) as pool:
            publishing = pool.submit(publisher.publish_all, "replayed", payloads[200:])
            subscriber.send(Subscribe(3, [SubscriptionRequest("$replay/earliest/replayed", 0)]))
            got: list[bytes] = []
            while len(got) < len(payloads):
                if isinstance(packet := subscriber.receive(), Publish):
                    got.append(packet.payload)
            publishing.result()
    assert got == payloads


def test_of_two_connections_of_one_client_at_the_same_time_one_stays(brokers: Pair) -> None:
    """So often, and always: whoever came last, or both at once."""

    def connect(broker: BrokerProcess) -> RawClient:
        client = client_of(broker)
        client.send(connect_packet("raced", durable=True))
        return client

    stayed = [0, 0]
    with ThreadPoolExecutor(2) as pool:
        for _ in range(RACES):
            clients = [*pool.map(connect, brokers)]
            sockets = [client.socket for client in clients]
            over: list[int] = []
            while not over:
                readable, _, _ = select.select(sockets, [], [], PATIENCE_S)
                assert readable, "both stay"
                for number, client in enumerate(clients):
                    if client.socket in readable and has_ended(client):
                        over.append(number)
            assert len(over) == 1, "none stays"
            other = clients[1 - over[0]]
            other.send(Pingreq())
            while not isinstance(packet := other.receive(), Pingresp):
                assert isinstance(packet, Connack | Publish), "none stays"
            stayed[1 - over[0]] += 1
            for client in clients:
                client.socket.close()
    print(f"stayed at each: {stayed}")


def has_ended(client: RawClient) -> bool:
    """Whether what has come ends the connection."""
    with suppress(ConnectionResetError):
        packet = client.receive()
        return packet is None or isinstance(packet, Disconnect)
    return True


class Flapping:
    """A client that publishes and subscribes at QoS 2, and goes to another broker again and again
    without a word, at any moment between two packets."""

    def __init__(self, brokers: Pair, seed: int) -> None:
        self.random = random.Random(seed)
        self.brokers = brokers
        self.moves = 0
        self.got: list[bytes] = []
        self.received: set[int] = set()
        self.to_send = [b"out %d" % n for n in range(MESSAGES)]
        self.released = False
        """Whether PUBREC came for the first of `to_send`."""
        self.client: RawClient | None = None

    def connect(self) -> None:
        if self.client is not None:
            self.client.socket.close()
        self.client = client_of(self.random.choice(self.brokers))
        connack = self.client.connect(Connect(MQTT_5, "flapping", False, 60, session_expiry_s=3600))
        assert connack.session_present or not self.moves
        if not self.moves:
            self.client.send(Subscribe(77, [SubscriptionRequest("in", 2)]))
        self.moves += 1
        self.go_on(dup=self.moves > 1)

    def go_on(self, *, dup: bool) -> None:
        assert self.client is not None
        if self.to_send and self.released:
            self.client.send(Ack(PacketType.PUBREL, [5]))
        elif self.to_send:
            self.client.send(Publish("out", self.to_send[0], 2, False, dup, 5))

    def run(self) -> None:
        self.connect()
        while self.to_send or len(self.got) < MESSAGES or self.received:
            if self.random.random() < 0.1:
                self.connect()
            assert self.client is not None
            packet = self.client.receive()
            assert packet is not None
            if self.random.random() < 0.1:
                self.connect()  # As if it had not come.
            else:
                self.obey(packet)
        assert self.client is not None
        self.client.socket.close()

    def obey(self, packet: object) -> None:
        assert self.client is not None
        match packet:
            case Publish():
                if packet.packet_id not in self.received:
                    self.received.add(packet.packet_id)
                    self.got.append(packet.payload)
                self.client.send(Ack(PacketType.PUBREC, [packet.packet_id]))
            case Ack(type=PacketType.PUBREL):
                self.received -= {*packet.packet_ids}
                self.client.send(Ack(PacketType.PUBCOMP, packet.packet_ids))
            case Ack(type=PacketType.PUBREC):
                self.released = True
                self.go_on(dup=False)
            case Ack(type=PacketType.PUBCOMP) if self.released:
                self.released = False
                del self.to_send[0]
                self.go_on(dup=False)


def test_qos_2_is_once_in_both_directions_while_its_client_flaps(brokers: Pair) -> None:
    a, b = brokers
    flapping = Flapping(brokers, FLAPS_SEED)
    incoming = [b"in %d" % n for n in range(MESSAGES)]
    with connected(b, "p") as publisher, ThreadPoolExecutor(1) as pool:
        subscribed = "SELECT 1 FROM subscriptions WHERE client_id = 'flapping'"
        running = pool.submit(flapping.run)
        wait_until(lambda: bool(b.query(subscribed)), timeout_s=PATIENCE_S)
        publisher.publish_all("in", incoming, qos=2)
        running.result(4 * PATIENCE_S)
    print(f"{flapping.moves} connections")
    assert flapping.moves > 10
    assert flapping.got == incoming
    sent = [b"out %d" % n for n in range(MESSAGES)]
    for broker in (a, b):
        known_at(broker, sent[-1])
        rows = broker.query("SELECT payload FROM history WHERE topic = 'out' ORDER BY offset")
        assert [bytes(payload) for (payload,) in rows] == sent


def test_commands_for_a_session_elsewhere(brokers: Pair) -> None:
    a, b = brokers
    with connected(a, "worked on", durable=True) as client:
        client.subscribe("work", 1)
        client.publish_all("work", [b"1", b"2"])
        known_at(b, b"2")
        said = pubsub("subscribers", "rm", "worked on", at=b)
        assert "give the command there" in said
        assert f"127.0.0.1:{a.port}" in said
        client.send(Disconnect())
        client.closed()
    said = pubsub("subscribers", "seek", "worked on", "--to", "earliest", at=b)
    assert "worked on" in said
    with connected(a, "worked on", durable=True) as client:
        assert {client.expect(Publish).payload for _ in range(2)} == {b"1", b"2"}
        client.send(Disconnect())
        client.closed()
    pubsub("subscribers", "rm", "worked on", at=b)
    with client_of(a) as client:
        assert not client.connect(connect_packet("worked on", durable=True)).session_present


def test_users_and_rules_of_one_are_in_force_at_the_other(brokers: Pair) -> None:
    a, b = brokers
    assert "u" in pubsub("user", "add", "u", "--password-stdin", at=a, given="secret\n")

    def login(password: bytes) -> int:
        with client_of(b) as client:
            connect = Connect(MQTT_5, "c", True, 60, username="u", password=password)
            return client.connect(connect).reason_code

    try:
        wait_until(lambda: login(b"wrong") == ReasonCode.BAD_USER_NAME_OR_PASSWORD)
        assert login(b"secret") == ReasonCode.SUCCESS
        pubsub("acl", "add", "u", "deny", "publish", "secret/#", at=a)

        def refused() -> bool:
            with client_of(b) as client:
                client.connect(Connect(MQTT_5, "c", True, 60, username="u", password=b"secret"))
                client.send(Publish("secret/1", b"", 1, False, False, 1))
                return client.expect(Ack).reason_code == ReasonCode.NOT_AUTHORIZED

        wait_until(refused)
    finally:
        pubsub("user", "rm", "u", at=b)
    with connected(a, "anybody"):
        pass
