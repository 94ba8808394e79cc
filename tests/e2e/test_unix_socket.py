"""The Unix socket: the same broker for this user alone."""

from __future__ import annotations

import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from broker.mqtt.packets import Pingreq, Pingresp
from tests.support.broker_process import ROOT, BrokerProcess
from tests.support.peers.paho import PahoPeer
from tests.support.peers.peer import Message, Options
from tests.support.raw_client import RawClient, connect_packet

USAGE = 2


class PahoOverUnix(PahoPeer):
    transport = "unix"
    path: ClassVar[Path]

    @property
    def host(self) -> str:  # type: ignore[override]  # What is an address over TCP is a path here.
        return str(self.path)


@pytest.fixture
def directory() -> Iterator[Path]:
    """One with a short name: the path of a Unix socket has at most 103 bytes."""
    directory = Path(tempfile.mkdtemp(prefix="pubsub-"))
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def path(directory: Path) -> Path:
    return directory / "mqtt.sock"


@pytest.mark.parametrize("version", [4, 5])
def test_a_client_over_the_unix_socket_and_one_over_tcp_meet(
    directory: Path, path: Path, version: int
) -> None:
    with BrokerProcess(directory, {"unix_socket": str(path)}) as broker:
        PahoOverUnix.path = path
        here = PahoOverUnix(broker.port, version, Options("here"))
        there = PahoPeer(broker.port, version, Options("there"))
        here.subscribe("topic")
        there.publish("topic", b"over TCP")
        here.publish("topic", b"over Unix", 2)
        assert here.receive_many(2) == [
            Message("topic", b"over TCP", 1),
            Message("topic", b"over Unix", 2),
        ]
        here.disconnect()
        there.disconnect()
    assert broker.complaints() == []


def test_the_line_protocol_is_there_too(directory: Path, path: Path) -> None:
    with BrokerProcess(directory, {"unix_socket": str(path)}), connected(path) as client:
        client.sendall(b"CONFIRM\n")
        assert client.recv(100) == b"OK\n"
        client.sendall(b"PUBLISH weather Rainy pub1\n")
        assert client.recv(100) == b"OK\n"


def test_only_its_user_may_open_it_and_it_is_gone_when_the_broker_stopped(
    directory: Path, path: Path
) -> None:
    with BrokerProcess(directory, {"unix_socket": str(path)}) as broker:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert broker.stop() == 0
        assert not path.exists()


def test_what_a_killed_broker_left_is_replaced(directory: Path, path: Path) -> None:
    with BrokerProcess(directory, {"unix_socket": str(path)}) as broker:
        broker.kill()
        assert path.is_socket()
        broker.start()
        connected(path).close()


def test_another_brokers_socket_is_left_alone(directory: Path, path: Path) -> None:
    with BrokerProcess(directory, {"unix_socket": str(path)}) as broker:
        assert "in use" in start_fails(directory / "other", path)
        with RawClient(broker.port) as client:
            client.connect(connect_packet("healthy"))
            client.send(Pingreq())
            client.expect(Pingresp)
        connected(path).close()


def test_a_file_that_is_no_socket_is_left_alone(directory: Path, path: Path) -> None:
    path.write_text("a letter")
    assert "is no socket" in start_fails(directory / "data", path)
    assert path.read_text() == "a letter"


def test_where_no_socket_can_be(directory: Path) -> None:
    path = directory / "none" / "mqtt.sock"
    said = start_fails(directory / "data", path)
    assert "unix_socket" in said
    assert str(path.parent) in said


def connected(path: Path) -> socket.socket:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    client.settimeout(5.0)
    client.connect(str(path))
    return client


def start_fails(data_dir: Path, path: Path) -> str:
    command = [sys.executable, "-m", "cli.main", "broker", "start", "--port", "0"]
    command += ["--data-dir", str(data_dir), "--unix-socket", str(path)]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )
    assert done.returncode == USAGE, done.stderr
    [said] = done.stderr.splitlines()
    return said
