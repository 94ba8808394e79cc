"""What we ask the kernel of a socket, beside reading and writing."""

from __future__ import annotations

import array
import asyncio
import fcntl
import socket
import termios

QUICK_ACK_BYTES_MAX = 64
"""After a read of at most this many bytes (a PUBACK) the kernel is told to send its TCP
acknowledgement at once. MQTT does not answer a PUBACK, and without an answer the kernel keeps the
acknowledgement back for 40 ms. A client with Nagle's algorithm on sends nothing meanwhile: its next
PUBLISH would wait that long."""
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
