"""Kill the broker while workers refuse messages: no attempt, retry or dead letter is lost."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

from broker.mqtt.packets import (
    Ack,
    Connect,
    PacketType,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from broker.topics import DEAD
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.command_line import succeed
from tests.support.raw_client import RawClient, connect_packet, publish_many
from tests.support.sqlite import problems

MESSAGES = 300
ATTEMPTS = 3
KILLS = 6
UNSPECIFIED_ERROR = 0x80
GROUP = "$share/workers/jobs/#"


class Workers:
    """Two, who refuse each tenth message always, and come again when the broker is back."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._broker = broker
        self.done: Counter[int] = Counter()
        self.refused: Counter[int] = Counter()
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(n,)) for n in range(2)]

    def __enter__(self) -> Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join(20)
            assert not thread.is_alive()

    def _run(self, number: int) -> None:
        while not self._ended.wait(0.05):
            try:
                with RawClient(self._broker.port) as client:
                    client.socket.settimeout(1)
                    self._work(client, number)
            except (OSError, AssertionError):  # The broker was killed.
                continue

    def _work(self, client: RawClient, number: int) -> None:
        client.connect(receive_maximum(connect_packet(f"worker{number}"), 8))
        client.send(Subscribe(1, [SubscriptionRequest(GROUP, 1)]))
        while not self._ended.is_set():
            try:
                packet = client.receive()
            except TimeoutError:
                continue
            if packet is None:
                return
            if isinstance(packet, Publish):
                job = int(packet.payload)
                poison = job % 10 == 0
                (self.refused if poison else self.done)[job] += 1
                code = UNSPECIFIED_ERROR if poison else 0
                client.send(Ack(PacketType.PUBACK, [packet.packet_id], code))


def receive_maximum(connect: Connect, most: int) -> Connect:
    connect.receive_maximum = most
    return connect


def test_a_queue_survives_kill_9(tmp_path: Path, seed: int) -> None:
    """P3 for each message: done, or a dead letter after all of its attempts, and told once."""
    source = random.Random(seed)
    with BrokerProcess(tmp_path) as broker:
        made = ["group", "create", "workers", "--filter", "jobs/#", "--attempts", str(ATTEMPTS)]
        succeed(*made, "--backoff", "50ms..200ms", "--data-dir", broker.data_dir)
        jobs = [*range(1, MESSAGES + 1)]
        publish_many(broker.port, "jobs/a", [b"%d" % n for n in jobs], client_id="publisher")
        with Workers(broker) as workers:
            for _ in range(KILLS):
                threading.Event().wait(source.uniform(0.05, 0.4))
                broker.kill()
                assert problems(broker.data_dir / "pubsub.db") == []
                broker.start()
            poison = [n for n in jobs if n % 10 == 0]

            def over() -> bool:
                (counts,) = broker.query(
                    "SELECT (SELECT count(*) FROM dead_letters), (SELECT count(*) FROM retries),"
                    " (SELECT count(*) FROM dead_notices)"
                )
                return counts == (len(poison), 0, 0) and len(workers.done) == MESSAGES - len(poison)

            wait_until(over, timeout_s=60)
        letters = broker.query("SELECT CAST(payload AS TEXT), attempts FROM dead ORDER BY offset")
        assert letters == [(str(n), ATTEMPTS) for n in poison]
        assert all(workers.refused[n] >= ATTEMPTS for n in poison)
        told = broker.query(
            "SELECT CAST(payload AS TEXT), count(*) FROM history WHERE topic = ? GROUP BY payload",
            f"{DEAD}/workers/jobs/a",
        )
        assert {*told} == {(str(n), 1) for n in poison}
        assert broker.stop() == 0
        assert succeed("check", "--data-dir", broker.data_dir)
    assert broker.complaints() == []
