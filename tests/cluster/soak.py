"""Random faults for minutes: `make soak-cluster`. What it draws is repeated by its seed.

Three brokers on three nodes. Two publishers and a durable subscriber go from broker to broker when
theirs is gone, while nodes and brokers are killed and paused, one thing at a time. In the end all
that was acknowledged is at every broker, in its publisher's order, and the subscriber got it.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path

from broker.mqtt.packets import Ack, Disconnect, PacketType, Publish
from tests.support.broker_process import BrokerProcess, listens, wait_until
from tests.support.nodes import Nodes, broker_on, new_log, running_nodes
from tests.support.raw_client import RawClient, connect_packet
from tests.support.shared import rows

BROKERS = 3
AT_ONCE = 20
CALM_S = (2.0, 8.0)
"""Between two faults."""
HURT_S = (1.0, 12.0)
"""How long one lasts: some are taken for dead meanwhile."""
END_S = 120.0
TIMEOUT_S = 15.0
"""Without an answer a client goes elsewhere."""


class Wandering(threading.Thread):
    """A client that goes to another broker whenever anything is not as it should be."""

    def __init__(self, name: str, ports: list[int], seed: int) -> None:
        super().__init__(name=name)
        self.ports = ports
        self.random = random.Random(f"{seed} {name}")
        self.over = threading.Event()
        self.connections = 0

    def run(self) -> None:
        while not self.over.is_set():
            with suppress(OSError, AssertionError), RawClient(self.random.choice(self.ports)) as it:
                it.socket.settimeout(TIMEOUT_S)
                assert it.connect(connect_packet(self.name, durable=True)).reason_code == 0
                self.connections += 1
                self.serve(it)
            self.over.wait(0.2)

    def serve(self, client: RawClient) -> None:
        raise NotImplementedError


class Sender(Wandering):
    def __init__(self, name: str, ports: list[int], seed: int) -> None:
        super().__init__(name, ports, seed)
        self.acknowledged = 0
        """So many, by their numbers."""

    def serve(self, client: RawClient) -> None:
        while not self.over.is_set():
            numbers = range(self.acknowledged, self.acknowledged + AT_ONCE)
            client.publish_all(f"soak/{self.name}", [b"%d" % number for number in numbers])
            self.acknowledged += AT_ONCE


class Receiver(Wandering):
    def __init__(self, name: str, ports: list[int], seed: int) -> None:
        super().__init__(name, ports, seed)
        self.got: dict[str, set[int]] = {}
        self.subscribed = threading.Event()

    def serve(self, client: RawClient) -> None:
        if not self.subscribed.is_set():
            client.subscribe("soak/#", 1)
            self.subscribed.set()
        while not self.over.is_set():
            packet = client.receive()
            assert packet is not None
            assert not isinstance(packet, Disconnect)
            if isinstance(packet, Publish):
                self.got.setdefault(packet.topic, set()).add(int(packet.payload))
                client.send(Ack(PacketType.PUBACK, [packet.packet_id]))


class Faults:
    def __init__(self, nodes: Nodes, brokers: list[BrokerProcess], seed: int) -> None:
        self.nodes, self.brokers = nodes, brokers
        self.random = random.Random(seed)

    def one(self) -> None:
        happens: Callable[[float], None] = self.random.choice(
            [self.node_killed, self.node_paused, self.broker_killed, self.broker_paused]
        )
        seconds = self.random.uniform(*HURT_S)
        print(f"{happens.__name__} for {seconds:.1f} s", flush=True)
        happens(seconds)

    def node_killed(self, seconds: float) -> None:
        node = self.random.randrange(3)
        self.nodes.kill(node)
        time.sleep(seconds)
        self.nodes.start_one(node)

    def node_paused(self, seconds: float) -> None:
        node = self.random.randrange(3)
        self.nodes.pause(node)
        time.sleep(seconds)
        self.nodes.go_on(node)

    def broker_killed(self, seconds: float) -> None:
        broker = self.random.choice(self.brokers)
        broker.kill()
        time.sleep(seconds)
        started(broker)

    def broker_paused(self, seconds: float) -> None:
        broker = self.random.choice(self.brokers)
        with broker.suspended():
            time.sleep(seconds)
        time.sleep(3)  # It hears with its next append whether it was taken for dead.
        if not listens(broker.port):
            started(broker)


def started(broker: BrokerProcess) -> None:
    """As a service manager does it: again, if it ends while the log has no leader."""
    deadline = time.monotonic() + END_S
    while time.monotonic() < deadline:
        process = broker.begin()
        while process.poll() is None:
            if listens(broker.port):
                return
            time.sleep(0.1)
    raise AssertionError(f"{broker.data_dir} does not start")


def soak(directory: Path, seed: int, seconds: float) -> None:
    with ExitStack() as stack:
        nodes = stack.enter_context(running_nodes(directory))
        log = asyncio.run(new_log(nodes))
        brokers = [broker_on(log, directory, f"b{n}") for n in range(BROKERS)]
        for broker in brokers:
            stack.enter_context(broker)
        ports = [broker.port for broker in brokers]
        senders = [Sender(f"p{n}", ports, seed) for n in range(2)]
        receiver = Receiver("s", ports, seed)
        clients: list[Wandering] = [receiver, *senders]
        for client in clients:
            stack.callback(client.over.set)
            client.start()
            assert receiver.subscribed.wait(END_S)
        faults, end = Faults(nodes, brokers, seed), time.monotonic() + seconds
        while time.monotonic() < end:
            time.sleep(faults.random.uniform(*CALM_S))
            faults.one()
        judge(brokers, senders, receiver)


def judge(brokers: list[BrokerProcess], senders: list[Sender], receiver: Receiver) -> None:
    before = [sender.acknowledged for sender in senders]
    for sender, count in zip(senders, before, strict=True):
        wait_until(lambda p=sender, c=count: p.acknowledged > c, timeout_s=END_S)  # type: ignore[misc]
        sender.over.set()
        sender.join()
    for sender in senders:
        topic, sent = f"soak/{sender.name}", set(range(sender.acknowledged))
        wait_until(lambda t=topic, s=sent: s <= receiver.got.get(t, set()), timeout_s=END_S)  # type: ignore[misc]
        for broker in brokers:
            wait_until(lambda b=broker, t=topic, s=sent: s <= {*logged(b, t)}, timeout_s=END_S)  # type: ignore[misc]
            first = [*dict.fromkeys(logged(broker, topic))]
            assert first == sorted(first), f"{topic} is out of order at {broker.data_dir}"
        print(f"{topic}: {len(sent)} acknowledged by {sender.connections} connections")
    receiver.over.set()
    receiver.join()
    for broker in brokers:
        broker.kill()
    copies = [rows(broker.data_dir / "pubsub.db") for broker in brokers]
    for name in ("messages", "topics", "publishers", "retained"):
        assert all(copy[name] == copies[0][name] for copy in copies), name


def logged(broker: BrokerProcess, topic: str) -> list[int]:
    found = "SELECT payload FROM history WHERE topic = ? ORDER BY offset"
    return [int(payload) for (payload,) in broker.query(found, topic)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 30))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Nodes and brokers end with it.
    directory = Path(tempfile.mkdtemp(prefix="soak-"))
    print(f"data in {directory}/, which stays if something is wrong", flush=True)
    soak(directory, asked.seed, 60 * asked.minutes)
    shutil.rmtree(directory)
    print("all that was acknowledged is there")


if __name__ == "__main__":
    main()
