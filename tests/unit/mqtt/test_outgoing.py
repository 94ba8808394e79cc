from __future__ import annotations

import pytest

from broker.message import Grant, Message, Outgoing
from broker.mqtt import outgoing as module
from broker.mqtt.fields import PACKET_BYTES_MAX, Reader
from broker.mqtt.outgoing import TopicAliases, encode_aliased, encode_publishes, fits
from broker.mqtt.packets import MQTT_3_1_1, MQTT_5
from tests.support.wire import script_bytes

NOW_US = 1_000_000_000


def message(qos: int = 1, *, retain: bool = False, topic: str = "t") -> Message:
    return Message(topic, b"hi", qos, retain, "publisher", NOW_US)


def written(*outgoing: Outgoing, version: int = MQTT_5, dup: bool = False) -> bytes:
    data, left_out = encode_publishes(
        version,
        outgoing,
        range(1, 1 + len(outgoing)),
        dup=dup,
        now_us=NOW_US,
        packet_bytes_max=PACKET_BYTES_MAX,
    )
    assert left_out == []
    return data


@pytest.mark.parametrize("granted", [0, 1, 2])
@pytest.mark.parametrize("published", [0, 1, 2])
def test_qos_is_the_lower_one(published: int, granted: int) -> None:
    """[MQTT-3.8.4-8]"""
    data = written((message(published), Grant(granted)), version=MQTT_3_1_1)
    qos = min(published, granted)
    wanted = f"{0x30 | qos << 1:02X} (0001 't' {'0001' if qos else ''} 'hi')"
    assert data == script_bytes(wanted)


@pytest.mark.parametrize(
    ("retain", "grant", "flag"),
    [
        (True, Grant(0), 0),  # [MQTT-3.3.1-12]
        (True, Grant(0, retain_as_published=True), 1),  # [MQTT-3.3.1-13]
        (False, Grant(0, retain_as_published=True), 0),
        (True, Grant(0, retained=True), 1),  # [MQTT3-3.3.1-8]
    ],
)
def test_retain(retain: bool, grant: Grant, flag: int) -> None:
    assert written((message(0, retain=retain), grant))[0] == 0x30 | flag


def test_dup_is_for_messages_with_a_qos() -> None:
    """[MQTT-3.3.1-2]"""
    data = written((message(0), Grant(1)), (message(1), Grant(1)), dup=True)
    assert data == script_bytes("30 (0001 't' 00 'hi')  3A (0001 't' 0002 00 'hi')")


def test_neighbours_that_differ_in_one_thing_only() -> None:
    """What is remembered of one message is not used for another."""
    longer = message()
    longer.payload = b"hey"
    data = written(
        (message(), Grant(2)),
        (message(2), Grant(2)),
        (message(2, topic="u"), Grant(2)),
        (longer, Grant(2)),
        (message(), Grant(0)),
    )
    assert data == script_bytes(
        "32 (0001 't' 0001 00 'hi')  34 (0001 't' 0002 00 'hi')  34 (0001 'u' 0003 00 'hi')"
        "32 (0001 't' 0004 00 'hey')  30 (0001 't' 00 'hi')"
    )


def test_properties_of_5() -> None:
    """[MQTT-3.3.4-3] and the rest of the Message Expiry Interval. [MQTT-3.3.2-6]"""
    full = message(0)
    full.properties = b"\x01\x01\x03\x00\x01c"
    full.expires_at_us = NOW_US + 9_500_000
    grant = Grant(0, subscription_ids=(7, 200))
    assert written((full, grant)) == script_bytes(
        "30 (0001 't' (02 0000000A  0B 07  0B C801  0101 03 0001 'c') 'hi')"
    )
    assert written((full, grant), version=MQTT_3_1_1) == script_bytes("30 (0001 't' 'hi')")


def test_missing_offsets_are_told_to_5_alone() -> None:
    """P5"""
    grant = Grant(0, missing=(range(5, 6), range(29, 31)))
    assert written((message(0), grant)) == script_bytes(
        "30 (0001 't' (26 0003 'gap' 0003 '5-5'  26 0003 'gap' 0005 '29-30') 'hi')"
    )
    assert written((message(0), grant), version=MQTT_3_1_1) == script_bytes("30 (0001 't' 'hi')")


def test_an_interval_that_just_ran_out_is_not_negative() -> None:
    late = message(0)
    late.expires_at_us = NOW_US - 5_000_000
    assert written((late, Grant(0))) == script_bytes("30 (0001 't' (02 00000000) 'hi')")


@pytest.mark.parametrize("left_us", [0xFFFF_FFFF * 1_000_000, 0xFFFF_FFFF * 1_000_000 + 1, 1 << 62])
def test_an_interval_is_never_more_than_a_packet_can_say(left_us: int) -> None:
    """Whatever is stored."""
    late = message(0)
    late.expires_at_us = NOW_US + left_us
    assert written((late, Grant(0))) == script_bytes("30 (0001 't' (02 FFFFFFFF) 'hi')")


def test_every_packet_identifier() -> None:
    """Whichever was used before."""
    for _ in range(2):
        data = written(*[(message(), Grant(1))] * 65_535, version=MQTT_3_1_1)
        packet = len(data) // 65_535
        assert data[5::packet] == bytes(packet_id >> 8 for packet_id in range(1, 65_536))
        assert data[6::packet] == bytes(packet_id & 0xFF for packet_id in range(1, 65_536))


def test_what_is_too_large_for_the_client_is_left_out() -> None:
    """[MQTT-3.1.2-24, 25]"""
    longer = message()
    longer.payload = b"hey"
    outgoing = [(message(), Grant(1)), (longer, Grant(1)), (message(), Grant(1))]
    for largest, indexes in ((10, []), (9, [1]), (8, [0, 1, 2])):
        data, left_out = encode_publishes(
            MQTT_3_1_1, outgoing, [1, 2, 3], dup=False, now_us=NOW_US, packet_bytes_max=largest
        )
        assert left_out == indexes
        kept = [each for index, each in enumerate(outgoing) if index not in indexes]
        assert len(data) == sum(len(each.payload) + 7 for each, _ in kept)


def test_what_is_remembered_is_bounded() -> None:
    for number in range(10_000):
        sized = message(0, topic=f"a/{number}")
        sized.payload = bytes(number)
        written((sized, Grant(0)))
    assert len(module._headers) <= module.Headers.HEADERS_MAX
    assert len(module._topic_prefixes) <= module.TopicPrefixes.TOPICS_MAX


@pytest.mark.parametrize("size", [0, 127, 128, 16_383, 16_384, 2_097_151, 2_097_152])
def test_any_length(size: int) -> None:
    long = message(0)
    long.payload = b"x" * size
    data = written((long, Grant(0)), version=MQTT_3_1_1)
    reader = Reader(data, 1, len(data))
    assert reader.varint() == len(data) - reader.position == size + 3


def aliased(aliases: TopicAliases, *topics: str, largest: int = PACKET_BYTES_MAX) -> list[int]:
    """The Remaining Lengths of messages to these topics; 0 for what was left out."""
    outgoing = [(message(0, topic=topic), Grant(0)) for topic in topics]
    data, left_out = encode_aliased(
        aliases, outgoing, [0] * len(topics), dup=False, now_us=NOW_US, packet_bytes_max=largest
    )
    lengths = [0] * len(topics)
    for index in range(len(topics)):
        if index not in left_out:
            lengths[index] = data[1]
            data = data[2 + data[1] :]
    assert data == b""
    return lengths


WITHOUT, FIRST, LATER = 2 + 1 + 1 + 2, 2 + 1 + 4 + 2, 2 + 0 + 4 + 2
"""Remaining Length of a message to a topic of one character: its length, it, properties, "hi"."""


def test_the_first_topics_get_an_alias_each_and_keep_it() -> None:
    """[MQTT-3.1.2-26, 27]"""
    aliases = TopicAliases(2)
    assert aliased(aliases, "a", "b", "a", "c", "b") == [FIRST, FIRST, LATER, WITHOUT, LATER]
    assert aliased(aliases, "c", "b") == [WITHOUT, LATER]


def test_a_message_that_is_left_out_sets_no_alias() -> None:
    aliases = TopicAliases(2)
    assert aliased(aliases, "a", largest=FIRST) == [0]
    assert aliased(aliases, "b", "a") == [FIRST, FIRST]
    assert aliases == {"b": 1, "a": 2}


def test_aliases_are_bounded_whatever_the_client_permits() -> None:
    aliases = TopicAliases(65_535)
    topics = [f"a/{number}" for number in range(TopicAliases.ALIASES_MAX + 5)]
    aliased(aliases, *topics)
    assert len(aliases) == TopicAliases.ALIASES_MAX


@pytest.mark.parametrize(
    ("version", "known", "size"),
    [
        (MQTT_3_1_1, None, 9),
        (MQTT_5, None, 10),
        (MQTT_5, {"t": 1}, 12),  # Without its topic, with its alias.
        (MQTT_5, {}, 13),  # With both: it gets one.
        (MQTT_5, {"u": 1, "v": 2}, 10),  # All are taken.
    ],
)
def test_whether_a_message_fits_is_known_before_it_is_sent(
    version: int, known: dict[str, int] | None, size: int
) -> None:
    """[MQTT-3.1.2-24]"""
    aliases = None
    if known is not None:
        aliases = TopicAliases(2)
        aliases.update(known)
    for limit in (size - 1, size):
        assert fits(version, aliases, message(), Grant(1), NOW_US, limit) is (limit == size)
    assert (aliases and dict(aliases)) == known


@pytest.mark.parametrize("aliased", [False, True])
def test_the_first_live_message_after_a_replay_says_so(aliased: bool) -> None:
    """MQTT 5 only."""
    outgoing = [(message(0), Grant(0, caught_up=True)), (message(0), Grant(0))]
    if aliased:
        data, _ = encode_aliased(
            TopicAliases(0), outgoing, [0, 0], dup=False, now_us=1, packet_bytes_max=1000
        )
    else:
        data = written(*outgoing)
    told = "(26 0009 'caught-up' 0004 'true')"
    assert data == script_bytes(f"30 (0001 't' {told} 'hi') 30 (0001 't' 00 'hi')")
    assert written(*outgoing, version=MQTT_3_1_1) == script_bytes("30 (0001 't' 'hi')" * 2)
