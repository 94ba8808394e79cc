"""What waits in the backlog of a client, and what that costs."""

from __future__ import annotations

import tracemalloc
from collections import deque

import pytest

from broker.clients.asking import Asking
from broker.clients.backlog import EVENT_BYTES, Backlog, cost_of_lines, take_publishes
from broker.lines.connection import LineEvent, LinePublish, LineSubscribe
from broker.message import Message, Monotonic, WallUs
from broker.mqtt.connection import Connection
from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    Packet,
    PacketType,
    Publish,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
)
from tests.support.raw_client import connect_packet
from tests.support.wire import LIMITS

MANY_FILTERS = [f"a/filter/{n}" for n in range(500)]


def test_events_are_taken_in_order_and_cost_nothing_then() -> None:
    backlog = Backlog()
    ack, publish = Ack(PacketType.PUBREL, [1, 2]), Publish("t", bytes(1000), 0, False, False, 0)
    backlog.extend([ack])
    backlog.extend([publish, publish])
    assert backlog.cost > 2000
    assert backlog.take() == [ack, publish, publish]
    assert (backlog.take(), backlog.cost) == ([], 0)


@pytest.mark.parametrize(
    "packets",
    [
        [Publish("t", b"", 0, False, False, 0)] * 1000,
        [Publish(f"a/topic/{n}", bytes(1000), 1, False, False, n) for n in range(1, 1000)],
        [Subscribe(1, [SubscriptionRequest(name, 1) for name in MANY_FILTERS])],
        [Unsubscribe(1, MANY_FILTERS)],
        [Ack(PacketType.PUBREL, [n]) for n in range(1, 1000)],
    ],
)
def test_the_cost_is_about_what_it_takes(packets: list[Packet]) -> None:
    connection = Connection(now=Monotonic(0), limits=LIMITS)
    connection.receive_data(encode(connect_packet("a"), MQTT_5), Monotonic(0))
    data = b"".join(encode(packet, MQTT_5) for packet in packets)
    tracemalloc.start()
    try:
        events = connection.receive_data(data, Monotonic(0))
        while connection.has_more:
            events += connection.receive_data(b"", Monotonic(0))
        backlog = Backlog()
        backlog.extend(events)
        takes, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert takes / 1.5 < backlog.cost < takes * 4


def test_commands_of_the_line_protocol_cost_something_too() -> None:
    publish = LinePublish("t", bytes(1000), "p")
    assert cost_of_lines([publish, LineSubscribe("t", "s")]) == 2 * EVENT_BYTES + 1000
    assert cost_of_lines([]) == 0


def says(topic: str) -> LinePublish:
    return LinePublish(topic, b"x", "p")


class Delays(Asking):
    """Only what it delays asks for more."""

    def __init__(self) -> None:
        pass

    def asks(self, topic: str, properties: bytes) -> bool:
        return topic.startswith("$delayed/")


@pytest.mark.parametrize(
    ("topics", "taken", "asks", "left"),
    [
        ("a b", "a b", False, ""),
        ("a $delayed/5/b c", "a", False, "$delayed/5/b c"),
        ("$delayed/5/b c", "$delayed/5/b", True, "c"),
        ("a secret b", "a", False, "secret b"),
        ("", "", False, ""),
    ],
)
def test_messages_of_lines_are_taken_together_as_far_as_they_are_alike(
    topics: str, taken: str, asks: bool, left: str
) -> None:
    """What asks for more comes alone, and what may not be published ends a run."""
    events: deque[LineEvent] = deque(map(says, topics.split()))
    found = take_publishes(events, Delays(), WallUs(7), lambda topic: topic != "secret")
    messages = [Message(topic, b"x", 1, False, "p", WallUs(7)) for topic in taken.split()]
    assert found == (messages, asks)
    assert [*events] == [says(topic) for topic in left.split()]


def test_a_command_that_publishes_nothing_ends_a_run() -> None:
    subscribe = LineSubscribe("t", "s")
    events: deque[LineEvent] = deque([says("a"), subscribe, says("b")])
    messages, asks = take_publishes(events, Delays(), WallUs(7), lambda topic: True)
    assert ([m.topic for m in messages], asks) == (["a"], False)
    assert [*events] == [subscribe, says("b")]
