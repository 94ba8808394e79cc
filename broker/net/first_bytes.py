"""The first bytes of a connection: which protocol they begin, or why none. Pure."""

from __future__ import annotations

MQTT_CONNECT = 0x10
TLS_HANDSHAKE = 0x16
LINE_STARTS = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
SHORTEST_COMMAND = len("PUBLISH ")
"""A command of the line protocol has at least this many bytes, all of them ASCII."""


def begins_a_line(data: bytes) -> bool:
    """Whether `data` could be text. A packet other than CONNECT [MQTT-3.1.0-1] can begin with a
    letter, but a zero follows soon: in the length of its topic, or in its Packet Identifier."""
    return data[0] in LINE_STARTS and 0 not in data[:SHORTEST_COMMAND]


def why_refused(data: bytes) -> str:
    """Why these bytes end a connection, in words for the operator that do not show the bytes."""
    if data[0] == TLS_HANDSHAKE:
        return "it speaks TLS, and the broker does not"
    return f"its first byte, 0x{data[0]:02X}, begins neither MQTT nor HTTP nor text"
