"""What the kernel is asked about a socket beside reading and writing it."""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import termios

QUICK_ACK_BYTES_MAX = 64
"""A read of at most this, such as a PUBACK, is acknowledged to the peer's kernel at once. A PUBACK
gets no answer, and without one the kernel keeps its TCP acknowledgement back for 40 ms. A client
with Nagle's algorithm on sends nothing meanwhile, so its next PUBLISH would wait that long."""
HAS_QUICK_ACK = hasattr(socket, "TCP_QUICKACK")


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
