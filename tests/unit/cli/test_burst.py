"""BurstSocket: paho reads and writes memory, the kernel is asked for many packets at a time."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from cli.burst import BurstSocket


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
