"""Cursor: what a subscriber has acknowledged, gaps included, and how that is packed for the log.

A cursor says: everything at or below `offset` is acknowledged, and so is everything in
(offset, sent_through] that is not listed in `inflight`. Two forms follow from it:

- *compact* (QoS 1, acknowledged in order): `sent_through == offset`, nothing listed. What was in
  flight is simply sent again, with new Packet Identifiers, should the broker crash.
- *full* (QoS 2, gaps, a client that leaves): every unfinished exchange is listed with its Packet
  Identifier, so that it can be continued under the same one. [MQTT-4.4.0-1]
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from enum import IntEnum

from broker.errors import StoreCorrupt
from broker.message import Offset, PacketIdentifier

_ENTRY = struct.Struct(">QHBB")
_RETAINED = 0x01
_ASIDE = 0x02


class Stage(IntEnum):
    """How far the exchange for one message got."""

    SENT_QOS1 = 1
    """PUBLISH sent, PUBACK awaited."""
    SENT_QOS2 = 2
    """PUBLISH sent, PUBREC awaited."""
    RELEASED = 3
    """PUBREC received, PUBREL sent, PUBCOMP awaited."""


@dataclass(slots=True)
class InFlight:
    """One unfinished exchange. `aside`: not from the session's own place in the log, but a retained
    message or one of a replay; the cursor does not wait for it."""

    offset: Offset
    packet_id: PacketIdentifier
    stage: Stage
    retained: bool = False
    aside: bool = False


def pack(entries: Iterable[InFlight]) -> bytes:
    """12 bytes an entry: offset u64, Packet Identifier u16, stage u8, flags u8; big-endian."""
    return b"".join(
        _ENTRY.pack(
            entry.offset,
            entry.packet_id,
            entry.stage,
            (_RETAINED if entry.retained else 0) | (_ASIDE if entry.aside else 0),
        )
        for entry in entries
    )


def unpack(packed: bytes) -> list[InFlight]:
    """Raises StoreCorrupt if it is not what `pack` makes."""
    if len(packed) % _ENTRY.size:
        raise StoreCorrupt(f"a cursor's in-flight list has {len(packed)} bytes")
    try:
        return [
            InFlight(
                Offset(offset),
                PacketIdentifier(packet_id),
                Stage(stage),
                bool(flags & _RETAINED),
                bool(flags & _ASIDE),
            )
            for offset, packet_id, stage, flags in _ENTRY.iter_unpack(packed)
        ]
    except ValueError as error:
        raise StoreCorrupt(f"a cursor's in-flight list: {error}") from error
