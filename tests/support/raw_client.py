"""RawClient: a client that hides nothing. It sends what it is told and acknowledges nothing."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from itertools import count
from types import TracebackType
from typing import Protocol, Self, TypeVar

from broker.mqtt.encode import encode
from broker.mqtt.fields import Reader
from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    FromClient,
    FromServer,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
)
from broker.mqtt.properties import Property, message_properties, read_properties

TIMEOUT_S = 10.0

P = TypeVar("P")


class RawClient:
    """A socket to the broker. As a context manager it is closed in the end, without DISCONNECT.

    `receive` and what builds on it fail with TimeoutError after `TIMEOUT_S`.
    """

    def __init__(self, port: int, version: int = MQTT_5) -> None:
        self.version = version
        self.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT_S)
        self._buffer = bytearray()
        self._packet_ids = count(1)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.socket.close()

    def send(self, *packets: FromClient | Publish | bytes) -> None:
        """All in one write."""
        self.socket.sendall(
            b"".join(
                packet if isinstance(packet, bytes) else encode(packet, self.version)
                for packet in packets
            )
        )

    def connect(self, connect: Connect) -> Connack:
        self.send(connect)
        return self.expect(Connack)

    def subscribe(self, filter: str, qos: int = 2) -> None:
        """At once nothing else may come, so of a filter that has no retained messages."""
        self.send(Subscribe(next(self._packet_ids), [SubscriptionRequest(filter, qos)]))
        assert self.expect(Suback).reason_codes == [qos]

    def publish_all(self, topic: str, payloads: Iterable[bytes], qos: int = 1) -> None:
        """In one write; returns when all are acknowledged. At most 2000 at QoS 1."""
        packets = [
            Publish(topic, payload, qos, False, False, packet_id if qos else 0)
            for packet_id, payload in enumerate(payloads, 1)
        ]
        self.send(*packets)
        if qos:
            assert [self.expect(Ack).packet_ids[0] for _ in packets] == [
                packet.packet_id for packet in packets
            ]

    def expect(self, kind: type[P]) -> P:
        packet = self.receive()
        assert isinstance(packet, kind), packet
        return packet

    def receive(self) -> FromServer | None:
        """The next packet; None when the broker has closed the connection."""
        while (packet := next_packet(self._buffer, self.version)) is None:
            data = self._recv()
            if not data:
                return None
            self._buffer += data
        return packet

    def receive_bytes(self, size: int) -> bytes:
        """The next bytes as they are; fewer when the broker has closed the connection."""
        while len(self._buffer) < size and (data := self._recv()):
            self._buffer += data
        taken = bytes(self._buffer[:size])
        del self._buffer[:size]
        return taken

    def _recv(self) -> bytes:
        """What comes next; nothing when the connection is closed."""
        try:
            return self.socket.recv(1 << 16)
        except ConnectionResetError:
            return b""

    def closed(self) -> bool:
        """Whether nothing comes but the end of the connection."""
        return self.receive() is None


def connect_packet(client_id: str, *, version: int = MQTT_5, durable: bool = False) -> Connect:
    """Take up a durable session, or have one that ends with the connection."""
    expiry_s = 3600 if durable and version == MQTT_5 else None
    return Connect(version, client_id, not durable, 60, session_expiry_s=expiry_s)


def publish_many(port: int, topic: str, payloads: Iterable[bytes], *, client_id: str) -> None:
    """By a client of its own, at QoS 1, as fast as can be."""
    with RawClient(port) as client:
        client.connect(connect_packet(client_id))
        client.publish_all(topic, payloads)
        client.send(Disconnect())


class Dial(Protocol):
    def __call__(self, connect: Connect, *, port: int = 0, present: bool = False) -> RawClient: ...


def expect_nothing(client: RawClient) -> None:
    """The answer to a ping is the next to come."""
    client.send(Pingreq())
    client.expect(Pingresp)


def next_packet(buffer: bytearray, version: int = MQTT_5) -> FromServer | None:
    """Cut a packet off the buffer; None if it has no whole one."""
    if (framed := _frame(buffer)) is None:
        return None
    first, body = framed
    return _parse(first, Reader(body, 0, len(body)), version == MQTT_5)


def _frame(buffer: bytearray) -> tuple[int, bytes] | None:
    """Cut a whole packet off the buffer: its first byte and its body."""
    length = 0
    for index in range(1, 5):
        if index >= len(buffer):
            return None
        length |= (buffer[index] & 0x7F) << 7 * (index - 1)
        if buffer[index] < 0x80:
            break
    end = 1 + index + length
    if len(buffer) < end:
        return None
    first, body = buffer[0], bytes(buffer[1 + index : end])
    del buffer[:end]
    return first, body


def _parse(first: int, reader: Reader, version_5: bool) -> FromServer:
    kind = PacketType(first >> 4)
    packet: FromServer
    match kind:
        case PacketType.CONNACK:
            packet = Connack(reader.byte() == 1, reader.byte())
            if version_5:
                packet.properties = read_properties(reader, kind)
        case PacketType.PUBLISH:
            packet = _publish(first, reader, version_5)
        case PacketType.PUBACK | PacketType.PUBREC | PacketType.PUBREL | PacketType.PUBCOMP:
            packet = Ack(kind, [reader.u16()])
            if not reader.at_end():
                packet.reason_code = reader.byte()
            if not reader.at_end():
                properties = read_properties(reader, kind)
                packet.reason_string = properties.get(Property.REASON_STRING)
                packet.user_properties = properties.get(Property.USER_PROPERTY, [])
        case PacketType.SUBACK | PacketType.UNSUBACK:
            answer = Suback if kind is PacketType.SUBACK else Unsuback
            packet = answer(reader.u16(), [])
            if version_5:
                packet.properties = read_properties(reader, kind)
            packet.reason_codes = list(reader.take(reader.end - reader.position))
        case PacketType.PINGRESP:
            packet = Pingresp()
        case PacketType.DISCONNECT:
            packet = Disconnect()
            if not reader.at_end():
                packet.reason_code = reader.byte()
            if not reader.at_end():
                properties = read_properties(reader, kind)
                packet.reason_string = properties.get(Property.REASON_STRING)
                packet.server_reference = properties.get(Property.SERVER_REFERENCE)
        case PacketType.AUTH:
            packet = Auth(reader.byte())
            properties = read_properties(reader, kind)
            packet.method = properties[Property.AUTHENTICATION_METHOD]
            packet.data = properties.get(Property.AUTHENTICATION_DATA)
        case _:
            raise AssertionError(f"a broker does not send {kind.name}")
    reader.expect_end()
    return packet


def _publish(first: int, reader: Reader, version_5: bool) -> Publish:
    """`properties` stay as they came, but for the Message Expiry Interval; no Subscription
    Identifiers are expected."""
    qos = first >> 1 & 3
    topic = reader.string()
    packet_id = reader.u16() if qos else 0
    publish = Publish(topic, b"", qos, bool(first & 1), bool(first & 8), packet_id)
    if version_5:
        properties = message_properties(reader.take(reader.varint()), PacketType.PUBLISH)
        publish.properties = properties.forwarded
        publish.message_expiry_s = properties.message_expiry_s
    publish.payload = reader.take(reader.end - reader.position)
    return publish
