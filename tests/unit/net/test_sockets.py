"""What the kernel says of a socket, with a loop's own transport around it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator

import pytest

from broker.net.sockets import (
    HAS_QUICK_ACK,
    TELLS_ARRIVAL,
    acknowledge_at_once,
    has_arrived,
    has_left,
    has_unread_bytes,
    is_gone,
    probe,
)

Ends = tuple[asyncio.Transport, socket.socket]


@pytest.fixture
async def ends() -> AsyncIterator[Ends]:
    """Of a TCP connection: a transport that does not read, and the peer's socket."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        theirs = socket.create_connection(server.getsockname())
        ours, _ = server.accept()
    transport, _ = await asyncio.get_running_loop().create_connection(asyncio.Protocol, sock=ours)
    transport.pause_reading()
    with theirs:
        yield transport, theirs
    transport.abort()
    await asyncio.sleep(0)


async def test_bytes_that_nobody_read_are_seen(ends: Ends) -> None:
    transport, theirs = ends
    assert not has_unread_bytes(transport)
    theirs.send(b"x")
    assert has_unread_bytes(transport)


async def test_the_end_of_a_peers_bytes_is_no_byte(ends: Ends) -> None:
    transport, theirs = ends
    theirs.shutdown(socket.SHUT_WR)
    assert not has_unread_bytes(transport)


async def test_a_connection_that_is_closing_is_left_alone(ends: Ends) -> None:
    transport, theirs = ends
    theirs.send(b"x")
    transport.abort()
    assert not has_unread_bytes(transport)
    acknowledge_at_once(transport)


@pytest.mark.skipif(not HAS_QUICK_ACK, reason="only Linux has the option")
async def test_the_kernel_is_told_to_acknowledge(ends: Ends) -> None:
    transport, theirs = ends
    ours = transport.get_extra_info("socket")
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 0)
    theirs.send(b"x")
    acknowledge_at_once(transport)
    assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK) == 1


@pytest.mark.skipif(not TELLS_ARRIVAL, reason="only Linux tells what has arrived")
@pytest.mark.parametrize("gone", [False, True])
async def test_what_has_arrived_is_told_from_what_nobody_reads(ends: Ends, gone: bool) -> None:
    """Both have ended their side. One is there to read."""
    transport, theirs = ends
    theirs.close() if gone else theirs.shutdown(socket.SHUT_WR)
    probe(transport)
    assert not is_gone(transport)
    transport.write(b"x")
    while not (has_arrived(transport) or is_gone(transport)):  # noqa: ASYNC110  the kernel has no event
        await asyncio.sleep(0.01)
    assert is_gone(transport) == gone
    assert has_arrived(transport) != gone


async def test_a_connection_that_is_closing_is_gone(ends: Ends) -> None:
    transport, _ = ends
    transport.abort()
    assert is_gone(transport)
    assert not has_arrived(transport)


@pytest.mark.skipif(not TELLS_ARRIVAL, reason="only Linux tells that a peer has ended its side")
@pytest.mark.parametrize(
    ("last", "left"), [(b"", True), (b"\xe0\0", True), (b"\x30\3\0\1t", False)]
)
async def test_who_has_ended_its_side_has_left_if_it_said_no_more(
    ends: Ends, last: bytes, left: bool
) -> None:
    transport, theirs = ends
    theirs.sendall(last)
    assert not has_left(transport, farewell_bytes=2)
    theirs.shutdown(socket.SHUT_WR)
    assert has_left(transport, farewell_bytes=2) == left
    transport.abort()
    assert has_left(transport, farewell_bytes=0)
