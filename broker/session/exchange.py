"""Exchange: one QoS 1 or 2 message on its way to a client, until it is acknowledged for good; and
`Taken`, the messages that go on their way together."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from broker.message import Offset, Outgoing, PacketIdentifier

RETAINED = 0x01
ASIDE = 0x02
"""Flags of an exchange that is kept."""

Row = tuple[int, int, int, int, int]
"""An exchange as it is kept on a page: offset, Packet Identifier, stage, flags, and a number: those
of released ones rise in the order of the PUBRECs."""


class Stage(IntEnum):
    """How far the exchange for one message got."""

    SENT_QOS1 = 1
    """PUBLISH sent, PUBACK awaited."""
    SENT_QOS2 = 2
    """PUBLISH sent, PUBREC awaited."""
    RELEASED = 3
    """PUBREC received, PUBREL sent, PUBCOMP awaited."""


class InFlight(NamedTuple):
    """One unfinished exchange. `aside`: not from the session's own place in the log, but a retained
    message or one of a replay; the cursor does not wait for it."""

    offset: Offset
    packet_id: PacketIdentifier
    stage: Stage
    retained: bool = False
    aside: bool = False


class Taken(NamedTuple):
    """What one `take` moved out of a session. A tuple, since one is built per batch."""

    outgoing: list[Outgoing]
    packet_ids: list[int]
    """One for each of `outgoing`; 0 for QoS 0."""
    expired: list[Outgoing]
    """Left out: their Message Expiry Interval had passed. [MQTT-3.3.2-5]"""
    payload_bytes: int
    """Of `outgoing`, without properties."""
    size: int
    """Of `outgoing` and `expired`, in memory."""
    held: bool
    """Whether the Packet Identifiers must be committed first: QoS 2 of a durable session, which a
    crash of the broker could otherwise deliver twice."""
