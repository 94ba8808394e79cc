"""PUBLISH after PUBLISH to `Publish` after `Publish`: the hot path of decoding.

Here are also the rules that would cost too much anywhere but in the loop that looks at each
PUBLISH: Topic Alias, Receive Maximum, and what a Topic Name may be.

The bytes are read without `Reader`. The tricks, and what `python -m benchmarks.codec` shows of
them: indexing; one dict look-up that decodes and validates a Topic Name seen before (*Topic Name*);
a Publish made by `object.__new__` and eight stores into its slots (*Publish by*); what a PUBLISH
has in common with the one before is compared and not read again. All in all 0.4 to 0.6 µs for a
PUBLISH of QoS 1 and 128 bytes (*decode PUBLISH*; CPython 3.11, a machine of 2 cores).
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from broker.errors import (
    MalformedPacket,
    MessageRefused,
    ProtocolViolation,
    ReceiveMaximumExceeded,
    TopicAliasInvalid,
)
from broker.mqtt.fields import Reader, frame, text
from broker.mqtt.limits import Limits
from broker.mqtt.packets import FIRST_BYTES, PacketType, Publish, RefusedPublish
from broker.mqtt.properties import message_properties
from broker.topics import refuse_control_characters, refuse_reserved, validate_name

_PUBLISH = PacketType.PUBLISH
PUBLISH_FIRST_BYTES = frozenset(
    FIRST_BYTES[_PUBLISH] | dup << 3 | qos << 1 | retain
    for dup in (0, 1)
    for qos in (0, 1, 2)
    for retain in (0, 1)
    if not (dup and qos == 0)
)
"""QoS 3, and DUP without a QoS, are Malformed Packets. [MQTT-3.3.1-2, MQTT-3.3.1-4]"""

UNLIMITED = 1 << 62
"""Receive Maximum of an MQTT 3.1.1 client: the standard has none."""

SHORT_BYTES = 2 + 0x7F
"""The longest packet whose Remaining Length takes one byte; no limit forbids such a packet."""

_new_publish: Callable[[type[Publish]], Publish] = object.__new__


class PublishReader:
    """Reads the PUBLISHes of one connection. Keeps its Topic Aliases, and how many more QoS 1 and 2
    messages the client may send."""

    __slots__ = ("_aliases", "_limits", "_quota", "topic_names")

    def __init__(self, limits: Limits) -> None:
        self.limit(limits)
        self.topic_names = topic_names(limits.topic_bytes_max, limits.topic_levels_max)
        self._aliases: dict[int, bytes] = {}
        self._quota = UNLIMITED

    def limit(self, limits: Limits) -> None:
        """From now on these hold."""
        assert limits.packet_bytes_max >= SHORT_BYTES
        self._limits = limits

    def hold_to_receive_maximum(self) -> None:
        """From now on the client may have at most our Receive Maximum of QoS 1 and 2 messages
        unacknowledged. [MQTT-4.9.0-1]"""
        self._quota = self._limits.receive_max

    def acknowledged(self, count: int) -> None:
        """`count` QoS 1 or 2 messages were acknowledged. [MQTT-4.9.0-2]"""
        self._quota = min(self._quota + count, self._limits.receive_max)

    def read(
        self, data: bytes, position: int, publishes: list[Any], version_5: bool
    ) -> tuple[int, RefusedPublish | None]:
        """Append PUBLISH after PUBLISH to `publishes`. Stops at the first packet that is no PUBLISH
        or is not whole, or behind a refused PUBLISH. Returns where it stopped, and the refused one.

        Raises PeerError for a PUBLISH that breaks a rule; those before it are appended.
        """
        size = len(data)
        last = size - 4  # with an empty topic, which is refused, a PUBLISH has 4 bytes
        property_bytes = 1 if version_5 else 0
        packet_bytes_max = self._limits.packet_bytes_max
        topics = self.topic_names
        quota = self._quota
        previous = -1
        qos, retain, dup = 0, False, False
        try:
            while position <= last:
                first = data[position]
                if first != previous:
                    if first not in PUBLISH_FIRST_BYTES:
                        break
                    previous = first
                    qos, retain, dup = first >> 1 & 3, first & 1 == 1, first & 8 == 8
                body = position + 2
                length = data[position + 1]
                if length < 0x80:
                    end = body + length
                else:
                    high = data[body]
                    if 0 < high < 0x80:
                        body += 1
                        end = body + (high << 7 | length & 0x7F)
                        if end - position > packet_bytes_max:
                            break
                    else:
                        body, end = frame(data, position, packet_bytes_max, version_5)
                        if end < body + 2:  # The length may be padded, and the data end with it.
                            raise MalformedPacket("a PUBLISH is shorter than its fields")
                if end > size:
                    break
                topic_start = body + 2
                topic_end = topic_start + (data[body] << 8 | data[body + 1])
                start = topic_end + property_bytes
                packet_id = 0
                if qos:
                    start += 2
                    if start > end:
                        raise MalformedPacket("a PUBLISH is shorter than its fields")
                    packet_id = data[topic_end] << 8 | data[topic_end + 1]
                    if packet_id == 0:
                        raise MalformedPacket("a PUBLISH has Packet Identifier 0")
                    if quota == 0:
                        raise ReceiveMaximumExceeded("more unacknowledged than Receive Maximum")
                    quota -= 1
                elif start > end:
                    raise MalformedPacket("a PUBLISH is shorter than its fields")
                publish = _new_publish(Publish)
                publish.qos = qos
                publish.retain = retain
                publish.dup = dup
                publish.packet_id = packet_id
                if property_bytes and data[start - 1]:
                    topic = data[topic_start:topic_end]
                    self._read_properties(publish, topic, data, start - 1, end)
                else:
                    publish.topic = topics[data[topic_start:topic_end]]
                    publish.payload = data[start:end]
                    publish.properties = b""
                    publish.message_expiry_s = None
                publishes.append(publish)
                if end > last or data[end + 1] != length or (property_bytes and data[start - 1]):
                    position = end
                    continue
                # Neighbours of the same flags, length and topic: what was found above holds.
                topic_name = publish.topic
                head = data[position:topic_end]
                head_bytes, payload_at, step = len(head), start - position, end - position
                position = end
                while data[position : position + head_bytes] == head:
                    start, end = position + payload_at, position + step
                    if end > size or (property_bytes and data[start - 1]):
                        break
                    if qos:
                        packet_id = data[position + head_bytes] << 8
                        packet_id |= data[position + head_bytes + 1]
                        if packet_id == 0 or quota == 0:
                            break
                        quota -= 1
                    publish = _new_publish(Publish)
                    publish.qos = qos
                    publish.retain = retain
                    publish.dup = dup
                    publish.packet_id = packet_id
                    publish.topic = topic_name
                    publish.payload = data[start:end]
                    publish.properties = b""
                    publish.message_expiry_s = None
                    publishes.append(publish)
                    position = end
        except MessageRefused as error:
            return end, RefusedPublish(
                qos, packet_id, error.reason_code, error.reason, error.dropped_as
            )
        finally:
            self._quota = quota
        return position, None

    def _read_properties(
        self, publish: Publish, topic: bytes, data: bytes, position: int, end: int
    ) -> None:
        """Set the payload and what depends on the properties, whose length is at `position`."""
        start = position + 1
        length = data[position]
        if length >= 0x80:
            reader = Reader(data, position, end)
            length = reader.varint()
            start = reader.position
        payload_start = start + length
        if payload_start > end:
            raise MalformedPacket("a PUBLISH is shorter than its properties")
        section = data[start:payload_start]
        limits = self._limits
        properties = message_properties(section, _PUBLISH, limits.properties_per_packet_max)
        publish.payload = data[payload_start:end]
        publish.properties = properties.forwarded
        publish.message_expiry_s = properties.message_expiry_s
        alias = properties.topic_alias
        if alias is not None:
            if not 1 <= alias <= limits.topic_alias_max:  # [MQTT-3.3.2-8, MQTT-3.3.2-9]
                most = limits.topic_alias_max
                raise TopicAliasInvalid(f"Topic Alias {alias} is not in 1..{most}")
            if topic:
                self._aliases[alias] = topic
            elif alias not in self._aliases:
                raise ProtocolViolation(f"Topic Alias {alias} was not set")
            topic = self._aliases[alias]
        publish.topic = self.topic_names[topic]
        properties.refuse_control_characters()


class TopicNames(dict[bytes, str]):
    """Topic Names by their encoding: one seen before is neither decoded nor validated again.
    Bounded: it forgets all when full."""

    NAMES_MAX = 8192
    BYTES_MAX = 256

    def __init__(self, bytes_max: int, levels_max: int) -> None:
        self._bytes_max = bytes_max
        self._levels_max = levels_max

    def __missing__(self, encoded: bytes) -> str:
        """Raises MalformedPacket, ProtocolViolation, TopicNameInvalid or TopicNameRefused."""
        if not encoded:
            raise ProtocolViolation("a message has no Topic Name")
        topic = text(encoded)
        validate_name(topic, bytes_max=self._bytes_max, levels_max=self._levels_max)
        refuse_reserved(topic)
        refuse_control_characters(topic)
        if len(encoded) <= self.BYTES_MAX:
            if len(self) >= self.NAMES_MAX:
                self.clear()
            self[encoded] = topic
        return topic


@lru_cache(maxsize=8)
def topic_names(bytes_max: int, levels_max: int) -> TopicNames:
    """The one that all connections with these limits share."""
    return TopicNames(bytes_max, levels_max)
