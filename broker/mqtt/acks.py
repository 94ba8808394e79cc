"""Runs of acknowledgements: many packets in the bytes, one `Ack` for all of them.

A client with room in its window acknowledges hundreds of messages in one read, so this is a hot
path, read without `Reader`: a PUBACK takes 0.04 µs in a run of 500, and 1 µs alone
(`python -m benchmarks.codec`, *decode PUBACK*). Only short ones make a run: those without a Reason
Code, or with the code 0, and without properties. Longer ones are in `bodies.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import unpack

from broker.mqtt.packets import ACK_TYPES, FIRST_BYTES, Ack

_BARE = 4
"""Bytes of an acknowledgement that ends after its Packet Identifier."""

_STARTS = {
    bytes((FIRST_BYTES[kind], 2 + tail)): (kind, _BARE + tail)
    for kind in ACK_TYPES
    for tail in (0, 1, 2)
}
"""The first two bytes of each short form, and its type and length: without a Reason Code (the only
form of 3.1.1), with a Reason Code, and with a Reason Code and an empty property section."""


def read_run(data: bytes, position: int, version_5: bool) -> tuple[Ack, int] | None:
    """The run of short acknowledgements of one type and length that begins at `position`, and where
    it ends; None if none begins there."""
    header = data[position : position + 2]
    start = _STARTS.get(header)
    if start is None:
        return None
    kind, stride = start
    following = position + stride
    if stride > _BARE:
        if not version_5:
            return None
    elif following <= len(data) and data[following : following + 2] != header:
        # One that stands alone is common, and not worth the slices.
        packet_id = data[position + 2] << 8 | data[position + 3]
        return (Ack(kind, (packet_id,)), following) if packet_id else None
    packet_ids = _packet_ids(data, position, stride)
    if not packet_ids:
        return None
    return Ack(kind, packet_ids), position + stride * len(packet_ids)


def _packet_ids(data: bytes, position: int, stride: int) -> Sequence[int]:
    """The Packet Identifiers of the acknowledgements that follow each other from `position` on with
    the same header, `stride` bytes each, and what may come after the identifier zero (success).

    Slices with a stride find the end of the run and its identifiers. The window looked at grows
    with the run, so that a short one does not pay for what follows it. Empty if the first has
    another Reason Code, properties, or Packet Identifier 0.
    """
    whole = (len(data) - position) // stride
    count = window = 0
    while count == window < whole:
        window = min(8 * window + 8, whole)
        run = data[position : position + stride * window]
        count = window
        for column in (0, 1, 4, 5)[: stride - 2]:
            expected = run[column : column + 1] if column < 2 else b"\0"
            count = min(count, window - len(run[column::stride].lstrip(expected)))
    encoded = bytearray(2 * count)
    encoded[0::2] = data[position + 2 : position + stride * count : stride]
    encoded[1::2] = data[position + 3 : position + stride * count : stride]
    packet_ids: Sequence[int] = unpack(f">{count}H", encoded)
    return packet_ids[: packet_ids.index(0)] if 0 in packet_ids else packet_ids
