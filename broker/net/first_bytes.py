"""The first bytes of a connection: which protocol they begin, or why none. Pure."""

from __future__ import annotations

MQTT_CONNECT = 0x10
TLS_HANDSHAKE = 0x16
LINE_STARTS = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
SHORTEST_COMMAND = len("PUBLISH ")
"""A command of the line protocol is ASCII, and so long."""


def begins_a_line(data: bytes) -> bool:
    """Whether it could be text. Another packet than CONNECT [MQTT-3.1.0-1] can begin with a letter,
    but has a zero soon: its length is followed by that of a topic, or by a Packet Identifier."""
    return data[0] in LINE_STARTS and 0 not in data[:SHORTEST_COMMAND]


def why_refused(data: bytes) -> str:
    """For the operator: why these bytes end a connection. They are not shown."""
    if data[0] == TLS_HANDSHAKE:
        return "it speaks TLS, and the broker does not"
    return f"its first byte, 0x{data[0]:02X}, begins neither MQTT nor HTTP nor text"
