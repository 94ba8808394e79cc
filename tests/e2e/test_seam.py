"""History and what is live meet while others publish: nothing is missing, nothing comes twice."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pytest

from broker.mqtt.packets import (
    Ack,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    UserProperties,
)
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.raw_client import RawClient, connect_packet

NUMBERS = range(6000)
PART = 100
"""Messages in one write, all acknowledged before the next."""


class Publishing:
    """Publishes NUMBERS in a thread; the first quarter before it is returned from `__init__`."""

    def __init__(self, port: int, topic: str) -> None:
        self._topic = topic
        self._wire = RawClient(port)
        self._wire.connect(connect_packet(f"{topic}-pub"))
        quarter = len(NUMBERS) // 4
        self._publish(NUMBERS[:quarter])
        self._thread = threading.Thread(target=self._publish, args=(NUMBERS[quarter:],))
        self._thread.start()

    def _publish(self, numbers: Sequence[int]) -> None:
        for start in range(0, len(numbers), PART):
            part = numbers[start : start + PART]
            self._wire.publish_all(self._topic, [b"%d" % number for number in part])

    def join(self) -> None:
        self._thread.join()
        self._wire.socket.close()


@pytest.fixture
def publishing(broker: BrokerProcess, name: str) -> Iterator[Publishing]:
    publishing = Publishing(broker.port, name)
    yield publishing
    publishing.join()


def subscribe(client: RawClient, filter: str, qos: int, user: UserProperties) -> None:
    """The SUBACK comes before, between or after the first messages."""
    client.send(Subscribe(9999, [SubscriptionRequest(filter, qos)], None, user))


def next_number(client: RawClient) -> int:
    """Of the next message, which is acknowledged."""
    packet = client.receive()
    if isinstance(packet, Suback):
        packet = client.receive()
    assert isinstance(packet, Publish), packet
    if packet.qos:
        client.send(Ack(PacketType.PUBACK, [packet.packet_id]))
    return int(packet.payload)


@pytest.mark.parametrize("qos", [0, 1])
def test_a_replay_goes_over_into_live(
    broker: BrokerProcess, publishing: Publishing, name: str, qos: int
) -> None:
    with RawClient(broker.port) as client:
        client.connect(connect_packet(name))
        subscribe(client, name, qos, [("from", "earliest")])
        assert [next_number(client) for _ in NUMBERS] == [*NUMBERS]


def test_a_replay_beside_a_live_subscription(
    broker: BrokerProcess, publishing: Publishing, name: str
) -> None:
    """Both match: what is live comes once by each until the replay has caught up, then once."""
    with RawClient(broker.port) as client:
        client.connect(connect_packet(name))
        subscribe(client, f"{name}/#", 0, [])
        subscribe(client, name, 1, [("from", "earliest")])
        live: list[int] = []
        replayed: list[int] = []
        while not replayed or replayed[-1] != NUMBERS[-1]:
            packet = client.receive()
            if not isinstance(packet, Publish):
                assert isinstance(packet, Suback)
            elif packet.qos:
                client.send(Ack(PacketType.PUBACK, [packet.packet_id]))
                replayed.append(int(packet.payload))
            else:
                live.append(int(packet.payload))
    assert replayed == [*NUMBERS]
    assert live == sorted(set(live))


def test_a_session_that_comes_back_again_and_again(
    broker: BrokerProcess, publishing: Publishing, name: str
) -> None:
    """It leaves in order whenever it has taken some more."""
    connect = connect_packet(name, durable=True)
    got: list[int] = []
    with RawClient(broker.port) as client:
        client.connect(connect)
        subscribe(client, name, 1, [("from", "earliest")])
        got += [next_number(client) for _ in range(100)]
    while len(got) < len(NUMBERS):
        with RawClient(broker.port) as client:
            assert client.connect(replace(connect, receive_maximum=50)).session_present
            take = min(500, len(NUMBERS) - len(got))
            for _ in range(take):
                number = next_number(client)
                # What was on its way when the connection ended comes again.
                if not got or number > got[-1]:
                    got.append(number)
    assert got == [*NUMBERS]


def test_a_replay_goes_on_after_a_kill(own_broker: BrokerProcess, name: str) -> None:
    """Where it had got to is committed with the cursor."""
    connect = replace(connect_packet(name, durable=True), receive_maximum=10)
    with RawClient(own_broker.port) as publisher:
        publisher.connect(connect_packet(f"{name}-pub"))
        publisher.publish_all(name, [b"%d" % number for number in range(1000)])
    with RawClient(own_broker.port) as client:
        client.connect(connect)
        subscribe(client, name, 1, [("from", "earliest")])
        first = [next_number(client) for _ in range(500)]
        assert first == [*range(500)]
        # Ten more are in flight, so all before them is acknowledged.
        wait_until(lambda: own_broker.query("SELECT start_offset FROM subscriptions") == [(510,)])
        own_broker.kill()
    own_broker.start()
    with RawClient(own_broker.port) as client:
        assert client.connect(connect).session_present
        rest = [next_number(client)]
        while rest[-1] != 999:
            rest.append(next_number(client))
    assert rest == [*range(500, 1000)]
