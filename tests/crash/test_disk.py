"""The disk fails, stalls or is full: the broker ends in time, and says why in one sentence."""

from __future__ import annotations

import signal
import socket
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.config import DATABASE
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.failing_disk import FailingDisk

DRAIN_TIMEOUT_S = 0.2
MOST_S = DRAIN_TIMEOUT_S + 5
BUSY_MACHINE_S = 10.0


@pytest.fixture
def disk(tmp_path: Path) -> FailingDisk:
    return FailingDisk(tmp_path / "data", tmp_path)


@pytest.fixture
def broker(tmp_path: Path, disk: FailingDisk) -> Iterator[BrokerProcess]:
    broker = BrokerProcess(tmp_path, {"drain_timeout_s": DRAIN_TIMEOUT_S}, disk.environment)
    yield broker
    broker.__exit__(None, None, None)


def last_words(broker: BrokerProcess) -> str:
    said = broker.stderr.read_text()
    assert "Traceback" not in said
    return said.splitlines()[-1]


@pytest.mark.parametrize(
    ("state", "says"),
    [
        ("fail", "pubsub.db: Input/output error: the disk fails; the kernel's messages (dmesg)"),
        ("stall", "does not answer: the log was not closed"),
    ],
)
def test_a_disk_that_is_lost_ends_the_broker(
    state: str, says: str, broker: BrokerProcess, disk: FailingDisk
) -> None:
    broker.start()
    with socket.create_connection(("127.0.0.1", broker.port)) as publisher:
        publisher.sendall(b"CONFIRM\nPUBLISH t 1 p\n")
        wait_until(lambda: broker.query("SELECT count(*) FROM messages") == [(1,)])
        disk.become(state)
        publisher.sendall(b"PUBLISH t 2 p\n")
        begun = time.monotonic()
        assert broker.stop() == 74
    assert time.monotonic() - begun < MOST_S + BUSY_MACHINE_S
    assert says in last_words(broker)


def test_a_stop_while_another_program_has_the_log_locked_is_no_success(
    broker: BrokerProcess,
) -> None:
    """Nobody was told that the message is stored, and the log is whole."""
    broker.start()
    other = sqlite3.connect(broker.data_dir / DATABASE, isolation_level=None)
    with closing(other), socket.create_connection(("127.0.0.1", broker.port)) as publisher:
        other.execute("BEGIN IMMEDIATE")
        publisher.sendall(b"PUBLISH t 1 p\n")
        wait_until(lambda: "locked" in broker.stderr.read_text())
        assert broker.stop() == 1
        assert "the log did not take 1 message" in last_words(broker)
    broker.start()
    assert broker.query("SELECT count(*) FROM messages") == [(0,)]


@pytest.mark.parametrize(
    ("state", "code", "says"),
    [
        ("stall", 74, "the broker ends without its disk, which did not answer for 5.2 s"),
        ("fail", 74, "Input/output error: the disk fails"),
        ("full", 1, "no space left for the log"),
    ],
)
def test_a_disk_that_is_lost_at_the_start_ends_it(
    state: str, code: int, says: str, broker: BrokerProcess, disk: FailingDisk
) -> None:
    disk.become(state)
    process = broker.begin()
    if state == "stall":
        wait_until(broker.data_dir.exists)  # What it does next is to write there.
        process.send_signal(signal.SIGTERM)
    assert process.wait(MOST_S + BUSY_MACHINE_S) == code
    assert says in last_words(broker)
