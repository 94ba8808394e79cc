"""MQTT 3.1.1 and 5.0, server side: bytes to packets, packets to bytes, and the rules in between.

    bytes ─▶ decode.Decoder ─▶ connection.Connection ─▶ events
    bytes ◀─ encode         ◀─ connection.Connection ◀─ packets
    bytes ◀─ outgoing       ◀─ connection.Connection ◀─ messages

`decode.py` finds the packets in the bytes; `publishes.py`, `acks.py` and `bodies.py` read them.
`packets.py` has a small class per Control Packet, `reasons.py` the Reason Codes, `fields.py` the
data types (MQTT 5, 1.5), `properties.py` one table that drives every property section, `limits.py`
what a client may ask for. Nothing here does I/O or reads a clock: bytes and the time are passed in,
bytes and events handed back.
"""
