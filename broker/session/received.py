"""Received: QoS 2 messages that a client published and has not released, by Packet Identifier.

A message with an identifier that is known here was sent again; it is not published twice.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable


class ReceivedQos2:
    """The Packet Identifiers of a client's own QoS 2 messages, from PUBLISH to PUBREL."""

    def __init__(self) -> None:
        self.changed = False
        """Whether the next commit must write it."""
        self._packet_ids: set[int] = set()

    def __contains__(self, packet_id: int) -> bool:
        return packet_id in self._packet_ids

    def receive(self, packet_id: int) -> bool:
        """Whether this identifier is new; it counts as received from now on. [MQTT-4.3.3-10]"""
        if packet_id in self._packet_ids:
            return False
        self._packet_ids.add(packet_id)
        self.changed = True
        return True

    def release(self, packet_ids: Iterable[int]) -> list[int]:
        """PUBREL, or a message that could not be stored: the identifiers may be used again.
        Returns the known ones."""
        known = [packet_id for packet_id in packet_ids if packet_id in self._packet_ids]
        self._packet_ids.difference_update(known)
        self.changed = True
        return known

    def take_packed(self) -> bytes:
        """What the commit that begins must write: each identifier in two bytes, big-endian."""
        self.changed = False
        return struct.pack(f">{len(self._packet_ids)}H", *sorted(self._packet_ids))

    def not_committed(self) -> None:
        """What `take_packed` last returned was not stored: the next commit must write it again."""
        self.changed = True

    def restore(self, packed: bytes) -> None:
        """Take up what the log kept of it."""
        self._packet_ids = set(struct.unpack(f">{len(packed) // 2}H", packed))
