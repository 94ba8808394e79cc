"""Kill the broker while messages wait to be due, and while they are sent again under their keys."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

from broker.config import DATABASE
from broker.mqtt.packets import Ack, Publish
from broker.mqtt.properties import Property, write_properties
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.raw_client import RawClient, connect_packet
from tests.support.sqlite import problems

MESSAGES = 40
DEDUP = '[[dedup]]\nfilter = "once/#"\nwindow = "1h"\n'


def publish(number: int, packet_id: int) -> Publish:
    """Every second one is delayed; all have a key."""
    topic = "once/now" if number % 2 else "$delayed/1/once/later"
    key = write_properties({Property.USER_PROPERTY: [("dedup-key", str(number))]})[1:]
    return Publish(topic, str(number).encode(), 1, False, False, packet_id, key)


def send_some(port: int, numbers: list[int], source: random.Random) -> set[int]:
    """Send these, and read acknowledgements until enough is enough. Which were acknowledged."""
    acknowledged: set[int] = set()
    with RawClient(port) as client:
        client.connect(connect_packet("p"))
        client.send(*[publish(number, at) for at, number in enumerate(numbers, 1)])
        for _ in range(source.randint(0, len(numbers))):
            ack = client.expect(Ack)
            assert ack.reason_code < 0x80
            acknowledged.update(numbers[packet_id - 1] for packet_id in ack.packet_ids)
    return acknowledged


def test_each_message_comes_once_whatever_is_killed(tmp_path: Path, seed: int, cycles: int) -> None:
    source = random.Random(seed)
    config = tmp_path / "dedup.toml"
    config.write_text(DEDUP)
    acknowledged: set[int] = set()
    last = 0
    with BrokerProcess(tmp_path) as broker:
        broker.kill()
        broker.start("--config", str(config))
        for _ in range(cycles // 2):
            again = [number for number in range(1, last + 1) if source.random() < 0.3]
            new = list(range(last + 1, last + MESSAGES + 1))
            last += MESSAGES
            acknowledged |= send_some(broker.port, [*again, *new], source)
            broker.kill()
            assert problems(broker.data_dir / DATABASE) == []
            broker.start("--config", str(config))
        everything = range(1, last + 1)
        while missing := [number for number in everything if number not in acknowledged][:1000]:
            acknowledged |= send_some(broker.port, missing, source)

        def came() -> bool:
            return broker.query("SELECT 1 FROM delayed") == []

        wait_until(came)
        copies = Counter(payload for (payload,) in broker.query("SELECT payload FROM history"))
        assert broker.stop() == 0
    assert copies == {str(number).encode(): 1 for number in everything}
