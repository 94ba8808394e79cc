"""Messages to the PUBLISH packets that bring them to one client: the hot path of encoding.

No packet is made in between. The tricks, and what `python -m benchmarks.codec` shows of them:
neighbours of one topic and length share the bytes before the Packet Identifier (*of one topic*
beside *of 500 topics*: 0.3 and 0.6 µs a message); headers, topics and Packet Identifiers are
remembered in their encoding (*remembered* beside *made*); all is joined at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from broker.message import Grant, Message, Outgoing, rfc3339
from broker.mqtt.encode import encode_publish
from broker.mqtt.fields import string, varint
from broker.mqtt.packets import FIRST_BYTES, MQTT_5, PacketType, Properties, Publish
from broker.mqtt.properties import Property, property_section

MESSAGE_EXPIRY_MAX_S = 0xFFFF_FFFF
_FIRST = FIRST_BYTES[PacketType.PUBLISH]
_FIRST_BYTES = (_FIRST, _FIRST | 1 << 1, _FIRST | 2 << 1)
_DUP_FIRST_BYTES = (_FIRST, _FIRST | 1 << 3 | 1 << 1, _FIRST | 1 << 3 | 2 << 1)
"""First bytes of a PUBLISH by QoS, without RETAIN."""


class Headers(dict[int, bytes]):
    """Fixed headers by `remaining_length << 8 | first_byte`; it forgets all when full."""

    HEADERS_MAX = 8192

    def __missing__(self, key: int) -> bytes:
        if len(self) >= self.HEADERS_MAX:
            self.clear()
        header = self[key] = bytes((key & 0xFF,)) + varint(key >> 8)
        return header


class TopicPrefixes(dict[str, bytes]):
    """Topic Names with their length in front, as PUBLISH has them; it forgets all when full."""

    TOPICS_MAX = 8192
    CHARACTERS_MAX = 256

    def __missing__(self, topic: str) -> bytes:
        encoded = string(topic)
        if len(topic) <= self.CHARACTERS_MAX:
            if len(self) >= self.TOPICS_MAX:
                self.clear()
            self[topic] = encoded
        return encoded


_headers = Headers()
_topic_prefixes = TopicPrefixes()
_packet_ids = [b""] * 65_536
"""Packet Identifiers, each encoded at its first use: 0.5 MB at first, 3.5 MB when all are."""
_IDS_AT_ONCE = 256


def encode_publishes(
    version: int,
    outgoing: Sequence[Outgoing],
    packet_ids: Sequence[int],
    *,
    dup: bool,
    now_us: int,
    packet_bytes_max: int,
) -> tuple[bytes, list[int]]:
    """The PUBLISH packets that bring `outgoing` to one client, joined; and which were left out.

    - QoS is the lower of message and grant. [MQTT-3.8.4-8] `packet_ids` has one for each, ignored
      at QoS 0, as is `dup`. [MQTT-3.3.1-2]
    - RETAIN is set for what is sent because it was retained, else what the message had for a
      subscription with Retain As Published, else clear. [MQTT3-3.3.1-8, 9, MQTT-3.3.1-12, 13]
    - Message Expiry Interval is what remains of it [MQTT-3.3.2-6]; the caller drops the expired.
    - Left out, by index, is what exceeds the client's Maximum Packet Size. [MQTT-3.1.2-24, 25]
    """
    version_5 = version == MQTT_5
    no_properties = b"\0" if version_5 else b""
    first_bytes = _DUP_FIRST_BYTES if dup else _FIRST_BYTES
    known_ids = _packet_ids
    pieces: list[bytes] = []
    left_out: list[int] = []
    last_topic = ""
    last_first = last_size = -1
    head = b""
    fits = True
    for index, (message, grant) in enumerate(outgoing):
        qos = message.qos if message.qos < grant.qos else grant.qos
        first = first_bytes[qos]
        if grant.retained or (message.retain and grant.retain_as_published):
            first |= 1
        topic = message.topic
        payload = message.payload
        properties = no_properties
        if version_5 and (
            message.properties
            or grant.subscription_ids
            or message.expires_at_us is not None
            or grant.metadata
            or grant.caught_up
            or grant.missing
        ):
            properties = property_section(
                _own_properties(message, grant, now_us), message.properties
            )
        size = len(payload) + len(properties)
        if size != last_size or first != last_first or topic is not last_topic:
            last_topic, last_first, last_size = topic, first, size
            prefix = _topic_prefixes[topic]
            remaining = len(prefix) + size + (2 if qos else 0)
            header = _headers[remaining << 8 | first]
            head = header + prefix
            fits = len(header) + remaining <= packet_bytes_max
        if not fits:
            left_out.append(index)
        # `join` needs 88 bytes for each piece, so 3.1.1 has none for properties.
        elif qos and version_5:
            packet_id = packet_ids[index]
            pieces += (head, known_ids[packet_id] or _encode_id(packet_id), properties, payload)
        elif qos:
            packet_id = packet_ids[index]
            pieces += (head, known_ids[packet_id] or _encode_id(packet_id), payload)
        elif version_5:
            pieces += (head, properties, payload)
        else:
            pieces += (head, payload)
    return b"".join(pieces), left_out


def _encode_id(packet_id: int) -> bytes:
    first = packet_id & ~(_IDS_AT_ONCE - 1)
    encoded = pack(f">{_IDS_AT_ONCE}H", *range(first, first + _IDS_AT_ONCE))
    _packet_ids[first : first + _IDS_AT_ONCE] = [
        encoded[at : at + 2] for at in range(0, len(encoded), 2)
    ]
    return _packet_ids[packet_id]


class TopicAliases(dict[str, int]):
    """The Topic Aliases that the broker gave to topics on one connection. [MQTT-3.3.2-7]"""

    ALIASES_MAX = 1000
    """More are not used, whatever the client permits: each costs a topic in memory."""

    def __init__(self, permitted: int) -> None:
        """[MQTT-3.1.2-26, 27]"""
        self.count_max = min(permitted, self.ALIASES_MAX)


def encode_aliased(
    aliases: TopicAliases,
    outgoing: Sequence[Outgoing],
    packet_ids: Sequence[int],
    *,
    dup: bool,
    now_us: int,
    packet_bytes_max: int,
) -> tuple[bytes, list[int]]:
    """As `encode_publishes`, for an MQTT 5 client that takes Topic Aliases: the first topics of the
    connection get one each, and keep it.

    Few clients ask for it, so it is not made fast: it takes ten times as long.
    """
    pieces: list[bytes] = []
    left_out: list[int] = []
    for index, (message, grant) in enumerate(outgoing):
        qos = min(message.qos, grant.qos)
        retain = grant.retained or (message.retain and grant.retain_as_published)
        publish = Publish(
            message.topic, message.payload, qos, retain, dup and qos > 0, packet_ids[index]
        )
        own = _own_properties(message, grant, now_us)
        alias = aliases.get(message.topic)
        if alias is not None:
            publish.topic = ""
        elif len(aliases) < aliases.count_max:
            alias = len(aliases) + 1
        if alias is not None:
            own[Property.TOPIC_ALIAS] = alias
        encoded = encode_publish(publish, property_section(own, message.properties))
        if len(encoded) > packet_bytes_max:
            left_out.append(index)
        else:
            pieces.append(encoded)
            if alias is not None:
                aliases[message.topic] = alias
    return b"".join(pieces), left_out


def fits(
    version: int,
    aliases: TopicAliases | None,
    message: Message,
    grant: Grant,
    now_us: int,
    packet_bytes_max: int,
) -> bool:
    """Whether the message fits the client's Maximum Packet Size, whenever it is sent."""
    one = [(message, grant)]
    if aliases is None:
        _, left_out = encode_publishes(
            version, one, [1], dup=False, now_us=now_us, packet_bytes_max=packet_bytes_max
        )
    else:
        tried = TopicAliases(aliases.count_max)
        tried.update(aliases)
        _, left_out = encode_aliased(
            tried, one, [1], dup=False, now_us=now_us, packet_bytes_max=packet_bytes_max
        )
    return not left_out


def _own_properties(message: Message, grant: Grant, now_us: int) -> Properties:
    """The properties of a message that depend on when it is sent, and to whom."""
    own: Properties = {}
    if message.expires_at_us is not None:
        remaining_s = -((now_us - message.expires_at_us) // 1_000_000)
        if message.expires_at_us == message.published_at_us:
            remaining_s = 0
        own[Property.MESSAGE_EXPIRY_INTERVAL] = max(0, min(remaining_s, MESSAGE_EXPIRY_MAX_S))
    if grant.subscription_ids:
        own[Property.SUBSCRIPTION_IDENTIFIER] = list(grant.subscription_ids)
    told: list[tuple[str, str]] = []
    if grant.metadata:
        told += [
            ("offset", str(message.offset)),
            ("published-at", rfc3339(message.published_at_us)),
            ("publisher", message.publisher),
        ]
        if grant.lease is not None:
            told.append(("attempt", str(grant.lease.attempt)))
    if grant.caught_up:
        told.append(("caught-up", "true"))
    told += [("gap", f"{part.start}-{part.stop - 1}") for part in grant.missing]
    if told:
        own[Property.USER_PROPERTY] = told
    return own
