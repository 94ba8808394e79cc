"""The broker is killed while retention removes: nothing is lost that stays, no offset is reused."""

from __future__ import annotations

import random
import time
from pathlib import Path

from broker.mqtt.packets import Ack, PacketType, Publish
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.raw_client import RawClient, connect_packet, publish_many
from tests.support.sqlite import problems
from tests.support.toml import Toml

KILLS = 5
RULES = Toml('[{filter = "gone", count = 0}, {filter = "kept", count = 0}]')


def test_kills_in_the_middle_of_passes(tmp_path: Path, seed: int) -> None:
    """P1, P2, P3: `sub1` is away all the time; what it is to get stays, whatever the rule says."""
    chance = random.Random(seed)
    expected: list[bytes] = []
    newest = 0
    settings = {"retention": RULES, "retention_interval_s": 0.1}
    with BrokerProcess(tmp_path, settings) as broker:
        with RawClient(broker.port) as subscriber:
            subscriber.connect(connect_packet("sub1", durable=True))
            subscriber.subscribe("kept", 1)
        for cycle in range(KILLS):
            for part in range(3):
                payloads = [b"%d/%d/%d" % (cycle, part, n) for n in range(600)]
                publish_many(broker.port, "gone", payloads, client_id="a")
                publish_many(broker.port, "kept", payloads[:50], client_id="b")
                expected += payloads[:50]
                [(last,)] = broker.query("SELECT max(offset) FROM messages")
                assert last > newest
                newest = last
            time.sleep(chance.uniform(0, 0.5))  # So that it is killed anywhere in a pass.
            broker.kill()
            assert problems(broker.data_dir / "pubsub.db") == []
            broker.start()
        wait_until(lambda: broker.query("SELECT count(*) FROM messages") == [(len(expected),)])
        got: list[bytes] = []
        with RawClient(broker.port) as subscriber:
            subscriber.connect(connect_packet("sub1", durable=True))
            while len(got) < len(expected):
                publish = subscriber.expect(Publish)
                got.append(publish.payload)
                subscriber.send(Ack(PacketType.PUBACK, [publish.packet_id]))
                assert not publish.properties
        assert got == expected
        wait_until(lambda: broker.query("SELECT count(*) FROM messages") == [(0,)])
        publish_many(broker.port, "other", [b"next"], client_id="c")
        [(last,)] = broker.query("SELECT max(offset) FROM messages")
        assert last > newest
        assert broker.stop() == 0
    assert problems(broker.data_dir / "pubsub.db", at_rest=True) == []
    assert broker.complaints() == []
