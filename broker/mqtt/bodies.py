"""The bodies of packets, field by field: all but PUBLISH (`publishes.py`) and short
acknowledgements (`acks.py`).

These packets are few, so they are read by `Reader`. Each function reads its packet up to the end
and raises PeerError if the packet is wrong in itself. Rules that depend on the connection's state
are in `connection.py`.
"""

from __future__ import annotations

from collections.abc import Mapping

from broker.errors import (
    ClientIdentifierNotValid,
    MalformedPacket,
    ProtocolViolation,
    QuotaExceeded,
    TopicNameInvalid,
)
from broker.mqtt.fields import Reader
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    ACK_TYPES,
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
from broker.topics import (
    DELAYED_PREFIX,
    has_control_character,
    is_shared,
    parse_shared,
    validate_filter,
)

FILTERS_AT_ONCE_MAX = 1000
"""Topic Filters that one call reads: 2 to 6 ms."""


def read_body(kind: PacketType, reader: Reader, version_5: bool, limits: Limits) -> FromClient:
    """The packet of type `kind` (not CONNECT) that `reader` spans without its fixed header.

    Of one with many Topic Filters the first part: `read_filters` goes on until the end.
    """
    if kind in ACK_TYPES:
        return _ack(kind, reader, version_5, limits)
    if kind == PacketType.PINGREQ:
        return Pingreq()
    if kind == PacketType.SUBSCRIBE:
        return _subscribe(reader, version_5, limits)
    if kind == PacketType.UNSUBSCRIBE:
        return _unsubscribe(reader, version_5, limits)
    if kind == PacketType.DISCONNECT:
        return _disconnect(reader, version_5, limits)
    if kind == PacketType.AUTH:
        return _auth(reader, limits)
    assert kind == PacketType.PUBLISH, "`publishes.py` takes all but those that are too short"
    raise MalformedPacket("a PUBLISH is shorter than its fields")


def read_connect(
    reader: Reader, version: int, limits: Limits, topics: Mapping[bytes, str]
) -> Connect:
    """The CONNECT whose protocol name and level are read; `topics` are `publishes.TopicNames`."""
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
        properties = read_properties(reader, PacketType.CONNECT, limits.properties_per_packet_max)
    connect = Connect(
        version=version,
        client_id=reader.string(),
        clean_start=flags & 0b10 != 0,
        keep_alive_s=keep_alive_s,
        session_expiry_s=properties.get(Property.SESSION_EXPIRY_INTERVAL),
        receive_maximum=properties.get(Property.RECEIVE_MAXIMUM, RECEIVE_MAXIMUM_DEFAULT),
        packet_bytes_max=properties.get(Property.MAXIMUM_PACKET_SIZE),
        topic_alias_maximum=properties.get(Property.TOPIC_ALIAS_MAXIMUM, 0),
        request_response_information=bool(properties.get(Property.REQUEST_RESPONSE_INFORMATION, 0)),
        request_problem_information=bool(properties.get(Property.REQUEST_PROBLEM_INFORMATION, 1)),
        authentication_method=properties.get(Property.AUTHENTICATION_METHOD),
        authentication_data=properties.get(Property.AUTHENTICATION_DATA),
        user_properties=properties.get(Property.USER_PROPERTY, []),
    )
    if has_control_character(connect.client_id):
        raise ClientIdentifierNotValid("the client identifier has a control character")
    if connect.authentication_data is not None and connect.authentication_method is None:
        raise ProtocolViolation("CONNECT has Authentication Data without a method")
    if will_flag:
        will_properties = MessageProperties()
        if version_5:
            section = reader.take(reader.varint())
            will_properties = message_properties(section, WILL, limits.properties_per_packet_max)
            will_properties.refuse_control_characters()
        topic = topics[reader.binary()]
        if topic.startswith(DELAYED_PREFIX):
            raise TopicNameInvalid("a will is delayed by its Will Delay Interval, not by its topic")
        connect.will = Will(
            topic=topic,
            payload=reader.binary(),
            qos=will_qos,
            retain=will_retain,
            properties=will_properties.forwarded,
            message_expiry_s=will_properties.message_expiry_s,
            delay_s=will_properties.delay_s,
        )
    if has_username:
        connect.username = reader.string()
    if has_password:
        connect.password = reader.binary()
    return connect


def _ack(kind: PacketType, reader: Reader, version_5: bool, limits: Limits) -> Ack:
    """One acknowledgement of any length."""
    ack = Ack(kind, (reader.packet_id(),))
    if version_5 and not reader.at_end():
        ack.reason_code = _reason_code(kind, reader)
        if not reader.at_end():
            properties = read_properties(reader, kind, limits.properties_per_packet_max)
            ack.reason_string = properties.get(Property.REASON_STRING)
            ack.user_properties = properties.get(Property.USER_PROPERTY, [])
    return ack


def _subscribe(reader: Reader, version_5: bool, limits: Limits) -> Subscribe:
    subscribe = Subscribe(reader.packet_id(), [])
    if version_5:
        properties = read_properties(reader, PacketType.SUBSCRIBE, limits.properties_per_packet_max)
        subscribe.subscription_id = properties.get(Property.SUBSCRIPTION_IDENTIFIER)
        subscribe.user_properties = properties.get(Property.USER_PROPERTY, [])
    read_filters(subscribe, reader, version_5, limits)
    return subscribe


def _unsubscribe(reader: Reader, version_5: bool, limits: Limits) -> Unsubscribe:
    unsubscribe = Unsubscribe(reader.packet_id(), [])
    if version_5:
        kind = PacketType.UNSUBSCRIBE
        properties = read_properties(reader, kind, limits.properties_per_packet_max)
        unsubscribe.user_properties = properties.get(Property.USER_PROPERTY, [])
    read_filters(unsubscribe, reader, version_5, limits)
    return unsubscribe


def read_filters(
    packet: Subscribe | Unsubscribe, reader: Reader, version_5: bool, limits: Limits
) -> None:
    """The next Topic Filters of the packet, at most FILTERS_AT_ONCE_MAX."""
    read = len(packet.requests if isinstance(packet, Subscribe) else packet.filters)
    for number in range(read, read + FILTERS_AT_ONCE_MAX):
        if reader.at_end():
            return
        if number == limits.filters_per_packet_max:
            raise QuotaExceeded(f"more than {number} Topic Filters in one packet")
        filter = reader.string()
        validate_filter(
            filter, bytes_max=limits.topic_bytes_max, levels_max=limits.topic_levels_max
        )
        if is_shared(filter):
            parse_shared(filter)
        if isinstance(packet, Subscribe):
            packet.requests.append(_request(filter, reader.byte(), version_5))
        else:
            packet.filters.append(filter)


def _request(filter: str, options: int, version_5: bool) -> SubscriptionRequest:
    if options & (0b1100_0000 if version_5 else 0b1111_1100):  # [MQTT-3.8.3-5]
        raise MalformedPacket("a reserved bit of the Subscription Options is set")
    qos, retain_handling = options & 3, options >> 4 & 3
    if qos == 3 or retain_handling == 3:  # [MQTT3-3.8.3-4]
        raise ProtocolViolation("a Subscription has QoS 3 or Retain Handling 3")
    no_local, retain_as_published = options & 0b100 != 0, options & 0b1000 != 0
    if no_local and is_shared(filter):  # [MQTT-3.8.3-4]
        raise ProtocolViolation("a Shared Subscription has No Local set")
    return SubscriptionRequest(filter, qos, no_local, retain_as_published, retain_handling)


def _disconnect(reader: Reader, version_5: bool, limits: Limits) -> Disconnect:
    disconnect = Disconnect()
    if version_5 and not reader.at_end():
        kind = PacketType.DISCONNECT
        disconnect.reason_code = _reason_code(kind, reader)
        if not reader.at_end():
            properties = read_properties(reader, kind, limits.properties_per_packet_max)
            disconnect.session_expiry_s = properties.get(Property.SESSION_EXPIRY_INTERVAL)
            disconnect.reason_string = properties.get(Property.REASON_STRING)
            disconnect.user_properties = properties.get(Property.USER_PROPERTY, [])
    return disconnect


def _auth(reader: Reader, limits: Limits) -> Auth:
    auth = Auth(0)
    if not reader.at_end():
        auth.reason_code = _reason_code(PacketType.AUTH, reader)
        properties = read_properties(reader, PacketType.AUTH, limits.properties_per_packet_max)
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
