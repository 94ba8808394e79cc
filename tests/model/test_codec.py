"""What is written is read again, any bytes give only events, and chunking changes nothing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from broker.message import Grant, Message, Monotonic
from broker.mqtt.connection import Closed, Connection, Event
from broker.mqtt.decode import Decoder
from broker.mqtt.encode import encode
from broker.mqtt.fields import PACKET_BYTES_MAX
from broker.mqtt.limits import Limits
from broker.mqtt.outgoing import encode_publishes
from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Auth,
    Connack,
    Connect,
    Disconnect,
    FromClient,
    PacketType,
    Pingreq,
    Publish,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from broker.mqtt.properties import Property, property_section, user_properties
from broker.mqtt.reasons import FROM_CLIENT
from broker.topics import SYS, has_control_character
from tests.support.wire import one_by_one

NOW = Monotonic(0.0)

LIMITS = Limits(
    packet_bytes_max=2000,
    topic_bytes_max=65_535,
    topic_levels_max=128,
    receive_max=5,
    topic_alias_max=3,
    properties_per_packet_max=1000,
    filters_per_packet_max=1000,
    connect_timeout_s=10.0,
)

versions = st.sampled_from([4, 5])
packet_ids = st.integers(1, 65_535)
texts = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=30)
names = texts.filter(lambda text: not has_control_character(text))
"""Client identifiers, texts among the properties of a message, and what Topic Names are made of:
those with a control character or non-character are refused."""
topics = names.map(lambda name: name.translate({ord("+"): None, ord("#"): None})).filter(
    lambda topic: topic.partition("/")[0] not in ("", SYS)
)
filters = st.lists(st.sampled_from(["a", "", "+", "é"]), min_size=2, max_size=5).map("/".join)
u32s = st.integers(0, 2**32 - 1)
qos_levels = st.integers(0, 2)


def pairs(version: int) -> st.SearchStrategy[list[tuple[str, str]]]:
    return st.lists(st.tuples(texts, texts), max_size=3) if version == MQTT_5 else st.just([])


def only_5(version: int, values: st.SearchStrategy[Any], default: Any = None) -> Any:
    return values if version == MQTT_5 else st.just(default)


FORWARDED: dict[int, st.SearchStrategy[Any]] = {
    Property.PAYLOAD_FORMAT_INDICATOR: st.integers(0, 1),
    Property.CONTENT_TYPE: names,
    Property.RESPONSE_TOPIC: topics,
    Property.CORRELATION_DATA: st.binary(max_size=10),
    Property.USER_PROPERTY: st.lists(st.tuples(names, names), min_size=1, max_size=3),
}


@st.composite
def forwarded(draw: st.DrawFn) -> bytes:
    """Properties that a message carries to its subscribers, in any order."""
    chosen = draw(st.lists(st.sampled_from(sorted(FORWARDED)), unique=True))
    sections = [property_section({each: draw(FORWARDED[each])}, b"") for each in chosen]
    return b"".join(section[1 if len(section) < 129 else 2 :] for section in sections)


@st.composite
def connects(draw: st.DrawFn, version: int) -> Connect:
    five = version == MQTT_5
    will = Will(
        draw(topics),
        draw(st.binary(max_size=20)),
        draw(qos_levels),
        draw(st.booleans()),
        draw(only_5(version, forwarded(), b"")),
        draw(only_5(version, st.none() | u32s)),
        draw(only_5(version, u32s, 0)),
    )
    username = draw(st.none() | texts)
    method = draw(only_5(version, st.none() | texts))
    return Connect(
        version,
        draw(names),
        draw(st.booleans()),
        draw(st.integers(0, 65_535)),
        draw(st.sampled_from([None, will])),
        username,
        draw(st.none() | st.binary(max_size=9)) if five or username is not None else None,
        draw(only_5(version, st.none() | u32s)),
        draw(only_5(version, st.integers(1, 65_535), 65_535)),
        draw(only_5(version, st.none() | st.integers(1, 2**32 - 1))),
        draw(only_5(version, st.integers(0, 65_535), 0)),
        draw(only_5(version, st.booleans(), False)),
        draw(only_5(version, st.booleans(), True)),
        method,
        draw(st.none() | st.binary(max_size=9)) if method is not None else None,
        draw(pairs(version)),
    )


@st.composite
def publishes(draw: st.DrawFn, version: int) -> Publish:
    qos = draw(qos_levels)
    return Publish(
        draw(topics),
        draw(st.binary(max_size=300)),
        qos,
        draw(st.booleans()),
        draw(st.booleans()) if qos else False,
        draw(packet_ids) if qos else 0,
        draw(only_5(version, forwarded(), b"")),
        draw(only_5(version, st.none() | u32s)),
    )


@st.composite
def acks(draw: st.DrawFn, version: int) -> Ack:
    kind = draw(
        st.sampled_from(
            [PacketType.PUBACK, PacketType.PUBREC, PacketType.PUBREL, PacketType.PUBCOMP]
        )
    )
    return Ack(
        kind,
        draw(st.lists(packet_ids, min_size=1, max_size=40)),
        draw(only_5(version, st.sampled_from(sorted(FROM_CLIENT[kind])), 0)),
        draw(only_5(version, st.none() | texts)),
        draw(pairs(version)),
    )


@st.composite
def subscribes(draw: st.DrawFn, version: int) -> Subscribe:
    flags = only_5(version, st.booleans(), False)
    handling = only_5(version, st.integers(0, 2), 0)
    requests = st.builds(SubscriptionRequest, filters, qos_levels, flags, flags, handling)
    return Subscribe(
        draw(packet_ids),
        draw(st.lists(requests, min_size=1, max_size=4)),
        draw(only_5(version, st.none() | st.integers(1, 268_435_455))),
        draw(pairs(version)),
    )


def unsubscribes(version: int) -> st.SearchStrategy[Unsubscribe]:
    return st.builds(
        Unsubscribe, packet_ids, st.lists(filters, min_size=1, max_size=4), pairs(version)
    )


def disconnects(version: int) -> st.SearchStrategy[Disconnect]:
    return st.builds(
        Disconnect,
        only_5(version, st.sampled_from(sorted(FROM_CLIENT[PacketType.DISCONNECT])), 0),
        only_5(version, st.none() | u32s),
        only_5(version, st.none() | texts),
        pairs(version),
    )


def auths() -> st.SearchStrategy[Auth]:
    return st.builds(
        Auth,
        st.sampled_from([0x18, 0x19]),
        st.none() | texts,
        st.none() | st.binary(max_size=9),
        st.none() | texts,
        pairs(MQTT_5),
    )


def after_connect(version: int) -> st.SearchStrategy[FromClient]:
    return (
        publishes(version)
        | acks(version)
        | subscribes(version)
        | unsubscribes(version)
        | st.just(Pingreq())
        | disconnects(version)
    )


def decoded(data: bytes, version: int | None) -> list[Any]:
    decoder = Decoder(replace(LIMITS, packet_bytes_max=100_000))
    decoder.version = version
    decoder.feed(data)
    packets: list[Any] = []
    while (packet := decoder.next(packets)) is not None:
        packets.append(packet)
    return list(one_by_one(packets))


@given(versions.flatmap(connects))
def test_connect_is_read_as_written(connect: Connect) -> None:
    assert decoded(encode(connect, connect.version), None) == [connect]


@given(versions.flatmap(lambda v: st.tuples(st.just(v), st.lists(after_connect(v), max_size=8))))
def test_packets_are_read_as_written(case: tuple[int, list[Any]]) -> None:
    version, packets = case
    data = b"".join(encode(packet, version) for packet in packets)
    assert decoded(data, version) == list(one_by_one(packets))


@given(auths())
def test_auth_is_read_as_written(auth: Auth) -> None:
    assert decoded(encode(auth, MQTT_5), MQTT_5) == [auth]


@given(st.lists(st.tuples(texts, texts), max_size=3))
def test_user_properties_are_read_out_of_what_is_forwarded(wanted: list[tuple[str, str]]) -> None:
    encoded = property_section({Property.USER_PROPERTY: wanted, Property.CONTENT_TYPE: "&&"}, b"")
    assert user_properties(encoded[1 if len(encoded) < 129 else 2 :]) == wanted


@st.composite
def deliveries(draw: st.DrawFn, version: int) -> tuple[Message, Grant]:
    publish = draw(publishes(version))
    message = Message(
        draw(st.sampled_from(["t", "u/é", publish.topic])),
        publish.payload,
        publish.qos,
        publish.retain,
        "publisher",
        0,
        draw(st.none() | st.integers(1_000_000, 10_000_000)),
        publish.properties,
    )
    return message, draw(st.sampled_from(GRANTS))


GRANTS = [
    Grant(qos, as_published, (), retained)
    for qos in range(3)
    for as_published in (False, True)
    for retained in (False, True)
]


@given(
    versions.flatmap(lambda v: st.tuples(st.just(v), st.lists(deliveries(v), max_size=8))),
    st.booleans(),
    st.integers(20, 400) | st.just(PACKET_BYTES_MAX),
)
def test_the_hot_path_writes_what_the_plain_one_writes(
    case: tuple[int, list[tuple[Message, Grant]]], dup: bool, packet_bytes_max: int
) -> None:
    version, outgoing = case
    now_us = 500_000
    wanted = []
    for packet_id, (message, grant) in enumerate(outgoing, 1):
        qos = min(message.qos, grant.qos)
        expires_s = None
        if message.expires_at_us is not None:
            expires_s = (message.expires_at_us - now_us + 999_999) // 1_000_000
        publish = Publish(
            message.topic,
            message.payload,
            qos,
            grant.retained or (message.retain and grant.retain_as_published),
            dup and qos > 0,
            packet_id if qos else 0,
            message.properties,
            expires_s,
        )
        wanted.append(encode(publish, version))
    data, left_out = encode_publishes(
        version,
        outgoing,
        range(1, len(outgoing) + 1),
        dup=dup,
        now_us=now_us,
        packet_bytes_max=packet_bytes_max,
    )
    assert data == b"".join(packet for packet in wanted if len(packet) <= packet_bytes_max)
    assert left_out == [
        index for index, packet in enumerate(wanted) if len(packet) > packet_bytes_max
    ]


@st.composite
def damaged_streams(draw: st.DrawFn) -> tuple[int | None, bytes]:
    """What a client might send, after CONNECT or (None) as the first, a few bytes being wrong."""
    version = draw(st.sampled_from([None, 4, 5]))
    if version is None:
        packets: list[Any] = [draw(connects(draw(versions)))]
    else:
        packets = draw(st.lists(after_connect(version), max_size=8))
    data = bytearray(b"".join(encode(packet, version or packet.version) for packet in packets))
    for _ in range(draw(st.integers(0, 3)) if data else 0):
        start = draw(st.integers(0, len(data)))
        data[start : start + draw(st.integers(0, 3))] = draw(st.binary(max_size=3))
    return version, bytes(data) + draw(st.binary(max_size=20))


def received(version: int | None, chunks: Iterator[bytes]) -> tuple[list[Event], bytes]:
    """The events of a stream, and what is answered."""
    connection = Connection(now=NOW, limits=LIMITS)
    if version is not None:
        connection.receive_data(encode(Connect(version, "c", True, 0), version), NOW)
        connection.accept(Connack(False, 0))
        connection.data_to_send()
    events: list[Event] = []
    for chunk in chunks:
        events += connection.receive_data(chunk, NOW)
    assert connection.closed == any(isinstance(event, Closed | Disconnect) for event in events)
    assert not any(isinstance(event, Closed | Disconnect) for event in events[:-1])
    return list(one_by_one(events)), connection.data_to_send()


@settings(max_examples=4 * settings().max_examples)
@given(damaged_streams(), st.lists(st.integers(0, 400), max_size=20))
def test_any_bytes_give_events_and_chunking_changes_nothing(
    stream: tuple[int | None, bytes], cuts: list[int]
) -> None:
    version, data = stream
    whole = received(version, iter((data,)))
    edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    parts = (data[start:end] for start, end in pairwise(edges))
    assert received(version, parts) == whole
    assert received(version, (data[i : i + 1] for i in range(len(data)))) == whole
