"""User Properties: of a PUBLISH that has no other properties, decoded without paho.

paho builds tables of all properties that there can be, once a packet. `pubsub sub --from` gets the
offset of each message as a User Property, and would spend three quarters of its time there.
"""

from __future__ import annotations

from paho.mqtt.properties import Properties

USER_PROPERTY = 0x26
LENGTH_BYTES_MAX = 4
"""Of a Variable Byte Integer. [MQTT-1.5.5-1]"""


class OnlyUserProperties(Properties):
    """What reads the attributes of paho's finds those that there are; nothing else works."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        object.__setattr__(self, "UserProperty", pairs)


def only_user_properties(
    packet: bytes | bytearray, at: int
) -> tuple[list[tuple[str, str]], int] | None:
    """Those whose length is at `at` of `packet`, and where they end; None: there are others too, or
    they are malformed: for paho."""
    length = shift = 0
    for position in range(at, min(at + LENGTH_BYTES_MAX, len(packet))):
        length |= (packet[position] & 0x7F) << shift
        shift += 7
        if packet[position] < 0x80:
            break
    else:
        return None
    position += 1
    end = position + length
    if end > len(packet):
        return None
    pairs: list[tuple[str, str]] = []
    try:
        while position < end:
            name_end = position + 3 + int.from_bytes(packet[position + 1 : position + 3])
            value_at = name_end + 2
            value_end = value_at + int.from_bytes(packet[name_end:value_at])
            if packet[position] != USER_PROPERTY or value_end > end:
                return None
            name = str(packet[position + 3 : name_end], "utf-8")
            value = str(packet[value_at:value_end], "utf-8")
            if "\0" in name or "\0" in value:
                return None
            pairs.append((name, value))
            position = value_end
    except UnicodeDecodeError:
        return None
    return pairs, end


def user_properties_of(properties: Properties | None) -> dict[str, str]:
    return dict(getattr(properties, "UserProperty", ()))
