"""Any bytes to a Connection: events or a refusal, and answers that the client can read.

The first byte says what was before (nothing, a CONNECT of 3.1.1 or of 5.0, one of a client that
wants little) and how the rest is cut.
"""

from __future__ import annotations

from dataclasses import replace

from broker.errors import NotAuthorized
from broker.message import Grant, Message, Monotonic
from broker.mqtt.connection import Closed, Connection, Event
from broker.mqtt.encode import encode
from broker.mqtt.fields import Reader
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    Connect,
    Disconnect,
    PacketType,
    Properties,
    Publish,
    RefusedPublish,
    Suback,
    Subscribe,
    Unsuback,
    Unsubscribe,
)
from broker.mqtt.properties import Property
from tests.support.wire import chunks, one_by_one

NOW = Monotonic(0.0)

SMALL_BYTES = 24
BEFORE = (
    None,
    Connect(MQTT_3_1_1, "c", False, 60),
    Connect(MQTT_5, "c", True, 60, session_expiry_s=1),
    Connect(
        MQTT_5,
        "c",
        True,
        60,
        session_expiry_s=1,
        packet_bytes_max=SMALL_BYTES,
        request_problem_information=False,
    ),
)
ANSWERS = {
    PacketType.PUBREC: PacketType.PUBREL,
    PacketType.PUBREL: PacketType.PUBCOMP,
}
PROPERTIES: Properties = {Property.REASON_STRING: "why", Property.USER_PROPERTY: [("k", "v")]}


LIMITS = Limits(
    packet_bytes_max=256,
    topic_bytes_max=40,
    topic_levels_max=6,
    receive_max=4,
    topic_alias_max=3,
    properties_per_packet_max=20,
    filters_per_packet_max=20,
    connect_timeout_s=10.0,
)


def check(data: bytes) -> None:
    if not data:
        return
    before, size, stream = BEFORE[data[0] & 3], 1 + (data[0] >> 2), data[1:]
    events, written = received(before, [stream])
    assert received(before, list(chunks(stream, size))) == (events, written)
    for event in events:
        if not isinstance(event, Closed | RefusedPublish) and not authenticates(event):
            assert read_again(before, event) == [event]
    readable(before, list(chunks(stream, size)))


class Echo:
    """An authentication method: asks with what it is told until that is `ok`, or `no`."""

    user = None

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        if data == b"no":
            raise NotAuthorized("no")
        return data, data == b"ok"


def connection(
    before: Connect | None, *, packet_bytes_max: int = LIMITS.packet_bytes_max
) -> Connection:
    connection = Connection(
        now=NOW,
        limits=replace(LIMITS, packet_bytes_max=packet_bytes_max),
        methods={"m": Echo},
    )
    if before is not None:
        connection.receive_data(encode(before, before.version), NOW)
        connection.accept(Connack(False, 0))
        connection.data_to_send()
    return connection


def received(before: Connect | None, parts: list[bytes]) -> tuple[list[Event], bytes]:
    """The events of a stream that nobody but the connection answers, and how that does."""
    peer = connection(before)
    events: list[Event] = []
    for part in parts:
        events += peer.receive_data(part, NOW)
    ends = [event for event in events if isinstance(event, Closed | Disconnect)]
    assert ends == (events[-1:] if peer.closed else [])
    return list(one_by_one(events)), peer.data_to_send()


def authenticates(event: Event) -> bool:
    return isinstance(event, Connect) and event.authentication_method is not None


def read_again(before: Connect | None, event: Event) -> list[Event]:
    """What the event is when it is written and read once more."""
    assert not isinstance(event, Closed | RefusedPublish)
    version = event.version if isinstance(event, Connect) else None
    if version is None:
        before = before or BEFORE[-2]  # An event after CONNECT in the stream itself.
        assert before is not None
        version = before.version
    else:
        before = None
    again = connection(before, packet_bytes_max=1024)
    return list(one_by_one(again.receive_data(encode(event, version), NOW)))


def readable(before: Connect | None, parts: list[bytes]) -> None:
    """Answer as a broker does: whole packets come out, none larger than the client reads."""
    peer = connection(before)
    for part in parts:
        for event in peer.receive_data(part, NOW):
            answer(peer, event)
        written = peer.data_to_send()
        for length in frames(written):
            assert length <= peer.packet_bytes_max
        if peer.closed:
            assert peer.receive_data(b"\xc0\0", NOW) == []
            assert peer.data_to_send() == b""
            return


def answer(peer: Connection, event: Event) -> None:
    match event:
        case Connect() if not peer.closed:
            peer.accept(Connack(False, 0, dict(PROPERTIES)))
        case RefusedPublish() if event.qos:
            kind = PacketType.PUBACK if event.qos == 1 else PacketType.PUBREC
            peer.send(Ack(kind, [event.packet_id], event.reason_code, event.reason))
        case Publish():
            message = Message(
                event.topic, event.payload, event.qos, event.retain, "c", 0, None, event.properties
            )
            peer.send_publishes([(message, Grant(event.qos))] * 2, [1, 2], now_us=0)
            if event.qos == 0:
                return
            kind = PacketType.PUBACK if event.qos == 1 else PacketType.PUBREC
            peer.send(Ack(kind, [event.packet_id], 0x10, "nobody", [("k", "v" * event.qos)]))
        case Ack() if event.type in ANSWERS:
            peer.send(Ack(ANSWERS[event.type], event.packet_ids, 0x92, "unknown"))
        case Subscribe():
            codes = [request.qos for request in event.requests]
            peer.send(Suback(event.packet_id, codes, dict(PROPERTIES)))
        case Unsubscribe():
            peer.send(Unsuback(event.packet_id, [0x11] * len(event.filters), dict(PROPERTIES)))


def frames(written: bytes) -> list[int]:
    """The lengths of the packets, which fill the bytes."""
    reader = Reader(written, 0, len(written))
    lengths = []
    while not reader.at_end():
        start = reader.position
        first = reader.byte()
        assert first >> 4 == PacketType.PUBLISH or first & 0x0F in (0, 2)
        reader.take(reader.varint())
        lengths.append(reader.position - start)
    return lengths
