from __future__ import annotations

import tracemalloc
from typing import Any

import pytest

from broker.config import Config
from broker.errors import MalformedPacket, TopicNameInvalid, TopicNameReserved
from broker.mqtt.decode import Decoder, TopicNames
from broker.mqtt.encode import encode
from broker.mqtt.limits import Limits
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5, Ack, PacketType, Pingreq, Publish
from tests.support.wire import chunks

BIG = Publish("t", b"x" * 2_000_000, 1, False, False, 1)


@pytest.fixture
def decoder() -> Decoder:
    """Of a connection past its CONNECT."""
    decoder = Decoder(Limits.of(Config()))
    decoder.version = MQTT_5
    return decoder


def drain(decoder: Decoder) -> list[Any]:
    packets: list[Any] = []
    while (packet := decoder.next(packets)) is not None:
        packets.append(packet)
    return packets


def test_a_packet_in_many_reads_is_looked_at_when_it_is_whole(
    decoder: Decoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Linear work: neither are its bytes joined at each read nor its header read again."""
    looked_at = []
    publishes = Decoder._publishes

    def counting(self: Decoder, data: bytes, position: int, packets: list[Any]) -> int:
        looked_at.append(len(data))
        return publishes(self, data, position, packets)

    monkeypatch.setattr(Decoder, "_publishes", counting)
    packets: list[Any] = []
    for chunk in chunks(encode(BIG, MQTT_5), 2000):
        decoder.feed(chunk)
        packets += drain(decoder)
    assert packets == [BIG]
    assert sum(1 for size in looked_at if size) <= 3


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


@pytest.mark.parametrize("count", [1, 2, 8, 9, 71, 72, 73, 600, 5000])
@pytest.mark.parametrize("tail", ["", "00", "00 00"])
@pytest.mark.parametrize("after", ["", "C0 00", "50 02 00 09", "40"])
def test_acknowledgements_come_as_one_run(
    decoder: Decoder, count: int, tail: str, after: str
) -> None:
    zeros = bytes.fromhex(tail)
    header = bytes((0x40, 2 + len(zeros)))
    wanted = range(1, count + 1)
    run = b"".join(header + n.to_bytes(2, "big") + zeros for n in wanted)
    decoder.feed(run + bytes.fromhex(after))
    ack = decoder.next([])
    assert isinstance(ack, Ack)
    assert ack.type == PacketType.PUBACK
    assert list(ack.packet_ids) == list(wanted)
    assert len(drain(decoder)) == (1 if len(after) > 2 else 0)


def test_a_run_of_3_1_1(decoder: Decoder) -> None:
    decoder.version = MQTT_3_1_1
    decoder.feed(encode(Ack(PacketType.PUBREL, range(1, 100)), MQTT_3_1_1))
    assert drain(decoder) == [Ack(PacketType.PUBREL, tuple(range(1, 100)))]


def test_a_run_may_hold_identifiers_that_look_like_headers(decoder: Decoder) -> None:
    packet_ids = [0x4002, 0x0240, 0x0002, 0x4040, 0x0202]
    decoder.feed(encode(Ack(PacketType.PUBACK, packet_ids), MQTT_5))
    [ack] = drain(decoder)
    assert list(ack.packet_ids) == packet_ids


class TestTopicNames:
    def test_are_bounded(self) -> None:
        names = TopicNames(4096, 128)
        for number in range(TopicNames.NAMES_MAX + 10):
            assert names[f"a/{number}".encode()] == f"a/{number}"
        assert len(names) <= TopicNames.NAMES_MAX

    def test_long_and_bad_ones_are_not_kept(self) -> None:
        names = TopicNames(4096, 128)
        assert names[b"x" * 4096] == "x" * 4096
        for bad, error in (
            (b"#", TopicNameInvalid),
            (b"\xff", MalformedPacket),
            (b"$SYS/x", TopicNameReserved),
        ):
            with pytest.raises(error):
                names[bad]
        assert not names
