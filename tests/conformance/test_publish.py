"""PUBLISH in both directions, its acknowledgements, and the order of it all. (3.3, 4.3 to 4.9)"""

from __future__ import annotations

import time
from dataclasses import replace

import pytest

from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Disconnect,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from broker.mqtt.properties import Property
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.raw_client import Dial, RawClient, connect_packet, expect_nothing, publish_many

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP
TOPIC_NAME_INVALID, NO_MATCHING_SUBSCRIBERS = 0x90, 0x10
PACKET_IDENTIFIER_NOT_FOUND = 0x92


def publish(topic: str, payload: bytes, qos: int = 1, packet_id: int = 1) -> Publish:
    return Publish(topic, payload, qos, False, False, packet_id if qos else 0)


def test_dup_is_not_passed_on(dial: Dial, name: str, version: int) -> None:
    """[MQTT-3.3.1-3, MQTT-4.3.2-2, MQTT-4.3.3-2, MQTT3-3.3.1-3] Nor kept with what is retained."""
    subscriber = dial(connect_packet(name, version=version))
    subscriber.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub", version=version))
    for packet_id, qos in ((1, 1), (2, 2)):
        publisher.send(replace(publish(name, b"x", qos, packet_id), dup=True, retain=True))
        publisher.expect(Ack)
        got = subscriber.expect(Publish)
        assert (got.qos, got.dup) == (qos, False)
    late = dial(connect_packet(f"{name}-late", version=version))
    late.subscribe(name, 2)
    assert late.expect(Publish).dup is False


def test_retain_is_for_what_was_there_before(dial: Dial, name: str, version: int) -> None:
    """[MQTT-3.3.1-5..8, 12, MQTT3-3.3.1-5..12] Also at QoS 0, which replaces what had more."""
    live = dial(connect_packet(f"{name}-live", version=version))
    live.subscribe(name, 1)
    publisher = dial(connect_packet(f"{name}-pub", version=version))
    for payload, qos, retain, kept in (
        (b"one", 1, True, b"one"),
        (b"two", 0, True, b"two"),
        (b"three", 1, False, b"two"),
        (b"", 0, False, b"two"),
        (b"", 1, True, None),
        (b"", 0, True, None),
    ):
        publisher.send(replace(publish(name, payload, qos), retain=retain))
        got = live.expect(Publish)
        assert (got.payload, got.qos, got.retain) == (payload, qos, False)
        late = dial(connect_packet(f"{name}-late", version=version))
        late.subscribe(name, 1)
        if kept is not None:
            old = late.expect(Publish)
            assert (old.payload, old.retain) == (kept, True)
        expect_nothing(late)
        late.send(Disconnect())
        assert late.closed()


def test_topics_are_compared_as_they_are(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-4.7.3-4, MQTT-3.3.2-3, MQTT-1.5.4-3, MQTT3-4.7.3-4, MQTT3-1.5.3-3, MQTT3-3.3.2-3]

    Neither case nor composition of letters, nor a byte order mark, nor an empty level is lost.
    """
    topics = [
        f"{name}/{level}"
        for level in (
            "Å",
            "A\u030a",
            "a",
            "A",
            "a/",
            "/a",
            "a ",
            "\ufeffa",
            "ﬁ",
            "fi",
            "\u00ad",
            "𝄞",
        )
    ]
    subscriber = dial(connect_packet(name, version=version))
    for topic in topics:
        subscriber.subscribe(topic, 1)
        publish_many(broker.port, topic, [b"x"], client_id=f"{name}-pub")
        assert subscriber.expect(Publish).topic == topic
        expect_nothing(subscriber)
        subscriber.send(Unsubscribe(1, [topic]))
        subscriber.expect(Unsuback)


def test_every_topic_alias_that_was_offered_is_accepted(broker: BrokerProcess, name: str) -> None:
    """[MQTT-3.3.2-12, MQTT-3.2.2-17] And forgotten with the connection. [MQTT-3.3.2-7]"""
    with RawClient(broker.port) as subscriber, RawClient(broker.port) as client:
        subscriber.connect(connect_packet(f"{name}-sub"))
        subscriber.subscribe(f"{name}/#", 0)
        connack = client.connect(connect_packet(name, durable=True))
        aliases = range(1, connack.properties[Property.TOPIC_ALIAS_MAXIMUM] + 1)
        for topics in ([f"{name}/{alias}" for alias in aliases], [""] * len(aliases)):
            for alias, topic in zip(aliases, topics, strict=True):
                properties = b"\x23" + alias.to_bytes(2, "big")
                client.send(replace(publish(topic, b"", 0), properties=properties))
                assert subscriber.expect(Publish) == publish(f"{name}/{alias}", b"", 0)
        client.send(Disconnect())
        assert client.closed()
    with RawClient(broker.port) as client:
        assert client.connect(connect_packet(name, durable=True)).session_present
        client.send(replace(publish("", b"", 0), properties=b"\x23\0\1"))
        assert client.expect(Disconnect).reason_code == 0x82


@pytest.mark.parametrize("qos", [1, 2])
def test_an_identifier_is_free_when_its_exchange_is_over(
    dial: Dial, name: str, version: int, qos: int
) -> None:
    """[MQTT-4.3.2-5, MQTT-4.3.3-12, MQTT3-4.3.2-2] Then the next is new, even one that says DUP."""
    subscriber = dial(connect_packet(f"{name}-sub", version=version))
    subscriber.subscribe(name, 0)
    client = dial(connect_packet(name, version=version))
    for payload in (b"1", b"2", b"2"):
        client.send(replace(publish(name, payload, qos, 7), dup=True))
        assert client.expect(Ack) == Ack(PUBACK if qos == 1 else PUBREC, [7])
        if qos == 2:
            client.send(Ack(PUBREL, [7]))
            assert client.expect(Ack) == Ack(PUBCOMP, [7])
        assert subscriber.expect(Publish).payload == payload


def test_one_identifier_in_both_directions(dial: Dial, name: str, version: int) -> None:
    """[MQTT-2.2.1-4, MQTT-2.2.1-5, MQTT3-2.3.1-2, 4, 6] Each side has its own."""
    client = dial(connect_packet(name, version=version))
    client.subscribe(name, 2)
    client.send(publish(name, b"x", 2, 1))
    first, second = client.receive(), client.receive()
    got, ack = (first, second) if isinstance(first, Publish) else (second, first)
    assert isinstance(got, Publish)
    assert (got.packet_id, ack) == (1, Ack(PUBREC, [1]))
    client.send(Ack(PUBREC, [1]))
    assert client.expect(Ack) == Ack(PUBREL, [1])
    client.send(Ack(PUBREL, [1]))
    assert client.expect(Ack) == Ack(PUBCOMP, [1])
    client.send(Ack(PUBCOMP, [1]))
    expect_nothing(client)


def test_acknowledgements_have_the_order_of_what_they_answer(
    dial: Dial, name: str, version: int
) -> None:
    """[MQTT3-4.6.0-1..4] The standard asks it of who sends, be it the server."""
    client = dial(connect_packet(name, version=version))
    order = [9, 3, 200, 1, 65_535, 40]
    client.send(*(publish(name, b"", 1, packet_id) for packet_id in order))
    assert [client.expect(Ack).packet_ids[0] for _ in order] == order
    client.send(*(publish(name, b"", 2, packet_id) for packet_id in order))
    assert [client.expect(Ack).packet_ids[0] for _ in order] == order
    client.send(*(Ack(PUBREL, [packet_id]) for packet_id in order))
    assert [client.expect(Ack) for _ in order] == [Ack(PUBCOMP, [i]) for i in order]


def test_what_is_not_allowed_is_acknowledged(dial: Dial, name: str, version: int) -> None:
    """[MQTT3-3.3.5-2, MQTT-4.3.3-9] With the reason in MQTT 5; 3.1.1 has no word for it."""
    topic = f"$SYS/{name}"
    subscriber = dial(connect_packet(f"{name}-sub"))
    subscriber.subscribe(topic, 2)
    client = dial(connect_packet(name, version=version))
    code = TOPIC_NAME_INVALID if version == MQTT_5 else 0
    for packet_id, qos, kind in ((5, 1, PUBACK), (6, 2, PUBREC), (5, 2, PUBREC)):
        client.send(publish(topic, b"", 0), publish(topic, b"", qos, packet_id))
        answer = client.expect(Ack)
        assert (answer.type, answer.packet_ids, answer.reason_code) == (kind, [packet_id], code)
    if version != MQTT_5:
        client.send(Ack(PUBREL, [6]))
        assert client.expect(Ack) == Ack(PUBCOMP, [6])
    expect_nothing(client)
    expect_nothing(subscriber)


def answers(publisher: RawClient, *topics: str, qos: int = 1) -> list[int]:
    """Reason Codes of PUBACK or PUBREC, in order; all PUBLISH go in one write."""
    publisher.send(*(publish(topic, b"", qos, n) for n, topic in enumerate(topics, 1)))
    acks = [publisher.expect(Ack) for _ in topics]
    kind = PUBACK if qos == 1 else PUBREC
    assert [(a.type, [*a.packet_ids]) for a in acks] == [(kind, [n + 1]) for n in range(len(acks))]
    if qos == 2:
        publisher.send(Ack(PUBREL, range(1, len(topics) + 1)))
        for _ in topics:
            publisher.expect(Ack)
    return [ack.reason_code for ack in acks]


@pytest.mark.parametrize("qos", [1, 2])
def test_who_publishes_to_nobody_is_told(dial: Dial, own_broker: BrokerProcess, qos: int) -> None:
    """Section 3.4.2.1: 0x10, No matching subscribers; in its place among the others."""
    publisher = dial(connect_packet("pub"), port=own_broker.port)
    subscriber = dial(connect_packet("sub"), port=own_broker.port)
    subscriber.subscribe("a/+", 0)
    subscriber.subscribe("$share/group/b", 0)
    topics = ("c", "a/1", "b", "a", "c", "a/2")
    codes = [NO_MATCHING_SUBSCRIBERS, 0, 0, NO_MATCHING_SUBSCRIBERS, NO_MATCHING_SUBSCRIBERS, 0]
    assert answers(publisher, *topics, qos=qos) == codes
    old = dial(connect_packet("old", version=MQTT_3_1_1), port=own_broker.port)
    assert answers(old, *topics, qos=qos) == [0] * 6


def test_a_session_that_is_away_may_be_subscribed_to_anything(
    dial: Dial, own_broker: BrokerProcess
) -> None:
    """Section 3.4.2.1. To what is not in memory (P7), so nobody is told that there is nobody."""
    port = own_broker.port
    publisher = dial(connect_packet("pub"), port=port)
    for client_id in ("never", "no more"):
        client = dial(connect_packet(client_id, durable=True), port=port)
        if client_id == "no more":
            client.subscribe("a", 0)
            assert answers(publisher, "a", "b") == [0, NO_MATCHING_SUBSCRIBERS]
            client.expect(Publish)
            client.send(Unsubscribe(9, ["a"]))
            client.expect(Unsuback)
        client.send(Disconnect())
        assert client.closed()
    assert answers(publisher, "a") == [NO_MATCHING_SUBSCRIBERS]
    subscriber = dial(connect_packet("sub", durable=True), port=port)
    subscriber.subscribe("a", 0)
    subscriber.send(Disconnect())
    assert subscriber.closed()
    assert answers(publisher, "a", "b") == [0, 0]
    own_broker.kill()
    own_broker.start()
    publisher = dial(connect_packet("pub"), port=port)
    assert answers(publisher, "a", "b") == [0, 0]
    for client_id in ("never", "no more", "sub"):
        dial(connect_packet(client_id, durable=True), port=port, present=True)
    assert answers(publisher, "a", "b") == [0, NO_MATCHING_SUBSCRIBERS]


def test_releases_have_the_order_of_receipts(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-4.6.0-4, MQTT3-4.6.0-4] PUBREL in the order of the client's PUBREC, here not that of
    PUBLISH, and so again when the session is resumed."""
    connect = connect_packet(name, version=version, durable=True)
    subscriber = dial(connect)
    subscriber.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    publisher.send(*(publish(name, b"", 2, packet_id) for packet_id in range(1, 6)))
    got = [subscriber.expect(Publish).packet_id for _ in range(5)]
    received = [got[i] for i in (2, 0, 4, 3, 1)]
    for packet_id in received:
        subscriber.send(Ack(PUBREC, [packet_id]))
    assert [subscriber.expect(Ack) for _ in got] == [Ack(PUBREL, [i]) for i in received]
    subscriber.socket.close()
    resumed = dial(connect, present=True)
    assert [resumed.expect(Ack) for _ in got] == [Ack(PUBREL, [i]) for i in received]


@pytest.mark.parametrize("durable", [False, True])
def test_the_release_of_what_is_unknown_is_told(
    dial: Dial, name: str, version: int, durable: bool
) -> None:
    """Section 3.7.2.1: 0x92, Packet Identifier not found. 3.1.1 has no word for it."""
    client = dial(connect_packet(name, version=version, durable=durable))
    client.send(publish(name, b"", 2, 2))
    assert client.expect(Ack).type == PUBREC
    code = PACKET_IDENTIFIER_NOT_FOUND if version == MQTT_5 else 0
    client.send(Ack(PUBREL, [1, 2]))
    answers = sorted(
        (ack.type, *ack.packet_ids, ack.reason_code)
        for ack in (client.expect(Ack), client.expect(Ack))
    )
    assert answers == [(PUBCOMP, 1, code), (PUBCOMP, 2, 0)]
    client.send(Ack(PUBREL, [2]))
    assert client.expect(Ack) == Ack(PUBCOMP, [2], code)


def test_messages_of_a_client_arrive_in_its_order(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-4.6.0-5, 6, MQTT3-4.6.0-5, 6] Also to one that joins from another version."""
    subscribers = [dial(connect_packet(f"{name}-{qos}", version=version)) for qos in range(3)]
    for qos, subscriber in enumerate(subscribers):
        subscriber.subscribe(name, qos)
    publisher = dial(connect_packet(f"{name}-pub"))
    sent = [b"%d" % number for number in range(200)]
    publisher.send(*(publish(name, text, n % 3, n + 1) for n, text in enumerate(sent)))
    for subscriber in subscribers:
        assert [subscriber.expect(Publish).payload for _ in sent] == sent


def test_a_full_window_holds_up_nothing_else(dial: Dial, name: str) -> None:
    """[MQTT-3.3.4-10, MQTT-4.9.0-3]"""
    client = dial(replace(connect_packet(name), receive_maximum=1))
    client.subscribe(name, 1)
    publisher = dial(connect_packet(f"{name}-pub"))
    publisher.publish_all(name, [b"1", b"2"])
    publisher.subscribe(f"{name}/x", 0)
    assert client.expect(Publish).payload == b"1"
    expect_nothing(client)
    client.send(Subscribe(7, [SubscriptionRequest(f"{name}/other", 1)]))
    assert client.expect(Suback).packet_id == 7
    client.send(publish(f"{name}/x", b"", 1, 9))
    assert client.expect(Ack) == Ack(PUBACK, [9])
    client.send(publish(f"{name}/x", b"", 2, 9))
    assert client.expect(Ack) == Ack(PUBREC, [9])
    client.send(Ack(PUBREL, [9]))
    assert client.expect(Ack) == Ack(PUBCOMP, [9])
    client.send(Unsubscribe(8, [f"{name}/other"]))
    assert client.expect(Unsuback).packet_id == 8


# Message Expiry


def test_an_expired_message_is_acknowledged_to_the_end(dial: Dial, name: str) -> None:
    """[MQTT-4.3.3-13, MQTT-3.3.2-5] And who is away does not get it."""
    connect = connect_packet(f"{name}-sub", durable=True)
    subscriber = dial(connect)
    subscriber.subscribe(name, 2)
    subscriber.send(Disconnect())
    assert subscriber.closed()
    client = dial(connect_packet(name))
    client.send(replace(publish(name, b"", 2), message_expiry_s=0))
    assert client.expect(Ack) == Ack(PUBREC, [1])
    client.send(Ack(PUBREL, [1]))
    assert client.expect(Ack) == Ack(PUBCOMP, [1])
    client.publish_all(name, [b"after"])
    assert dial(connect, present=True).expect(Publish).payload == b"after"


@pytest.mark.parametrize("qos", [1, 2])
def test_what_was_sent_does_not_expire(
    dial: Dial, name: str, broker: BrokerProcess, qos: int
) -> None:
    """[MQTT-4.3.3-7, MQTT-4.4.0-1]"""
    connect = connect_packet(name, durable=True)
    client = dial(connect)
    client.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    publisher.send(replace(publish(name, b"x", qos), message_expiry_s=1))
    first = client.expect(Publish)
    assert first.message_expiry_s == 1
    client.socket.close()
    [(due_us,)] = broker.query("SELECT expires_at_us FROM history WHERE topic = ?", name)
    wait_until(lambda: time.time_ns() // 1000 > due_us)
    client = dial(connect, present=True)
    again = client.expect(Publish)
    assert (again.packet_id, again.payload, again.dup) == (first.packet_id, b"x", True)


def test_a_retained_message_expires(dial: Dial, name: str, broker: BrokerProcess) -> None:
    """[MQTT-3.3.2-5, 6] For those who subscribe later; before, they are told what is left of it."""
    publisher = dial(connect_packet(f"{name}-pub"))
    for level, expiry_s in (("long", 100), ("short", 1)):
        message = replace(publish(f"{name}/{level}", b"x"), retain=True, message_expiry_s=expiry_s)
        publisher.send(message)
        publisher.expect(Ack)
    [(due_us,)] = broker.query("SELECT expires_at_us FROM history WHERE topic = ?", f"{name}/short")
    wait_until(lambda: time.time_ns() // 1000 > due_us)
    late = dial(connect_packet(name))
    late.subscribe(f"{name}/+", 1)
    got = late.expect(Publish)
    assert got.topic == f"{name}/long"
    assert got.message_expiry_s is not None
    assert got.message_expiry_s < 100
    expect_nothing(late)


def test_expiry_counts_on_while_the_broker_is_dead(
    own_broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """[MQTT-3.3.2-5, 6] For a retained message and for one that a session is owed."""
    subscribing = connect_packet(name, durable=True)
    dial(subscribing, port=own_broker.port).subscribe(f"{name}/#", 1)
    publisher = dial(connect_packet(f"{name}-pub"), port=own_broker.port)
    for level, expiry_s in (("long", 100), ("short", 1)):
        message = replace(publish(f"{name}/{level}", b"x"), retain=True, message_expiry_s=expiry_s)
        publisher.send(message)
        publisher.expect(Ack)
    own_broker.kill()
    [(due_us,)] = own_broker.query(
        "SELECT expires_at_us FROM history WHERE topic = ?", f"{name}/short"
    )
    own_broker.start()
    wait_until(lambda: time.time_ns() // 1000 > due_us)
    owed = dial(subscribing, port=own_broker.port, present=True)
    late = dial(connect_packet(f"{name}-late"), port=own_broker.port)
    late.subscribe(f"{name}/#", 1)
    for client in (owed, late):
        got = client.expect(Publish)
        assert (got.topic, got.retain) == (f"{name}/long", client is late)
        assert got.message_expiry_s is not None
        assert 50 < got.message_expiry_s < 100
        expect_nothing(client)


def test_the_connection_says_nothing_of_expiry_in_3_1_1(dial: Dial, name: str) -> None:
    """[MQTT3-3.3.4-1] A message of an MQTT 5 client reaches one of 3.1.1 without its properties."""
    old = dial(connect_packet(name, version=4))
    old.subscribe(name, 1)
    new = dial(connect_packet(f"{name}-5", version=MQTT_5))
    new.send(replace(publish(name, b"x"), message_expiry_s=9, properties=b"\x01\1\x03\0\1t"))
    assert new.expect(Ack) == Ack(PUBACK, [1])
    assert old.expect(Publish) == publish(name, b"x")
