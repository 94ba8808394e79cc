"""What we ask the kernel of a socket, beside reading and writing."""

from __future__ import annotations

import array
import asyncio
import fcntl
import select
import socket
import sys
import termios

QUICK_ACK_BYTES_MAX = 64
"""After a read of at most this many bytes (a PUBACK) the kernel is told to send its TCP
acknowledgement at once. MQTT does not answer a PUBACK, and without an answer the kernel keeps the
acknowledgement back for 40 ms. A client with Nagle's algorithm on sends nothing meanwhile: its next
PUBLISH would wait that long."""
HAS_QUICK_ACK = hasattr(socket, "TCP_QUICKACK")
TELLS_ARRIVAL = sys.platform == "linux"
"""Whether TIOCOUTQ counts what the peer's system has not confirmed, as tcp(7) says."""
PROBE_S = 5
"""How often a peer that is silent and half closed is asked whether it is there; after three
questions without an answer it is not."""

_ENDED: int = getattr(select, "POLLRDHUP", 0)
"""Only Linux tells that the peer has ended its side."""


def acknowledge_at_once(transport: asyncio.Transport) -> None:
    """Send the TCP acknowledgement that the kernel keeps back, where `HAS_QUICK_ACK`.

    On a socket object of our own, as uvloop's duplicates the file for each call.
    """
    if transport.is_closing():
        return
    fileno = transport.get_extra_info("socket").fileno()
    tcp = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 0, fileno)
    try:
        tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    finally:
        tcp.detach()


def has_unread_bytes(transport: asyncio.Transport) -> bool:
    """Whether bytes have arrived that we did not read yet."""
    if transport.is_closing():
        return False
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0] > 0


def probe(transport: asyncio.Transport) -> None:
    """Have the kernel ask a silent TCP peer whether it is there."""
    ours = transport.get_extra_info("socket")
    if ours.family not in (socket.AF_INET, socket.AF_INET6):
        return
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, PROBE_S)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, PROBE_S)
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


def has_arrived(transport: asyncio.Transport) -> bool:
    """Whether the peer's kernel has all that was written. Only where `TELLS_ARRIVAL`."""
    if transport.is_closing() or transport.get_write_buffer_size():
        return False
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.TIOCOUTQ, count)
    return count[0] == 0


def is_gone(transport: asyncio.Transport) -> bool:
    """Whether the peer has closed both sides, was reset, or did not answer `probe`."""
    if transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), 0)
    return bool(poll.poll(0))  # POLLHUP, POLLERR


def has_left(transport: asyncio.Transport, farewell_bytes: int) -> bool:
    """Whether it `is_gone`, or the peer has ended its side, where the system tells, and not more
    than so many bytes of it are unread."""
    if transport.is_closing():
        return True
    poll = select.poll()
    poll.register(transport.get_extra_info("socket").fileno(), _ENDED)
    found = poll.poll(0)
    if not found:
        return False
    _, events = found[0]
    if events & (select.POLLHUP | select.POLLERR):
        return True
    count = array.array("i", [0])
    fcntl.ioctl(transport.get_extra_info("socket").fileno(), termios.FIONREAD, count)
    return count[0] <= farewell_bytes
