"""The first bytes of a connection: which protocol they begin, or why none. Pure."""

from __future__ import annotations

from broker.settings.listeners import ADMIN, Listener

MQTT_CONNECT = 0x10
HTTP_GET = b"GET "
HTTP_OTHERS = (b"POST ", b"HEAD ", b"OPTIONS ")
"""What any page of the web can have a browser send here. The lines of a form in it could be
commands of the line protocol."""
TLS_HANDSHAKE = 0x16
LINE_STARTS = frozenset(b"\t\n\r" + bytes(range(0x20, 0x7F)))
SHORTEST_COMMAND = len("PUBLISH ")
"""A command of the line protocol has at least this many bytes, all of them ASCII."""
NAMES = {"mqtt": "MQTT", "websocket": "HTTP", "lines": "text", "http": "HTTP without GET"}


TLS_ONLY = "this port speaks TLS only"
ANSWERS_WITHOUT_TLS = {
    "mqtt": b"\x20\x1f\x00\x83\x1c\x1f\x00\x19" + TLS_ONLY.encode(),
    "lines": f"ERROR {TLS_ONLY}\n".encode(),
    "websocket": b"HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\n"
    b"Content-Length: 26\r\n\r\n" + f"{TLS_ONLY}\n".encode(),
}
"""For MQTT a CONNACK of MQTT 5: Implementation specific error, with a Reason String."""
MQTT_5_CONNECT = b"\x00\x04MQTT\x05"
MQTT_5_CONNECT_AT_MOST = 5
"""Where that begins: after the type of the packet and its length."""


def protocol_of(data: bytes, listener: Listener | None = None) -> str:
    """Which of `PROTOCOLS` (`settings/listeners.py`) they begin; "http": one that nobody may speak
    here; "": none. To a listener that administers all text is meant for that."""
    if data[0] == MQTT_CONNECT:
        return "mqtt"
    if listener is not None and listener.administers:
        return ADMIN if begins_a_line(data) else ""
    if data.startswith(HTTP_GET):
        return "websocket"
    if data.startswith(HTTP_OTHERS):
        return "http"
    return "lines" if begins_a_line(data) else ""


def begins_a_line(data: bytes) -> bool:
    """Whether `data` could be text. A packet other than CONNECT [MQTT-3.1.0-1] can begin with a
    letter, but a zero follows soon: in the length of its topic, or in its Packet Identifier."""
    return data[0] in LINE_STARTS and 0 not in data[:SHORTEST_COMMAND]


def why_refused(data: bytes, protocol: str) -> str:
    """Why these bytes, which begin `protocol`, end a connection, in words for the operator that do
    not show the bytes."""
    if protocol:
        return f"it speaks {NAMES[protocol]}, and its listener does not"
    if data[0] == TLS_HANDSHAKE:
        return "it speaks TLS, and its listener does not"
    return f"its first byte, 0x{data[0]:02X}, begins neither MQTT nor HTTP nor text"


def answer_without_tls(data: bytes) -> bytes:
    """What whoever begins with these bytes can understand, in plain, from a listener that speaks
    TLS; "": nothing. MQTT 3.1.1 has no words for it, and no code."""
    protocol = protocol_of(data)
    most = MQTT_5_CONNECT_AT_MOST + len(MQTT_5_CONNECT)
    if protocol == "mqtt" and MQTT_5_CONNECT not in data[:most]:
        return b""
    return ANSWERS_WITHOUT_TLS.get("websocket" if protocol == "http" else protocol, b"")


def why_not_tls(data: bytes) -> str:
    """Why these bytes, which begin no TLS, end a connection to a listener that speaks TLS."""
    what = NAMES.get(protocol_of(data), f"something that begins with 0x{data[0]:02X}")
    return f"it speaks {what} without TLS, and its listener only with TLS"
