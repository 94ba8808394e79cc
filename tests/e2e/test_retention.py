"""Retention of a real broker: who is told of what went, and what the commands show."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator

import pytest

from broker.mqtt.packets import Ack, PacketType, Publish
from cli.commands import log_trim
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.command_line import pubsub
from tests.support.raw_client import RawClient, connect_packet, publish_many
from tests.support.toml import Toml

RULES = Toml(
    '[{filter = "few/#", count = 3}, {filter = "small", bytes = "64kB"},'
    ' {filter = "#", age = "9d"}]'
)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = {"retention": RULES, "retention_interval_s": 0.1}
    with BrokerProcess(tmp_path_factory.mktemp("broker"), settings) as broker:
        yield broker
        assert broker.stop() == 0
    assert broker.complaints() == []


def offsets(broker: BrokerProcess, topic: str) -> list[int]:
    rows = broker.query("SELECT offset FROM history WHERE topic = ? ORDER BY offset", topic)
    return [offset for (offset,) in rows]


def test_a_rule_is_applied_to_its_topics(broker: BrokerProcess) -> None:
    publish_many(broker.port, "few/a", [b"%d" % n for n in range(500)], client_id="pub")
    publish_many(broker.port, "many", [b"%d" % n for n in range(50)], client_id="pub")
    wait_until(lambda: len(offsets(broker, "few/a")) == 3)
    assert len(offsets(broker, "many")) == 50
    left = broker.query("SELECT payload FROM history WHERE topic = 'few/a'")
    assert left == [(b"497",), (b"498",), (b"499",)]


def test_what_a_subscriber_missed_since_the_size_forced_it_is_told(broker: BrokerProcess) -> None:
    """P5: on the next PUBLISH that comes, and to who listens to the event."""
    with RawClient(broker.port) as subscriber:
        subscriber.connect(connect_packet("missing", durable=True))
        subscriber.subscribe("small", 1)
    with RawClient(broker.port) as operator:
        operator.connect(connect_packet("operator"))
        operator.subscribe("$SYS/broker/gaps", 0)
        publish_many(broker.port, "small", [b"x" * 1000 for _ in range(300)], client_id="pub")
        wait_until(lambda: len(offsets(broker, "small")) <= 61)
        event = json.loads(operator.expect(Publish).payload)
    assert event["subscribers"] == ["missing"]
    left = offsets(broker, "small")
    assert broker.stop() == 0  # Or it would get the newest from memory.
    broker.start()
    with RawClient(broker.port) as subscriber:
        subscriber.connect(connect_packet("missing", durable=True))
        first = subscriber.expect(Publish)
        told = f"{left[0] - (300 - len(left))}-{left[0] - 1}".encode()
        assert first.properties == b"\x26\0\3gap" + len(told).to_bytes(2, "big") + told
        subscriber.send(Ack(PacketType.PUBACK, [first.packet_id]))
        for _ in left[1:]:
            publish = subscriber.expect(Publish)
            assert not publish.properties
            subscriber.send(Ack(PacketType.PUBACK, [publish.packet_id]))


def test_the_examples_of_trim_work_beside_a_broker(broker: BrokerProcess) -> None:
    publish_many(broker.port, "debug/a", [b"%d" % n for n in range(50)], client_id="pub")
    before = len(offsets(broker, "debug/a"))
    for line in log_trim.EXAMPLES.splitlines():
        if line.startswith("  pubsub "):
            words = shlex.split(line)[1:]
            done = pubsub(*words, "--data-dir", broker.data_dir)
            assert (done.returncode, done.stderr) == (0, b""), line
            assert re.match(rb"\d+ messages? (would be )?removed before offset", done.stdout)
    assert len(offsets(broker, "debug/a")) == before
    done = pubsub("log", "trim", "--before", "-5", "debug/#", "-y", "--data-dir", broker.data_dir)
    assert done.stdout.startswith(b"45 messages removed")
    assert len(offsets(broker, "debug/a")) == 5
    done = pubsub("log", "trim", "--before", "5:7", "-y", "--data-dir", broker.data_dir)
    assert done.returncode == 2
    assert b"is a range" in done.stderr
