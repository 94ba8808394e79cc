"""Unplaced: leases of a group that fit only members without room, with their Packet Identifiers."""

from __future__ import annotations

from collections import deque

from broker.message import Message, Outgoing

UNPLACED_MAX = 64
UNPLACED_BYTES_MAX = 256 * 1024
"""What waits for members that take packets so large; beyond, the group waits for them."""


class Unplaced:
    __slots__ = ("_bytes", "_entries")

    def __init__(self) -> None:
        self._entries: deque[tuple[Outgoing, int]] = deque()
        self._bytes = 0

    def __bool__(self) -> bool:
        return bool(self._entries)

    @property
    def full(self) -> bool:
        return len(self._entries) >= UNPLACED_MAX or self._bytes >= UNPLACED_BYTES_MAX

    def add(self, out: Outgoing, packet_id: int) -> None:
        self._entries.append((out, packet_id))
        self._bytes += out[0].cost

    def first(self) -> Message:
        """The message of the next."""
        return self._entries[0][0][0]

    def take(self) -> tuple[Outgoing, int]:
        """Remove the next."""
        out, packet_id = self._entries.popleft()
        self._bytes -= out[0].cost
        return out, packet_id

    def take_all(self) -> list[tuple[Outgoing, int]]:
        taken = [*self._entries]
        self._entries.clear()
        self._bytes = 0
        return taken
