"""Acks: as few as the answers allow, in the order of the messages."""

from __future__ import annotations

from broker.clients.acks import acks, on_topics
from broker.mqtt.packets import Ack, PacketType
from broker.mqtt.reasons import ReasonCode
from tests.support.messages import message

PUBACK = PacketType.PUBACK
NOBODY = ReasonCode.NO_MATCHING_SUBSCRIBERS


def test_one_is_for_all_with_the_same_answer() -> None:
    assert acks(PUBACK, [], 0) == []
    assert acks(PUBACK, [1, 2], 0) == [Ack(PUBACK, [1, 2], 0)]
    assert acks(PUBACK, [1, 2, 3], 0, unwanted={2}) == [
        Ack(PUBACK, [1], 0),
        Ack(PUBACK, [2], NOBODY),
        Ack(PUBACK, [3], 0),
    ]


def test_who_asked_for_a_receipt_gets_its_offset() -> None:
    found = acks(PUBACK, [1, 2], 0, {2: message(offset=7)}, unwanted={1, 2})
    assert found == [
        Ack(PUBACK, [1], NOBODY),
        Ack(PUBACK, [2], NOBODY, user_properties=[("offset", "7")]),
    ]


def test_packet_identifiers_are_found_by_topic() -> None:
    messages = [message(topic=topic, qos=qos) for topic, qos in [("a", 1), ("b", 2), ("c", 1)]]
    assert on_topics({"b", "c"}, messages, [4, 5], [4]) == {4, 5}
    assert on_topics({"a"}, messages, [4, 5], [6]) == {4}
