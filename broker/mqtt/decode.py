"""Bytes to packets, incrementally, from a client to the server, 3.1.1 and 5.0 side by side.

- What arrives may end anywhere. An incomplete packet is kept until it is whole and then decoded at
  once, so the work is linear in the bytes whatever their chunking. Memory is bounded by one packet:
  a length over the limit is refused when it is declared, before the body arrives.
- Any bytes give packets or a `PeerError`, nothing else. The packets before the bad one were given.
- Here are the rules that concern one packet, and those that cost too much anywhere but in the loop
  that looks at each PUBLISH: Topic Alias and Receive Maximum. The rest is in `connection.py`.

PUBLISH and runs of acknowledgements are the hot path and are read without `Reader`: 0.7 µs for a
PUBLISH of QoS 1 and 128 bytes, 0.04 µs for a PUBACK in a run of 500 (CPython 3.11, 2-core machine).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from struct import unpack
from typing import Any

from broker.errors import (
    MalformedPacket,
    PacketTooLarge,
    ProtocolViolation,
    QuotaExceeded,
    ReceiveMaximumExceeded,
    TopicAliasInvalid,
    TopicNameReserved,
    UnsupportedProtocolVersion,
)
from broker.mqtt.fields import Reader, text
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    RECEIVE_MAXIMUM_DEFAULT,
    Ack,
    Auth,
    Connect,
    Disconnect,
    FromClient,
    PacketType,
    Pingreq,
    Properties,
    Publish,
    RefusedPublish,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from broker.mqtt.properties import (
    WILL,
    MessageProperties,
    Property,
    message_properties,
    read_properties,
)
from broker.mqtt.reasons import FROM_CLIENT
from broker.topics import refuse_reserved, validate_name

_ACK_TYPES = (PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP)
_PUBLISH_HEADERS = frozenset(
    0x30 | dup << 3 | qos << 1 | retain
    for dup in (0, 1)
    for qos in (0, 1, 2)
    for retain in (0, 1)
    if not (dup and qos == 0)
)
"""QoS 3, and DUP without a QoS, are Malformed Packets. [MQTT-3.3.1-2, MQTT-3.3.1-4]"""

_HEADERS: dict[int, PacketType] = dict.fromkeys(_PUBLISH_HEADERS, PacketType.PUBLISH) | {
    0x10: PacketType.CONNECT,
    0x40: PacketType.PUBACK,
    0x50: PacketType.PUBREC,
    0x62: PacketType.PUBREL,
    0x70: PacketType.PUBCOMP,
    0x82: PacketType.SUBSCRIBE,
    0xA2: PacketType.UNSUBSCRIBE,
    0xC0: PacketType.PINGREQ,
    0xE0: PacketType.DISCONNECT,
    0xF0: PacketType.AUTH,
}
"""The first bytes that a client may send, with the flags they must have. [MQTT-2.1.3-1]"""

_ACK_STARTS = {
    bytes((header, 2 + tail)): (kind, 4 + tail)
    for header, kind in _HEADERS.items()
    if kind in _ACK_TYPES
    for tail in (0, 1, 2)
}
"""How the acknowledgements begin that `_acks` reads, and how long each is: without more than its
Packet Identifier, and in MQTT 5 with a Reason Code, and with an empty property section."""

_PUBLISH = PacketType.PUBLISH
UNLIMITED = 1 << 62
_new_publish: Callable[[type[Publish]], Publish] = object.__new__


class Decoder:
    """`feed` it what arrives, then call `next` until it gives None or raises."""

    __slots__ = (
        "_aliases",
        "_data",
        "_limits",
        "_needed",
        "_pending",
        "_position",
        "_refused",
        "_topics",
        "receive_quota",
        "version",
    )

    def __init__(self, limits: Limits) -> None:
        assert limits.packet_bytes_max >= 2 + 0x7F, "`_publishes` relies on it"
        self.version: int | None = None
        """What CONNECT is in, also one that is then refused; None until that is known."""
        self.receive_quota = UNLIMITED
        """How many more PUBLISHes with a QoS may come before we acknowledge one. [MQTT-4.9.0-1]"""
        self._limits = limits
        self._topics = topic_names(limits.topic_bytes_max, limits.topic_levels_max)
        self._aliases: dict[int, bytes] = {}
        self._refused: RefusedPublish | None = None
        self._data = b""
        self._position = 0
        self._pending = bytearray()
        self._needed = 0

    def feed(self, data: bytes) -> None:
        """Take over what arrived; what was fed before has been drawn with `next`."""
        assert not self._data
        self._position = 0
        if self._pending:
            self._pending += data
            if len(self._pending) < self._needed:
                return
            data = bytes(self._pending)
            self._pending.clear()
        self._data = data

    def next(self, publishes: list[Any]) -> FromClient | RefusedPublish | None:
        """Append the PUBLISHes that come next, and return the packet that stands after them: any
        other, or a PUBLISH to a reserved topic.

        None when all that arrived is used up. Raises PeerError for the packet that comes after
        those appended; the decoder is then of no further use.
        """
        data = self._data
        position = self._position
        if self.version is not None:
            position = self._publishes(data, position, publishes)
            if self._refused is not None:
                refused, self._refused = self._refused, None
                self._position = position
                return refused
        if position == len(data):
            self._data = b""
            return None
        if (run := self._ack_run(data, position)) is not None:
            return run
        kind = self._kind(data[position])
        body, end = self._frame(data, position)
        if end > len(data):
            self._pending += data[position:]
            self._needed = end - position
            self._data = b""
            return None
        self._position = end
        return self._packet(kind, Reader(data, body, end))

    def _publishes(self, data: bytes, position: int, publishes: list[Any]) -> int:
        """Append PUBLISH after PUBLISH; where the first packet stands that is none, or not whole,
        or that comes after one that is `_refused`.

        The tricks: indexing instead of a Reader; one dict look-up that decodes and validates a
        Topic Name seen before; a Publish made by `object.__new__` and eight stores into its slots,
        0.10 µs, where `Publish(...)` takes 0.29 µs.
        """
        size = len(data)
        last = size - 4  # with an empty topic, which is refused, a PUBLISH has 4 bytes
        property_bytes = 1 if self.version == MQTT_5 else 0
        packet_bytes_max = self._limits.packet_bytes_max
        topics = self._topics
        quota = self.receive_quota
        previous = -1
        qos, retain, dup = 0, False, False
        try:
            while position <= last:
                first = data[position]
                if first != previous:
                    if first not in _PUBLISH_HEADERS:
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
                        body, end = self._frame(data, position)
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
                    self._with_properties(publish, topic, data, start - 1, end)
                else:
                    publish.topic = topics[data[topic_start:topic_end]]
                    publish.payload = data[start:end]
                    publish.properties = b""
                    publish.message_expiry_s = None
                publishes.append(publish)
                position = end
        except TopicNameReserved as error:
            self._refused = RefusedPublish(qos, packet_id, error.reason_code, error.reason)
            position = end
        finally:
            self.receive_quota = quota
        return position

    def _with_properties(
        self, publish: Publish, topic: bytes, data: bytes, position: int, end: int
    ) -> None:
        """Set the payload and what depends on the properties, whose length stands at `position`."""
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
        properties = message_properties(section, _PUBLISH, self._limits.properties_per_packet_max)
        publish.payload = data[payload_start:end]
        publish.properties = properties.forwarded
        publish.message_expiry_s = properties.message_expiry_s
        alias = properties.topic_alias
        if alias is None:
            publish.topic = self._topics[topic]
            return
        if not 1 <= alias <= self._limits.topic_alias_max:  # [MQTT-3.3.2-8, MQTT-3.3.2-9]
            raise TopicAliasInvalid(
                f"Topic Alias {alias} is not in 1..{self._limits.topic_alias_max}"
            )
        if topic:
            self._aliases[alias] = topic
        elif alias not in self._aliases:
            raise ProtocolViolation(f"Topic Alias {alias} was not set")
        publish.topic = self._topics[self._aliases[alias]]

    def _ack_run(self, data: bytes, position: int) -> Ack | None:
        """The run of short acknowledgements that begins at `position`, if one does."""
        start = _ACK_STARTS.get(data[position : position + 2])
        if start is None or self.version is None:
            return None
        kind, stride = start
        if stride > 4 and self.version != MQTT_5:
            return None
        packet_ids = _acks(data, position, stride)
        if not packet_ids:
            return None
        self._position = position + stride * len(packet_ids)
        return Ack(kind, packet_ids)

    def _kind(self, first: int) -> PacketType:
        """Which packet the first byte begins, if it is one that may come now."""
        kind = _HEADERS.get(first)
        if self.version is None:
            if kind != PacketType.CONNECT:  # [MQTT-3.1.0-1]
                raise ProtocolViolation("the first packet is not a CONNECT")
            return kind
        if kind is None:
            raise MalformedPacket(f"0x{first:02X} begins no packet that a client may send")
        if kind == PacketType.CONNECT:  # [MQTT-3.1.0-2]
            raise ProtocolViolation("CONNECT was sent twice")
        if kind == PacketType.AUTH and self.version != MQTT_5:
            raise MalformedPacket("MQTT 3.1.1 has no AUTH")
        return kind

    def _frame(self, data: bytes, position: int) -> tuple[int, int]:
        """Where the body of the packet at `position` begins and ends, by its Remaining Length.

        An end beyond `data` says that more must come: up to there, or until the length is known.
        """
        length = 0
        for index in range(1, 5):
            if position + index >= len(data):
                return 0, len(data) + 1
            byte = data[position + index]
            length |= (byte & 0x7F) << 7 * (index - 1)
            if byte < 0x80:
                break
        else:
            raise MalformedPacket("the Remaining Length is longer than 4 bytes")
        if byte == 0 and index > 1 and self.version == MQTT_5:  # [MQTT-1.5.5-1]
            raise MalformedPacket("the Remaining Length is longer than it needs to be")
        body = position + 1 + index
        if body + length - position > self._limits.packet_bytes_max:
            raise PacketTooLarge(f"a packet is larger than {self._limits.packet_bytes_max} bytes")
        return body, body + length

    def _packet(self, kind: PacketType, reader: Reader) -> FromClient:
        """The packet that `reader` spans, whose header is legal."""
        version_5 = self.version == MQTT_5
        properties_max = self._limits.properties_per_packet_max
        packet: FromClient
        if kind in _ACK_TYPES:
            packet = _ack(kind, reader, version_5, properties_max)
        elif kind == PacketType.PINGREQ:
            packet = Pingreq()
        elif kind == PacketType.SUBSCRIBE:
            packet = _subscribe(
                reader, version_5, properties_max, self._limits.filters_per_packet_max
            )
        elif kind == PacketType.UNSUBSCRIBE:
            packet = _unsubscribe(
                reader, version_5, properties_max, self._limits.filters_per_packet_max
            )
        elif kind == PacketType.DISCONNECT:
            packet = _disconnect(reader, version_5, properties_max)
        elif kind == PacketType.CONNECT:
            packet = self._connect(reader)
        elif kind == PacketType.AUTH:
            packet = _auth(reader, properties_max)
        else:  # `_publishes` took all but those that are too short
            raise MalformedPacket("a PUBLISH is shorter than its fields")
        reader.expect_end()
        return packet

    def _connect(self, reader: Reader) -> Connect:
        version = self._protocol_version(reader)
        version_5 = version == MQTT_5
        flags = reader.byte()
        if flags & 0b1:  # [MQTT-3.1.2-3]
            raise MalformedPacket("a reserved flag of CONNECT is set")
        will_flag, will_qos, will_retain = flags & 0b100, flags >> 3 & 3, flags >> 5 & 1 == 1
        if will_qos == 3 or (not will_flag and flags & 0b11_1000):  # [MQTT-3.1.2-11..13]
            raise MalformedPacket("the Will flags of CONNECT contradict each other")
        has_username, has_password = flags & 0x80, flags & 0x40
        if has_password and not has_username and not version_5:  # [MQTT3-3.1.2-22]
            raise MalformedPacket("CONNECT has a password without a user name")
        keep_alive_s = reader.u16()
        properties: Properties = {}
        if version_5:
            properties = read_properties(
                reader, PacketType.CONNECT, self._limits.properties_per_packet_max
            )
        connect = Connect(
            version=version,
            client_id=reader.string(),
            clean_start=flags & 0b10 != 0,
            keep_alive_s=keep_alive_s,
            session_expiry_s=properties.get(Property.SESSION_EXPIRY_INTERVAL),
            receive_maximum=properties.get(Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM_DEFAULT),
            packet_bytes_max=properties.get(Property.MAXIMUM_PACKET_SIZE),
            topic_alias_maximum=properties.get(Property.TOPIC_ALIAS_MAXIMUM, 0),
            request_response_information=bool(
                properties.get(Property.REQUEST_RESPONSE_INFORMATION, 0)
            ),
            request_problem_information=bool(
                properties.get(Property.REQUEST_PROBLEM_INFORMATION, 1)
            ),
            authentication_method=properties.get(Property.AUTHENTICATION_METHOD),
            authentication_data=properties.get(Property.AUTHENTICATION_DATA),
            user_properties=properties.get(Property.USER_PROPERTY, []),
        )
        if connect.authentication_data is not None and connect.authentication_method is None:
            raise ProtocolViolation("CONNECT has Authentication Data without a method")
        if will_flag:
            connect.will = self._will(reader, will_qos, will_retain, version_5)
        if has_username:
            connect.username = reader.string()
        if has_password:
            connect.password = reader.binary()
        return connect

    def _protocol_version(self, reader: Reader) -> int:
        """Sets the version also where it refuses one, so that the answer is understood: what is no
        newer than 3.1.1 knows return code 1, what is newer Reason Code 0x84. [MQTT-3.1.2-1, 2]

        (A bridge of Mosquitto's sets the top bit of its level.)
        """
        name, level = reader.string(), reader.byte()
        if name == "MQTT" or (name == "MQIsdp" and level == 3):
            self.version = MQTT_5 if level & 0x7F > MQTT_3_1_1 else MQTT_3_1_1
        if name != "MQTT" or level not in (MQTT_3_1_1, MQTT_5):
            raise UnsupportedProtocolVersion("the protocol is neither MQTT 3.1.1 nor 5.0")
        return level

    def _will(self, reader: Reader, qos: int, retain: bool, version_5: bool) -> Will:
        properties = MessageProperties()
        if version_5:
            section = reader.take(reader.varint())
            properties = message_properties(section, WILL, self._limits.properties_per_packet_max)
        return Will(
            topic=self._topics[reader.binary()],
            payload=reader.binary(),
            qos=qos,
            retain=retain,
            properties=properties.forwarded,
            message_expiry_s=properties.message_expiry_s,
            delay_s=properties.delay_s,
        )


class TopicNames(dict[bytes, str]):
    """Topic Names by their encoding, so that one seen before needs a look-up (0.03 µs) instead of
    decoding and validation (0.8 µs). Bounded: it forgets all when full."""

    NAMES_MAX = 8192
    BYTES_MAX = 256

    def __init__(self, bytes_max: int, levels_max: int) -> None:
        self._bytes_max = bytes_max
        self._levels_max = levels_max

    def __missing__(self, encoded: bytes) -> str:
        """Raises MalformedPacket, ProtocolViolation, TopicNameInvalid or TopicNameReserved."""
        if not encoded:
            raise ProtocolViolation("a message has no Topic Name")
        topic = text(encoded)
        validate_name(topic, bytes_max=self._bytes_max, levels_max=self._levels_max)
        refuse_reserved(topic)
        if len(encoded) <= self.BYTES_MAX:
            if len(self) >= self.NAMES_MAX:
                self.clear()
            self[encoded] = topic
        return topic


@lru_cache(maxsize=8)
def topic_names(bytes_max: int, levels_max: int) -> TopicNames:
    """The one that all connections with these limits share."""
    return TopicNames(bytes_max, levels_max)


def _acks(data: bytes, position: int, stride: int) -> Sequence[int]:
    """The Packet Identifiers of the acknowledgements that follow each other from `position` on with
    the same header, `stride` bytes each, and what may come after the identifier zero (success).

    Slices with a stride find the end of the run and its identifiers: 0.04 µs each in a run of 500.
    The window looked at grows with the run, so that a short one does not pay for what follows it.
    Empty if the first has another Reason Code, properties, or Packet Identifier 0.
    """
    whole = (len(data) - position) // stride
    following = position + stride
    if stride == 4 and whole and data[following : following + 2] != data[position : position + 2]:
        packet_id = data[position + 2] << 8 | data[position + 3]  # a run of one, 1 µs faster
        return (packet_id,) if packet_id else ()
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


def _ack(kind: PacketType, reader: Reader, version_5: bool, properties_max: int) -> Ack:
    """One acknowledgement of any length."""
    ack = Ack(kind, (reader.packet_id(),))
    if version_5 and not reader.at_end():
        ack.reason_code = _reason_code(kind, reader)
        if not reader.at_end():
            properties = read_properties(reader, kind, properties_max)
            ack.reason_string = properties.get(Property.REASON_STRING)
            ack.user_properties = properties.get(Property.USER_PROPERTY, [])
    return ack


def _subscribe(reader: Reader, version_5: bool, properties_max: int, filters_max: int) -> Subscribe:
    subscribe = Subscribe(reader.packet_id(), [])
    if version_5:
        properties = read_properties(reader, PacketType.SUBSCRIBE, properties_max)
        subscribe.subscription_id = properties.get(Property.SUBSCRIPTION_IDENTIFIER)
        subscribe.user_properties = properties.get(Property.USER_PROPERTY, [])
    while not reader.at_end():
        if len(subscribe.requests) == filters_max:
            raise QuotaExceeded(f"a SUBSCRIBE has more than {filters_max} Topic Filters")
        filter = reader.string()
        options = reader.byte()
        if options & (0b1100_0000 if version_5 else 0b1111_1100):  # [MQTT-3.8.3-5]
            raise MalformedPacket("a reserved bit of the Subscription Options is set")
        qos, retain_handling = options & 3, options >> 4 & 3
        if qos == 3 or retain_handling == 3:  # [MQTT3-3.8.3-4]
            raise ProtocolViolation("a Subscription has QoS 3 or Retain Handling 3")
        subscribe.requests.append(
            SubscriptionRequest(
                filter, qos, options & 0b100 != 0, options & 0b1000 != 0, retain_handling
            )
        )
    return subscribe


def _unsubscribe(
    reader: Reader, version_5: bool, properties_max: int, filters_max: int
) -> Unsubscribe:
    unsubscribe = Unsubscribe(reader.packet_id(), [])
    if version_5:
        properties = read_properties(reader, PacketType.UNSUBSCRIBE, properties_max)
        unsubscribe.user_properties = properties.get(Property.USER_PROPERTY, [])
    while not reader.at_end():
        if len(unsubscribe.filters) == filters_max:
            raise QuotaExceeded(f"an UNSUBSCRIBE has more than {filters_max} Topic Filters")
        unsubscribe.filters.append(reader.string())
    return unsubscribe


def _disconnect(reader: Reader, version_5: bool, properties_max: int) -> Disconnect:
    disconnect = Disconnect()
    if version_5 and not reader.at_end():
        disconnect.reason_code = _reason_code(PacketType.DISCONNECT, reader)
        if not reader.at_end():
            properties = read_properties(reader, PacketType.DISCONNECT, properties_max)
            disconnect.session_expiry_s = properties.get(Property.SESSION_EXPIRY_INTERVAL)
            disconnect.reason_string = properties.get(Property.REASON_STRING)
            disconnect.user_properties = properties.get(Property.USER_PROPERTY, [])
    return disconnect


def _auth(reader: Reader, properties_max: int) -> Auth:
    auth = Auth(0)
    if not reader.at_end():
        auth.reason_code = _reason_code(PacketType.AUTH, reader)
        properties = read_properties(reader, PacketType.AUTH, properties_max)
        auth.method = properties.get(Property.AUTHENTICATION_METHOD)
        auth.data = properties.get(Property.AUTHENTICATION_DATA)
        auth.reason_string = properties.get(Property.REASON_STRING)
        auth.user_properties = properties.get(Property.USER_PROPERTY, [])
    return auth


def _reason_code(kind: PacketType, reader: Reader) -> int:
    code = reader.byte()
    if code not in FROM_CLIENT[kind]:
        raise ProtocolViolation(f"{kind.name} has Reason Code 0x{code:02X}")
    return code
