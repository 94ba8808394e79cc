from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from broker.config import Config
from broker.errors import MalformedPacket, UnsupportedProtocolVersion
from broker.mqtt import decode
from broker.mqtt.decode import Decoder
from broker.mqtt.encode import encode
from broker.mqtt.fields import binary
from broker.mqtt.limits import Limits
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Auth,
    Connect,
    PacketType,
    Pingreq,
    Publish,
    RefusedPublish,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from broker.mqtt.publishes import PublishReader
from tests.support.wire import chunks

LIMITS = Limits.of(Config())
BIG = Publish("t", b"x" * 2_000_000, 1, False, False, 1)


@pytest.fixture
def decoder() -> Decoder:
    """Of a connection past its CONNECT."""
    decoder = Decoder(LIMITS)
    decoder.version = MQTT_5
    return decoder


def drain(decoder: Decoder) -> list[Any]:
    packets: list[Any] = []
    while (packet := decoder.next(packets)) is not None:
        packets.append(packet)
    return packets


@pytest.mark.parametrize("kind", [Subscribe, Unsubscribe])
def test_many_topic_filters_are_read_in_parts(decoder: Decoder, kind: type) -> None:
    """And what comes meanwhile is read behind them."""
    filters = [f"t/{n}" for n in range(2500)]
    packet: Subscribe | Unsubscribe = Unsubscribe(1, filters)
    if kind is Subscribe:
        packet = Subscribe(1, [SubscriptionRequest(filter, 1) for filter in filters])
    data = encode(packet, MQTT_5) + encode(Pingreq(), MQTT_5)
    decoder.feed(data[:-1])
    calls = 1
    while (found := decoder.next([])) is None:
        assert decoder.reading is not None
        calls += 1
        if calls == 2:
            decoder.feed(data[-1:])
    assert (found, calls) == (packet, 3)
    assert decoder.reading is None
    assert drain(decoder) == [Pingreq()]


def test_a_packet_in_many_reads_is_looked_at_when_it_is_whole(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear work: neither are its bytes joined at each read nor its header read again."""
    looked_at = []
    read = PublishReader.read

    def counting(self: PublishReader, data: bytes, *arguments: Any) -> Any:
        looked_at.append(len(data))
        return read(self, data, *arguments)

    monkeypatch.setattr(PublishReader, "read", counting)
    packets: list[Any] = []
    for chunk in chunks(encode(BIG, MQTT_5), 2000):
        decoder.feed(chunk)
        packets += drain(decoder)
    assert packets == [BIG]
    assert sum(1 for size in looked_at if size) <= 3


@pytest.mark.parametrize("size", range(1, 60))
def test_what_is_behind_a_large_packet_that_came_in_parts_is_read_too(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr(decode, "LARGE_BYTES", 12)
    sent: list[Any] = [
        Publish("t", b"x" * length, 1, False, False, identifier)
        for identifier, length in enumerate((30, 0, 200, 3, 9, 0), 1)
    ]
    sent.insert(2, Pingreq())
    sent.append(Pingreq())
    packets: list[Any] = []
    for chunk in chunks(b"".join(encode(packet, MQTT_5) for packet in sent), size):
        decoder.feed(chunk)
        packets += drain(decoder)
    assert packets == sent
    assert not decoder.unfinished


def test_what_is_behind_a_large_packet_is_not_copied(decoder: Decoder) -> None:
    behind = encode(Publish("t", b"y" * 1000, 1, False, False, 2), MQTT_5) * 200
    whole = encode(Publish("t", b"x" * 10_000, 1, False, False, 1), MQTT_5)
    decoder.feed(whole[:5000])
    assert drain(decoder) == []
    data = whole[5000:] + behind
    tracemalloc.start()
    try:
        decoder.feed(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 30_000
    assert len(drain(decoder)) == 201


def test_memory_follows_what_came_and_not_what_was_declared(decoder: Decoder) -> None:
    tracemalloc.start()
    try:
        decoder.feed(encode(BIG, MQTT_5)[:100])
        assert drain(decoder) == []
        current, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert current < 20_000


def test_many_small_packets_after_the_end_of_a_split_one(decoder: Decoder) -> None:
    small = [Publish("t", b"x", 1, False, False, n) for n in range(1, 1000)]
    data = b"".join(encode(packet, MQTT_5) for packet in [BIG, *small])
    data += encode(Pingreq(), MQTT_5)
    decoder.feed(data[:1_000_000])
    assert drain(decoder) == []
    decoder.feed(data[1_000_000:-1])
    assert drain(decoder) == [BIG, *small]
    decoder.feed(data[-1:])
    assert drain(decoder) == [Pingreq()]


@pytest.mark.parametrize(
    ("name", "level", "version"),
    [
        (b"MQTT", 4, MQTT_3_1_1),
        (b"MQTT", 5, MQTT_5),
        (b"MQTT", 3, MQTT_3_1_1),
        (b"MQTT", 6, MQTT_5),
        (b"MQTT", 0x84, MQTT_3_1_1),
        (b"MQTT", 0x85, MQTT_5),
        (b"MQTT", 0x83, MQTT_3_1_1),
        (b"MQTT", 0x86, MQTT_5),
        (b"MQIsdp", 3, MQTT_3_1_1),
        (b"MQIsdp", 0x83, MQTT_3_1_1),
        (b"MQIsdp", 4, None),
        (b"mqtt", 4, None),
    ],
)
def test_the_version_is_known_also_where_connect_is_refused(
    name: bytes, level: int, version: int | None
) -> None:
    """[MQTT-3.1.2-1, 2]"""
    decoder = Decoder(LIMITS)
    body = (
        binary(name)
        + bytes((level, 2, 0, 0))
        + (b"\0" if level & 0x7F == MQTT_5 else b"")
        + b"\0\0"
    )
    decoder.feed(bytes((0x10, len(body))) + body)
    if name == b"MQTT" and level & 0x7F in (MQTT_3_1_1, MQTT_5):
        assert decoder.next([]) == Connect(level & 0x7F, "", True, 0, bridge=level > 0x7F)
    else:
        with pytest.raises(UnsupportedProtocolVersion):
            decoder.next([])
    assert decoder.version == version


def test_each_packet_stands_where_it_came(decoder: Decoder) -> None:
    """PUBLISHes and runs of acknowledgements too, which are not decoded one by one."""
    publish = Publish("t", b"x", 0, False, False, 0)
    refused = Publish("$SYS/x", b"x", 1, False, False, 9)
    packets: list[Any] = [
        publish,
        publish,
        Ack(PacketType.PUBACK, (1, 2, 3)),
        publish,
        Ack(PacketType.PUBREC, (1,), 0x87),
        refused,
        publish,
        Pingreq(),
    ]
    decoder.feed(b"".join(encode(packet, MQTT_5) for packet in packets))
    decoded = drain(decoder)
    assert isinstance(decoded[5], RefusedPublish)
    decoded[5] = refused
    assert decoded == packets


def test_auth_is_for_5(decoder: Decoder) -> None:
    decoder.feed(b"\xf0\0")
    assert drain(decoder) == [Auth(0)]
    decoder.version = MQTT_3_1_1
    decoder.feed(b"\xf0\0")
    with pytest.raises(MalformedPacket):
        decoder.next([])


@pytest.mark.parametrize("packet", ["C0 01 00", "40 03 0001 00", "E0 01 00"])
def test_a_packet_that_goes_on_after_its_fields_is_malformed(packet: str) -> None:
    decoder = Decoder(LIMITS)
    decoder.version = MQTT_3_1_1
    decoder.feed(bytes.fromhex(packet))
    with pytest.raises(MalformedPacket):
        decoder.next([])


def test_each_read_begins_anew(decoder: Decoder) -> None:
    for _ in range(3):
        decoder.feed(encode(Pingreq(), MQTT_5) + encode(BIG, MQTT_5)[:1])
        assert drain(decoder) == [Pingreq()]
        decoder.feed(encode(BIG, MQTT_5)[1:])
        assert drain(decoder) == [BIG]


@pytest.mark.parametrize("header", ["00", "20", "90", "B0", "D0", "41", "60", "80", "C1", "E2"])
def test_a_first_byte_of_no_client_is_malformed(decoder: Decoder, header: str) -> None:
    decoder.feed(bytes.fromhex(header) + b"\0")
    with pytest.raises(MalformedPacket):
        decoder.next([])
