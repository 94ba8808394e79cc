"""BurstSocket: paho reads and writes memory, the kernel is asked for many packets at a time."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from cli.net.address import Address, Tls
from cli.net.burst import BurstSocket, burst_of
from tests.support.certificates import Network
from tests.support.tls_server import TlsServer


@pytest.fixture
def ends() -> Iterator[tuple[BurstSocket, socket.socket]]:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        inner = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    with closing(BurstSocket(inner)) as burst, other:
        burst.setblocking(False)
        yield burst, other


def test_a_burst_is_read_from_memory_and_its_end_is_an_empty_read(
    ends: tuple[BurstSocket, socket.socket],
) -> None:
    burst, other = ends
    burst.setblocking(True)
    other.sendall(b"abc")
    burst.fill()
    assert (burst.recv(1), burst.recv(9)) == (b"a", b"bc")
    with pytest.raises(BlockingIOError):
        burst.recv(1)
    other.close()
    burst.fill()
    assert burst.pending()
    assert burst.recv(1) == b""


def test_a_burst_that_is_not_there_yet_is_not_waited_for(
    ends: tuple[BurstSocket, socket.socket],
) -> None:
    burst, _ = ends
    burst.fill()
    assert not burst.pending()


def test_half_a_packet_is_kept_before_the_next_burst(
    ends: tuple[BurstSocket, socket.socket],
) -> None:
    burst, other = ends
    burst.setblocking(True)
    other.sendall(b"abc")
    burst.fill()
    assert burst.recv(1) == b"a"
    other.sendall(b"d")
    burst.fill()
    assert burst.recv(9) == b"bcd"


def test_what_is_written_leaves_with_a_flush_as_far_as_the_kernel_takes_it(
    ends: tuple[BurstSocket, socket.socket],
) -> None:
    burst, other = ends
    data = bytes(range(256)) * (1 << 15)
    assert burst.send(data) == len(data)
    assert len(burst.unsent) == len(data)
    received = bytearray()
    burst.flush()
    assert 0 < len(burst.unsent) < len(data)
    while len(received) < len(data):
        received += other.recv(1 << 20)
        burst.flush()
    assert received == data
    assert not burst.unsent


def test_close_sends_what_waits_and_reads_to_the_end(
    ends: tuple[BurstSocket, socket.socket],
) -> None:
    burst, other = ends
    other.sendall(b"unread")
    other.shutdown(socket.SHUT_WR)
    burst.send(b"last")
    burst.close()
    assert other.recv(9) == b"last"
    assert other.recv(9) == b""


@pytest.mark.long
def test_all_that_tls_has_is_read_record_by_record(tmp_path: Path) -> None:
    """Of what it has decrypted, `select` would not tell."""
    network = Network(tmp_path)
    data = bytes(range(256)) * 1024
    with closing(TlsServer(network.server, answer=data)) as server:
        address = Address(port=server.port, tls=Tls(cafile=network.ca))
        connected = socket.create_connection(("127.0.0.1", server.port))
        with closing(burst_of(address, connected, 5)) as burst:
            burst.setblocking(False)
            burst.send(b"go")
            burst.flush()
            received = b""
            while len(received) < len(data):
                assert select.select([burst], [], [], 5)[0], f"only {len(received)} bytes came"
                burst.fill()
                received += burst.recv(1 << 20) if burst.pending() else b""
            assert received == data


@pytest.mark.long
def test_what_tls_does_not_take_at_once_is_sent_later_once(tmp_path: Path) -> None:
    network = Network(tmp_path)
    data = bytes(range(251)) * (1 << 16)
    with closing(TlsServer(network.server)) as server:
        address = Address(port=server.port, tls=Tls(cafile=network.ca))
        connected = socket.create_connection(("127.0.0.1", server.port))
        with closing(burst_of(address, connected, 5)) as burst:
            burst.setblocking(False)
            burst.send(b"go")
            burst.flush()
            while not server.connections:
                select.select([burst], [], [], 0.01)
                burst.fill()
            (other,) = server.connections
            other.settimeout(0.01)
            burst.send(data)
            received = bytearray()
            while len(received) < len(data):
                burst.flush()
                with suppress(TimeoutError):
                    received += other.recv(1 << 16)
            assert received == data
            assert not burst.unsent


def test_an_alert_of_tls_to_a_plain_client_ends_it(
    ends: tuple[BurstSocket, socket.socket],
) -> None:
    """In MQTT it would be the beginning of a CONNECT, of which the rest never comes."""
    burst, other = ends
    burst.setblocking(True)
    other.sendall(bytes.fromhex("15 03 01 00 02 02 46"))
    burst.fill()
    assert burst.pending()
    assert burst.recv(1) == b""
