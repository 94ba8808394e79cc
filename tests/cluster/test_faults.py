"""What happens to one broker, or to one node, beside others that are healthy."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.mqtt.packets import Ack, Disconnect, PacketType, Publish
from broker.store.shared.jetstream import JetStreamLog, look
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.failing_disk import FailingDisk
from tests.support.nodes import (
    Nodes,
    Pair,
    broker_on,
    client_of,
    new_log,
    remove_log,
    running_nodes,
)
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import connect_packet, publish_many
from tests.support.shared import rows

MANY = 3000


@pytest.fixture(scope="module")
def steady(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nodes]:
    """The same for all that leave them alone."""
    with running_nodes(tmp_path_factory.mktemp("nodes")) as nodes:
        yield nodes


@pytest.fixture
def calm(steady: Nodes) -> Iterator[JetStreamLog]:
    log = asyncio.run(new_log(steady))
    yield log
    asyncio.run(remove_log(log))


def published(broker: BrokerProcess, begin: int, end: int) -> None:
    for first in range(begin, end, 1000):
        payloads = [b"%d" % n for n in range(first, min(end, first + 1000))]
        publish_many(broker.port, "t", payloads, client_id="p")


def has_all(broker: BrokerProcess, count: int) -> None:
    def there() -> bool:
        return broker.query("SELECT count(*) FROM history WHERE topic = 't'") == [(count,)]

    wait_until(there, timeout_s=PATIENCE_S)


def copies_are_equal(*brokers: BrokerProcess) -> None:
    """In messages; sessions that have just ended need not have ended in all."""
    for broker in brokers:
        broker.kill()
    first, *others = [rows(broker.data_dir / "pubsub.db") for broker in brokers]
    for name in ("messages", "topics", "publishers", "retained"):
        assert all(other[name] == first[name] for other in others), name


def test_a_copy_that_was_lost_or_is_old_is_made_anew_and_caught_up(
    calm: JetStreamLog, tmp_path: Path
) -> None:
    with broker_on(calm, tmp_path, "a") as a, broker_on(calm, tmp_path, "b") as b:
        goes_on_with_other_copies(a, b, tmp_path / "last week")


def goes_on_with_other_copies(a: BrokerProcess, b: BrokerProcess, last_week: Path) -> None:
    published(a, 0, 1000)
    has_all(b, 1000)
    assert b.stop() == 0
    shutil.copytree(b.data_dir, last_week, ignore=shutil.ignore_patterns("*.sock"))
    b.start()
    published(b, 1000, 2000)
    has_all(a, 2000)
    b.kill()
    shutil.rmtree(b.data_dir)
    b.start()
    has_all(b, 2000)
    b.kill()
    shutil.rmtree(b.data_dir)
    shutil.copytree(last_week, b.data_dir)
    b.start()
    published(b, 2000, 2100)
    has_all(a, 2100)
    has_all(b, 2100)
    copies_are_equal(a, b)


@pytest.mark.parametrize("state", ["full", "fail", "stall"])
def test_the_disk_of_one_broker_does_not_hurt_another(
    calm: JetStreamLog, tmp_path: Path, state: str
) -> None:
    """Its clients go on at the other; when it has a disk again it has all, maybe after a start."""
    disk = FailingDisk(tmp_path / "b", tmp_path)
    with (
        broker_on(calm, tmp_path, "a") as a,
        broker_on(calm, tmp_path, "b", environment=disk.environment) as b,
        client_of(b) as client,
    ):
        client.connect(connect_packet("x", durable=True))
        client.subscribe("t", 1)
        published(a, 0, 10)
        has_all(b, 10)
        disk.become(state)
        published(a, 10, 1000)
        with client_of(a) as moved:
            assert moved.connect(connect_packet("x", durable=True)).session_present
            got: set[bytes] = set()
            while len(got) < 1000:
                publish = moved.expect(Publish)
                got.add(publish.payload)
                moved.send(Ack(PacketType.PUBACK, [publish.packet_id]))
            moved.send(Disconnect())
        disk.become("fine")
        if state != "full":
            b.kill()
            b.start()
        has_all(b, 1000)
        copies_are_equal(a, b)


def test_a_broker_starts_though_a_node_is_killed_meanwhile(
    nodes: Nodes,
    log: JetStreamLog,
    brokers: Pair,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It waits until the others have a leader."""
    monkeypatch.setattr("tests.support.broker_process.START_TIMEOUT_S", PATIENCE_S)
    a, b = brokers
    published(a, 0, MANY)
    new = broker_on(log, tmp_path, "c")
    killing = threading.Timer(1.0, nodes.kill, [leader_of(log)])
    killing.start()
    with new:
        has_all(new, MANY)
        killing.join()
        published(new, MANY, MANY + 10)
        for broker in (a, b, new):
            has_all(broker, MANY + 10)
        copies_are_equal(a, b, new)


def leader_of(log: JetStreamLog) -> int:
    found = asyncio.run(look(log.servers, log.name))
    (leader,) = [int(node.name[1:]) for node in found.nodes if node.leads]
    return leader


def wipe(directory: Path) -> None:
    shutil.rmtree(directory)


def damage(directory: Path) -> None:
    """A byte in each block of its messages."""
    for path in directory.rglob("*.blk"):
        content = bytearray(path.read_bytes())
        if content:
            content[len(content) // 2] ^= 0xFF
            path.write_bytes(content)


@pytest.mark.parametrize("happens", [wipe, damage])
def test_a_replica_is_whole_again_when_others_have_what_it_lost(
    nodes: Nodes, log: JetStreamLog, brokers: Pair, tmp_path: Path, happens: Callable[[Path], None]
) -> None:
    """Then another node may be lost. A broker that is new has all from what is left."""
    a, b = brokers
    published(a, 0, MANY)
    leader = leader_of(log)
    hurt = (leader + 1) % 3
    nodes.kill(hurt)
    happens(tmp_path / f"n{hurt}")
    nodes.start_one(hurt)
    published(a, MANY, MANY + 100)

    def whole() -> bool:
        found = asyncio.run(look(log.servers, log.name))
        (node,) = [node for node in found.nodes if node.name == f"n{hurt}"]
        return node.current and not node.behind

    wait_until(whole, timeout_s=PATIENCE_S)
    nodes.kill(leader)
    published(b, MANY + 100, MANY + 200)
    with broker_on(log, tmp_path, "c") as new:
        has_all(new, MANY + 200)
        has_all(a, MANY + 200)
        copies_are_equal(a, b, new)
