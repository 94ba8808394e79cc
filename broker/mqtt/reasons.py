"""Reason Codes (MQTT 5 section 2.4) and in which packets each may stand.

MQTT 3.1.1 knows only the six return codes of CONNACK; `connect_return_code` finds the one that
says the same, where there is one.
"""

from __future__ import annotations

from enum import IntEnum

from broker.mqtt.packets import PacketType

ERROR = 0x80
"""Codes from here on are failures."""


class ReasonCode(IntEnum):
    SUCCESS = 0x00  # also Normal disconnection and Granted QoS 0
    GRANTED_QOS_1 = 0x01
    GRANTED_QOS_2 = 0x02
    DISCONNECT_WITH_WILL = 0x04
    NO_MATCHING_SUBSCRIBERS = 0x10
    NO_SUBSCRIPTION_EXISTED = 0x11
    CONTINUE_AUTHENTICATION = 0x18
    REAUTHENTICATE = 0x19
    UNSPECIFIED_ERROR = 0x80
    MALFORMED_PACKET = 0x81
    PROTOCOL_ERROR = 0x82
    IMPLEMENTATION_SPECIFIC_ERROR = 0x83
    UNSUPPORTED_PROTOCOL_VERSION = 0x84
    CLIENT_IDENTIFIER_NOT_VALID = 0x85
    BAD_USER_NAME_OR_PASSWORD = 0x86
    NOT_AUTHORIZED = 0x87
    SERVER_UNAVAILABLE = 0x88
    SERVER_BUSY = 0x89
    BANNED = 0x8A
    SERVER_SHUTTING_DOWN = 0x8B
    BAD_AUTHENTICATION_METHOD = 0x8C
    KEEP_ALIVE_TIMEOUT = 0x8D
    SESSION_TAKEN_OVER = 0x8E
    TOPIC_FILTER_INVALID = 0x8F
    TOPIC_NAME_INVALID = 0x90
    PACKET_IDENTIFIER_IN_USE = 0x91
    PACKET_IDENTIFIER_NOT_FOUND = 0x92
    RECEIVE_MAXIMUM_EXCEEDED = 0x93
    TOPIC_ALIAS_INVALID = 0x94
    PACKET_TOO_LARGE = 0x95
    MESSAGE_RATE_TOO_HIGH = 0x96
    QUOTA_EXCEEDED = 0x97
    ADMINISTRATIVE_ACTION = 0x98
    PAYLOAD_FORMAT_INVALID = 0x99
    RETAIN_NOT_SUPPORTED = 0x9A
    QOS_NOT_SUPPORTED = 0x9B
    USE_ANOTHER_SERVER = 0x9C
    SERVER_MOVED = 0x9D
    SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E
    CONNECTION_RATE_EXCEEDED = 0x9F
    MAXIMUM_CONNECT_TIME = 0xA0
    SUBSCRIPTION_IDENTIFIERS_NOT_SUPPORTED = 0xA1
    WILDCARD_SUBSCRIPTIONS_NOT_SUPPORTED = 0xA2


_PUBLISH_ANSWER = frozenset({0x00, 0x10, 0x80, 0x83, 0x87, 0x90, 0x91, 0x97, 0x99})
_RELEASE = frozenset({0x00, 0x92})
_DISCONNECT_FROM_CLIENT = frozenset(
    {0x00, 0x04, *range(0x80, 0x84), 0x90, 0x93, 0x94, 0x95, 0x96, 0x97, 0x98, 0x99}
)
_CONNACK_REFUSAL = frozenset({*range(0x80, 0x8B), 0x8C, 0x90, 0x95, 0x97, *range(0x99, 0x9E), 0x9F})
_DISCONNECT_FROM_SERVER = frozenset(
    {*range(0x80, 0x84), 0x87, 0x89, 0x8B, *range(0x8D, 0x91), *range(0x93, 0xA3), 0x00}
)

FROM_CLIENT: dict[PacketType, frozenset[int]] = {
    PacketType.PUBACK: _PUBLISH_ANSWER,  # [MQTT-3.4.2-1]
    PacketType.PUBREC: _PUBLISH_ANSWER,  # [MQTT-3.5.2-1]
    PacketType.PUBREL: _RELEASE,  # [MQTT-3.6.2-1]
    PacketType.PUBCOMP: _RELEASE,  # [MQTT-3.7.2-1]
    PacketType.DISCONNECT: _DISCONNECT_FROM_CLIENT,  # [MQTT-3.14.2-1]
    PacketType.AUTH: frozenset({0x18, 0x19}),  # [MQTT-3.15.2-1]
}
"""The codes that a client may put into each packet it sends."""


def connack_refusal(code: int) -> int:
    """`code`, or what comes closest to it among those that CONNACK may carry. [MQTT-3.2.2-8]"""
    if code in _CONNACK_REFUSAL:
        return code
    return {0x8B: 0x88, 0x8F: 0x82, 0x93: 0x82, 0x94: 0x82}.get(code, 0x80)


def disconnect_reason(code: int) -> int:
    """`code`, or what comes next to it if a server's DISCONNECT may not carry it: 0x87 for 0x86,
    else 0x80. [MQTT-3.14.2-1]"""
    if code == ReasonCode.BAD_USER_NAME_OR_PASSWORD:
        return ReasonCode.NOT_AUTHORIZED
    return code if code in _DISCONNECT_FROM_SERVER else 0x80


def connect_return_code(code: int) -> int | None:
    """The 3.1.1 CONNACK return code for a Reason Code.

    None: 3.1.1 has no such code, and the connection is closed without CONNACK. [MQTT3-3.2.2-6]
    """
    return _RETURN_CODES.get(code)


_RETURN_CODES = {
    0x00: 0,
    0x84: 1,
    0x85: 2,
    0x88: 3,
    0x89: 3,
    0x8B: 3,
    0x97: 3,
    0x9C: 3,
    0x9D: 3,
    0x9F: 3,
    0x86: 4,
    0x87: 5,
    0x8A: 5,
    0x8C: 5,
}
