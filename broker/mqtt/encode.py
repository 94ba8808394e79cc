"""Packets to bytes, 3.1.1 and 5.0 side by side: also those that only a client sends, for tests and
load generators. What 3.1.1 cannot say is left out.

Messages on their way to a client are not made into packets first: `outgoing.py` writes those.
"""

from __future__ import annotations

from struct import pack
from typing import assert_never

from broker.mqtt.fields import binary, string, u16, varint
from broker.mqtt.packets import (
    FIRST_BYTES,
    MQTT_5,
    RECEIVE_MAXIMUM_DEFAULT,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Properties,
    Publish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
    UserProperties,
    Will,
)
from broker.mqtt.properties import Property, property_section, write_properties
from broker.mqtt.reasons import ERROR, connect_return_code

_PUBLISH = FIRST_BYTES[PacketType.PUBLISH]


def encode(packet: Packet, version: int) -> bytes:
    """The bytes of one packet (of one Ack: those of the whole run)."""
    version_5 = version == MQTT_5
    match packet:
        case Ack():
            return _acks(packet, version_5)
        case Publish():
            return _publish(packet, version_5)
        case Pingresp():
            return _packet(PacketType.PINGRESP)
        case Suback() | Unsuback():
            return _suback(packet, version_5)
        case Connack():
            return _connack(packet, version_5)
        case Disconnect():
            return _disconnect(packet, version_5)
        case Auth():
            return _auth(packet)
        case Connect():
            return _connect(packet)
        case Subscribe():
            return _subscribe(packet, version_5)
        case Unsubscribe():
            return _unsubscribe(packet, version_5)
        case Pingreq():
            return _packet(PacketType.PINGREQ)
        case _:
            assert_never(packet)


def _acks(ack: Ack, version_5: bool) -> bytes:
    """A whole run at once, where it has nothing but Packet Identifiers: by slices with a stride."""
    first = FIRST_BYTES[ack.type]
    tail = b""
    if version_5 and (ack.reason_code or ack.user_properties or ack.reason_string is not None):
        properties = _diagnostics(ack.reason_string, ack.user_properties)
        if properties:
            tail = bytes((ack.reason_code,)) + write_properties(properties)
        elif ack.reason_code:
            tail = bytes((ack.reason_code,))
    if tail:
        header = bytes((first,)) + varint(2 + len(tail))
        return b"".join([header + u16(packet_id) + tail for packet_id in ack.packet_ids])
    count = len(ack.packet_ids)
    if count == 1:
        return pack(">BBH", first, 2, ack.packet_ids[0])
    packet_ids = pack(f">{count}H", *ack.packet_ids)
    run = bytearray(4 * count)
    run[0::4] = bytes((first,)) * count
    run[1::4] = b"\x02" * count
    run[2::4] = packet_ids[0::2]
    run[3::4] = packet_ids[1::2]
    return bytes(run)


def _publish(publish: Publish, version_5: bool) -> bytes:
    if not version_5:
        return encode_publish(publish, b"")
    own: Properties = {}
    if publish.message_expiry_s is not None:
        own[Property.MESSAGE_EXPIRY_INTERVAL] = publish.message_expiry_s
    return encode_publish(publish, property_section(own, publish.properties))


def encode_publish(publish: Publish, properties: bytes) -> bytes:
    """A PUBLISH with this property section, empty for 3.1.1, instead of its own properties."""
    first = _PUBLISH | publish.dup << 3 | publish.qos << 1 | publish.retain
    packet_id = u16(publish.packet_id) if publish.qos else b""
    return _framed(first, string(publish.topic), packet_id, properties, publish.payload)


def _suback(packet: Suback | Unsuback, version_5: bool) -> bytes:
    kind = PacketType.SUBACK if isinstance(packet, Suback) else PacketType.UNSUBACK
    packet_id = u16(packet.packet_id)
    if version_5:
        codes = bytes(packet.reason_codes)
        return _packet(kind, packet_id, write_properties(packet.properties), codes)
    if isinstance(packet, Unsuback):
        return _packet(kind, packet_id)
    codes = bytes([min(code, ERROR) for code in packet.reason_codes])  # [MQTT3-3.9.3-2]
    return _packet(kind, packet_id, codes)


def _connack(connack: Connack, version_5: bool) -> bytes:
    """For 3.1.1 the Reason Code must have a return code (`connect_return_code`)."""
    if version_5:
        code, properties = connack.reason_code, write_properties(connack.properties)
    else:
        return_code = connect_return_code(connack.reason_code)
        assert return_code is not None
        code, properties = return_code, b""
    return _packet(PacketType.CONNACK, bytes((connack.session_present, code)), properties)


def _disconnect(disconnect: Disconnect, version_5: bool) -> bytes:
    if not version_5:
        return _packet(PacketType.DISCONNECT)
    properties = _diagnostics(disconnect.reason_string, disconnect.user_properties)
    if disconnect.session_expiry_s is not None:
        properties[Property.SESSION_EXPIRY_INTERVAL] = disconnect.session_expiry_s
    if disconnect.server_reference is not None:
        properties[Property.SERVER_REFERENCE] = disconnect.server_reference
    code = bytes((disconnect.reason_code,))
    if properties:
        return _packet(PacketType.DISCONNECT, code, write_properties(properties))
    return _packet(PacketType.DISCONNECT, code if disconnect.reason_code else b"")


def _auth(auth: Auth) -> bytes:
    properties = _diagnostics(auth.reason_string, auth.user_properties)
    if auth.method is not None:
        properties[Property.AUTHENTICATION_METHOD] = auth.method
    if auth.data is not None:
        properties[Property.AUTHENTICATION_DATA] = auth.data
    return _packet(PacketType.AUTH, bytes((auth.reason_code,)), write_properties(properties))


def _connect(connect: Connect) -> bytes:
    version_5 = connect.version == MQTT_5
    flags = connect.clean_start << 1
    fields = [string(connect.client_id)]
    if (will := connect.will) is not None:
        flags |= 0b100 | will.qos << 3 | will.retain << 5
        if version_5:
            fields.append(_will_properties(will))
        fields += (string(will.topic), binary(will.payload))
    if connect.username is not None:
        flags |= 0x80
        fields.append(string(connect.username))
    if connect.password is not None:
        flags |= 0x40
        fields.append(binary(connect.password))
    properties = _connect_properties(connect) if version_5 else b""
    head = string("MQTT") + bytes((connect.version, flags)) + u16(connect.keep_alive_s)
    return _packet(PacketType.CONNECT, head, properties, *fields)


def _connect_properties(connect: Connect) -> bytes:
    """Those that say more than their absence does."""
    properties: Properties = {}
    if connect.session_expiry_s is not None:
        properties[Property.SESSION_EXPIRY_INTERVAL] = connect.session_expiry_s
    if connect.receive_maximum != RECEIVE_MAXIMUM_DEFAULT:
        properties[Property.RECEIVE_MAXIMUM] = connect.receive_maximum
    if connect.packet_bytes_max is not None:
        properties[Property.MAXIMUM_PACKET_SIZE] = connect.packet_bytes_max
    if connect.topic_alias_maximum:
        properties[Property.TOPIC_ALIAS_MAXIMUM] = connect.topic_alias_maximum
    if connect.request_response_information:
        properties[Property.REQUEST_RESPONSE_INFORMATION] = 1
    if not connect.request_problem_information:
        properties[Property.REQUEST_PROBLEM_INFORMATION] = 0
    if connect.authentication_method is not None:
        properties[Property.AUTHENTICATION_METHOD] = connect.authentication_method
    if connect.authentication_data is not None:
        properties[Property.AUTHENTICATION_DATA] = connect.authentication_data
    properties[Property.USER_PROPERTY] = connect.user_properties
    return write_properties(properties)


def _will_properties(will: Will) -> bytes:
    own: Properties = {}
    if will.delay_s:
        own[Property.WILL_DELAY_INTERVAL] = will.delay_s
    if will.message_expiry_s is not None:
        own[Property.MESSAGE_EXPIRY_INTERVAL] = will.message_expiry_s
    return property_section(own, will.properties)


def _subscribe(subscribe: Subscribe, version_5: bool) -> bytes:
    fields = [u16(subscribe.packet_id)]
    if version_5:
        properties: Properties = {Property.USER_PROPERTY: subscribe.user_properties}
        if subscribe.subscription_id is not None:
            properties[Property.SUBSCRIPTION_IDENTIFIER] = subscribe.subscription_id
        fields.append(write_properties(properties))
    for request in subscribe.requests:
        options = request.qos
        if version_5:
            options |= request.no_local << 2 | request.retain_as_published << 3
            options |= request.retain_handling << 4
        fields += (string(request.filter), bytes((options,)))
    return _packet(PacketType.SUBSCRIBE, *fields)


def _unsubscribe(unsubscribe: Unsubscribe, version_5: bool) -> bytes:
    fields = [u16(unsubscribe.packet_id)]
    if version_5:
        fields.append(write_properties({Property.USER_PROPERTY: unsubscribe.user_properties}))
    return _packet(
        PacketType.UNSUBSCRIBE, *fields, *(string(filter) for filter in unsubscribe.filters)
    )


def _diagnostics(reason_string: str | None, user_properties: UserProperties) -> Properties:
    properties: Properties = {}
    if reason_string is not None:
        properties[Property.REASON_STRING] = reason_string
    if user_properties:
        properties[Property.USER_PROPERTY] = user_properties
    return properties


def _packet(kind: PacketType, *fields: bytes) -> bytes:
    return _framed(FIRST_BYTES[kind], *fields)


def _framed(first: int, *fields: bytes) -> bytes:
    body = b"".join(fields)
    return bytes((first,)) + varint(len(body)) + body
