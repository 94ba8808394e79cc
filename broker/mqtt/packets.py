"""A small class per MQTT Control Packet (chapter 3), the same for 3.1.1 and 5.0.

What only MQTT 5 can say has a default, which is what a 3.1.1 packet gets. Packets are read-only by
custom; `frozen=True` would make building one several times dearer. Nothing is checked here:
`decode.py` checks what comes in, and what goes out is ours. What is secret is not in their `repr`,
which may come into a traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, final

MQTT_3_1_1 = 4
MQTT_5 = 5
"""Protocol versions, as CONNECT numbers them."""

RECEIVE_MAXIMUM_DEFAULT = 65_535
"""The Receive Maximum of a side that names none. (MQTT 5, section 3.1.2.11.3)"""

Properties = dict[int, Any]
"""Property values by identifier. The table in `properties.py` gives the type of each; a property
that may repeat has a list."""

UserProperties = list[tuple[str, str]]


class PacketType(IntEnum):
    CONNECT = 1
    CONNACK = 2
    PUBLISH = 3
    PUBACK = 4
    PUBREC = 5
    PUBREL = 6
    PUBCOMP = 7
    SUBSCRIBE = 8
    SUBACK = 9
    UNSUBSCRIBE = 10
    UNSUBACK = 11
    PINGREQ = 12
    PINGRESP = 13
    DISCONNECT = 14
    AUTH = 15


ACK_TYPES = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)

FIRST_BYTES = {
    kind: kind << 4
    | (kind in (PacketType.PUBREL, PacketType.SUBSCRIBE, PacketType.UNSUBSCRIBE)) << 1
    for kind in PacketType
}
"""How each packet begins: its type, and the flags that it must have. [MQTT-2.1.3-1] In PUBLISH the
flags are DUP, QoS and RETAIN, not set here."""


@dataclass(slots=True)
class Will:
    """The message that is published when the client is lost. `properties` are as in `Publish`."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    properties: bytes = b""
    message_expiry_s: int | None = None
    delay_s: int = 0


@dataclass(slots=True)
class Connect:
    """`clean_start` is Clean Session in 3.1.1. None: the client did not say. `bridge`: the client
    said that it is a bridge. The last two are no part of it: who that is, where an Authentication
    Method has shown it, and who it only said to be."""

    version: int
    client_id: str
    clean_start: bool
    keep_alive_s: int
    will: Will | None = None
    username: str | None = None
    password: bytes | None = field(default=None, repr=False)
    session_expiry_s: int | None = None
    receive_maximum: int = RECEIVE_MAXIMUM_DEFAULT
    packet_bytes_max: int | None = None
    topic_alias_maximum: int = 0
    request_response_information: bool = False
    request_problem_information: bool = True
    authentication_method: str | None = None
    authentication_data: bytes | None = field(default=None, repr=False)
    user_properties: UserProperties = field(default_factory=list)
    bridge: bool = False
    authenticated_user: str | None = None
    failed_proof_of: str | None = None


@dataclass(slots=True)
class Connack:
    session_present: bool
    reason_code: int
    properties: Properties = field(default_factory=dict)


@final
@dataclass(slots=True)
class Publish:
    """`properties` are those to pass on to subscribers: Payload Format Indicator, Content Type,
    Response Topic, Correlation Data and User Properties, encoded, in the order in which they came,
    without a length. [MQTT-3.3.2-18] `packet_id` is 0 at QoS 0."""

    topic: str
    payload: bytes = field(repr=False)
    qos: int
    retain: bool
    dup: bool
    packet_id: int
    properties: bytes = b""
    message_expiry_s: int | None = None


@dataclass(slots=True)
class RefusedPublish:
    """A PUBLISH to a topic that no client may publish to, without its payload. Not an error of the
    connection: it is acknowledged with `reason_code`, in its turn, and counted as `dropped_as`."""

    qos: int
    packet_id: int
    reason_code: int
    reason: str
    dropped_as: str


@dataclass(slots=True)
class Ack:
    """One or more consecutive acknowledgements that differ only in their Packet Identifier.

    `type` is PUBACK, PUBREC, PUBREL or PUBCOMP.
    """

    type: PacketType
    packet_ids: Sequence[int]
    reason_code: int = 0
    reason_string: str | None = None
    user_properties: UserProperties = field(default_factory=list)


@dataclass(slots=True)
class SubscriptionRequest:
    filter: str
    qos: int
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0


@dataclass(slots=True)
class Subscribe:
    packet_id: int
    requests: list[SubscriptionRequest]
    subscription_id: int | None = None
    user_properties: UserProperties = field(default_factory=list)


@dataclass(slots=True)
class Suback:
    packet_id: int
    reason_codes: Sequence[int]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Unsubscribe:
    packet_id: int
    filters: list[str]
    user_properties: UserProperties = field(default_factory=list)


@dataclass(slots=True)
class Unsuback:
    """A 3.1.1 UNSUBACK leaves the reason codes out."""

    packet_id: int
    reason_codes: Sequence[int]
    properties: Properties = field(default_factory=dict)


@dataclass(slots=True)
class Pingreq:
    pass


@dataclass(slots=True)
class Pingresp:
    pass


@dataclass(slots=True)
class Disconnect:
    reason_code: int = 0
    session_expiry_s: int | None = None
    reason_string: str | None = None
    user_properties: UserProperties = field(default_factory=list)
    server_reference: str | None = None


@dataclass(slots=True)
class Auth:
    reason_code: int
    method: str | None = None
    data: bytes | None = field(default=None, repr=False)
    reason_string: str | None = None
    user_properties: UserProperties = field(default_factory=list)


FromClient = Connect | Publish | Ack | Subscribe | Unsubscribe | Pingreq | Disconnect | Auth
FromServer = Connack | Publish | Ack | Suback | Unsuback | Pingresp | Disconnect | Auth
Packet = FromClient | FromServer
