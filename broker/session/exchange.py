"""Exchange: one QoS 1 or 2 message on its way to a client, until it is acknowledged for good."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

from broker.message import Offset, PacketIdentifier

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
