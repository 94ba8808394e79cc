"""SUBSCRIBE and UNSUBSCRIBE: what is answered, and what comes of it. (Sections 3.8 to 3.11)"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from broker.mqtt.packets import (
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
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import Dial, RawClient, connect_packet, expect_nothing, publish_many

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP
NO_SUBSCRIPTION_EXISTED = 0x11


def test_suback_has_the_identifier_and_a_code_for_each_filter_in_order(
    dial: Dial, name: str, version: int
) -> None:
    """[MQTT-2.2.1-6, MQTT-3.8.4-1, 2, 5..7, MQTT-3.9.3-1, MQTT3-2.3.1-7, MQTT3-3.8.4-1, 2, 4, 5,
    MQTT3-3.9.3-1]"""
    client = dial(connect_packet(name, version=version))
    for packet_id, grants in ((65_535, [2, 0, 1, 0]), (1, [0]), (256, [1, 1, 2])):
        requests = [SubscriptionRequest(f"{name}/{i}/+", qos) for i, qos in enumerate(grants)]
        client.send(Subscribe(packet_id, requests))
        assert client.expect(Suback) == Suback(packet_id, grants)


def test_several_filters_are_like_several_packets(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-3.8.4-5, MQTT-3.10.4-6, MQTT3-3.8.4-4, MQTT3-3.10.4-6] The later of two counts."""
    client = dial(connect_packet(name, version=version))
    client.send(Subscribe(1, [SubscriptionRequest(name, 2), SubscriptionRequest(name, 0)]))
    assert client.expect(Suback).reason_codes == [2, 0]
    publish_many(broker.port, name, [b"x"], client_id=f"{name}-pub")
    assert client.expect(Publish).qos == 0
    expect_nothing(client)
    client.send(Unsubscribe(2, [name, name]))
    unsuback = client.expect(Unsuback)
    codes = [0, NO_SUBSCRIPTION_EXISTED] if version == MQTT_5 else []
    assert (unsuback.packet_id, unsuback.reason_codes) == (2, codes)
    publish_many(broker.port, name, [b"x"], client_id=f"{name}-pub")
    expect_nothing(client)


def test_a_subscription_made_again_gets_what_is_retained_again(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-3.8.4-3, 4, MQTT-3.3.1-9, MQTT3-3.8.4-3, MQTT3-3.3.1-6, 8] With the new QoS, once."""
    client = dial(connect_packet(name, version=version))
    client.send(Publish(name, b"kept", 2, True, False, 1))
    assert client.expect(Ack).type == PUBREC
    for qos in (0, 2, 1):
        client.subscribe(name, qos)
        got = client.expect(Publish)
        assert (got.payload, got.qos, got.retain) == (b"kept", qos, True)
        expect_nothing(client)
    publish_many(broker.port, name, [b"live"], client_id=f"{name}-pub")
    assert client.expect(Publish).payload == b"live"
    expect_nothing(client)


def test_of_two_equal_filters_in_a_packet_the_later_counts(
    dial: Dial, name: str, version: int
) -> None:
    """[MQTT-3.8.4-3] Also for what is retained: one copy, for the subscription that there is. Two
    copies, one for each, would let a packet with 10,000 equal filters ask for as many of all."""
    publisher = dial(connect_packet(f"{name}-pub"))
    publisher.send(Publish(name, b"kept", 2, True, False, 1))
    publisher.expect(Ack)
    client = dial(connect_packet(name, version=version))
    client.send(Subscribe(1, [SubscriptionRequest(name, 2), SubscriptionRequest(name, 0)]))
    assert client.expect(Suback).reason_codes == [2, 0]
    got = client.expect(Publish)
    publisher.publish_all(name, [b"live"], 1)
    assert [(p.payload, p.qos) for p in (got, client.expect(Publish))] == [
        (b"kept", 0),
        (b"live", 0),
    ]


def test_a_subscription_that_was_kept_is_not_new(dial: Dial, name: str) -> None:
    """[MQTT-3.3.1-10] Retain Handling 1 after the session was resumed, which is what it is for."""
    connect = connect_packet(name, durable=True)
    client = dial(connect)
    client.send(Publish(f"{name}/old", b"kept", 1, True, False, 1))
    client.expect(Ack)
    old, new = (
        SubscriptionRequest(f"{name}/{level}", 0, retain_handling=1) for level in ("old", "new")
    )
    client.send(Subscribe(1, [old]))
    client.expect(Suback)
    assert client.expect(Publish).retain
    client.socket.close()
    client = dial(connect, present=True)
    client.send(Publish(f"{name}/new", b"kept", 1, True, False, 1))
    client.expect(Ack)
    client.send(Subscribe(2, [old, new]))
    assert client.expect(Suback).reason_codes == [0, 0]
    assert client.expect(Publish).topic == f"{name}/new"
    expect_nothing(client)


def test_what_was_missed_comes_as_the_subscription_says(dial: Dial, name: str) -> None:
    """[MQTT-3.3.1-12, 13, MQTT-3.3.4-3] RETAIN as published or not, and the Subscription
    Identifiers; on the way out of the log, and when it is sent again."""
    connect = connect_packet(name, durable=True)
    client = dial(connect)
    for identifier, level, as_published in ((5, "+/+", False), (200, "kept/#", True)):
        request = SubscriptionRequest(f"{name}/{level}", 1, retain_as_published=as_published)
        client.send(Subscribe(1, [request], identifier))
        client.expect(Suback)
    client.send(Disconnect())
    assert client.closed()
    publisher = dial(connect_packet(f"{name}-pub"))
    topics = [f"{name}/kept/a", f"{name}/cleared/a", f"{name}/kept/a/b"]
    for topic in topics:
        publisher.send(Publish(topic, b"", 1, True, False, 1))
        publisher.expect(Ack)
    both, one, other = b"\x05\x0b\x05\x0b\xc8\x01", b"\x02\x0b\x05", b"\x03\x0b\xc8\x01"
    for dup in (0, 8):
        wanted = b"".join(
            packet(first | dup, topic, packet_id, properties)
            for packet_id, (first, topic, properties) in enumerate(
                zip((0x33, 0x32, 0x33), topics, (both, one, other), strict=True), 1
            )
        )
        client = dial(connect, present=True)
        assert client.receive_bytes(len(wanted)) == wanted
        client.socket.close()


def packet(first: int, topic: str, packet_id: int, properties: bytes) -> bytes:
    """An empty PUBLISH; `properties` with their length."""
    name = topic.encode()
    body = len(name).to_bytes(2, "big") + name + packet_id.to_bytes(2, "big") + properties
    return bytes((first, len(body))) + body


def test_each_refusal_has_a_code_that_suback_may_carry(tmp_path: Path, version: int) -> None:
    """[MQTT-3.9.3-2, MQTT3-3.9.3-2, MQTT-3.8.4-7] And what is beside it is granted."""
    with BrokerProcess(tmp_path, {"subscriptions_per_session_max": 2}) as broker:
        for filters, codes in (
            (["a", "$replay/yesterday/a", "b"], [1, 0x83, 1]),
            (["a", "$replay/earliest/$share/g/a", "b"], [1, 0x9E, 1]),
            (["a", "b"], [1, 1]),
        ):
            with RawClient(broker.port, version) as client:
                client.connect(connect_packet("subscriber", version=version))
                client.send(Subscribe(7, [SubscriptionRequest(filter, 1) for filter in filters]))
                if version != MQTT_5:
                    codes = [min(code, 0x80) for code in codes]
                assert client.expect(Suback) == Suback(7, codes)
                client.send(Subscribe(8, [SubscriptionRequest(filter, 1) for filter in "abc"]))
                full = 0x97 if version == MQTT_5 else 0x80
                assert client.expect(Suback) == Suback(8, [1, 1, full])
        assert broker.stop() == 0


def test_one_packet_does_not_pass_the_limit_either(tmp_path: Path) -> None:
    """`subscriptions_per_session_max` [MQTT-3.8.4-5]"""
    with (
        BrokerProcess(tmp_path, {"subscriptions_per_session_max": 2}) as broker,
        RawClient(broker.port) as w,
    ):
        w.connect(connect_packet("subscriber"))
        w.send(Subscribe(7, [SubscriptionRequest(filter, 1) for filter in "abca"]))
        assert w.expect(Suback).reason_codes == [1, 1, 0x97, 1]


def test_no_leading_wildcard_reaches_a_topic_of_a_dollar(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-4.7.2-1, MQTT3-4.7.2-1]"""
    for filter in ("#", "+/#", f"+/{name}", "+/+", f"+/{name}/#"):
        client = dial(connect_packet(f"{name}-{filter}", version=version))
        client.subscribe(filter, 0)
        for topic in (f"$own/{name}", f"$/{name}", f"own/{name}"):
            publish_many(broker.port, topic, [b"x"], client_id=f"{name}-pub")
        while (got := client.expect(Publish)).retain:
            pass  # Other tests left it.
        assert got.topic == f"own/{name}"
        client.send(Disconnect())
        assert client.closed()


def test_only_the_very_filter_is_unsubscribed(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-3.10.4-1, 2, 4, 5, MQTT-3.11.3-1, 2, MQTT3-3.10.4-1, 2, 4, 5]"""
    client = dial(connect_packet(name, version=version))
    client.subscribe(f"{name}/+/b", 1)
    others = [f"{name}/a/b", f"{name}/#", f"{name}/+/+", f"{name.upper()}/+/b", f"{name}/+/b/"]
    client.send(Unsubscribe(300, others))
    wanted = [NO_SUBSCRIPTION_EXISTED] * len(others) if version == MQTT_5 else []
    assert client.expect(Unsuback) == Unsuback(300, wanted)
    publish_many(broker.port, f"{name}/a/b", [b"1"], client_id=f"{name}-pub")
    assert client.expect(Publish).payload == b"1"
    client.send(Unsubscribe(301, [*others, f"{name}/+/b"]))
    wanted = [*wanted, 0] if version == MQTT_5 else []
    assert client.expect(Unsuback) == Unsuback(301, wanted)
    publish_many(broker.port, f"{name}/a/b", [b"2"], client_id=f"{name}-pub")
    expect_nothing(client)


def test_what_was_begun_is_finished_without_the_subscription(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-3.10.4-3, MQTT3-3.10.4-3] Even on the next connection."""
    connect = connect_packet(name, version=version, durable=True)
    client = dial(connect)
    client.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    for packet_id, qos in ((1, 1), (2, 2), (3, 2)):
        publisher.send(Publish(name, b"%d" % packet_id, qos, False, False, packet_id))
    one, two, three = (client.expect(Publish) for _ in range(3))
    client.send(Ack(PUBREC, [three.packet_id]))
    assert client.expect(Ack) == Ack(PUBREL, [three.packet_id])
    client.send(Unsubscribe(9, [name]))
    client.expect(Unsuback)
    client.socket.close()
    publish_many(broker.port, name, [b"new"], client_id=f"{name}-other")
    client = dial(connect, present=True)
    again = [client.receive() for _ in range(3)]
    assert again[0] == Ack(PUBREL, [three.packet_id])
    for packet, first in zip(again[1:], (one, two), strict=True):
        assert isinstance(packet, Publish)
        assert (packet.packet_id, packet.payload, packet.qos, packet.dup) == (
            first.packet_id,
            first.payload,
            first.qos,
            True,
        )
    client.send(Ack(PUBCOMP, [three.packet_id]), Ack(PUBACK, [one.packet_id]))
    client.send(Ack(PUBREC, [two.packet_id]))
    assert client.expect(Ack) == Ack(PUBREL, [two.packet_id])
    client.send(Ack(PUBCOMP, [two.packet_id]))
    expect_nothing(client)


def test_an_empty_level_is_a_level(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-4.7.1-1, 2, MQTT3-4.7.1-2, 3]"""
    client = dial(connect_packet(name, version=version))
    client.subscribe(f"/{name}/+", 1)
    for topic in (f"/{name}/", f"/{name}", f"{name}/a", f"/{name}/a"):
        publish_many(broker.port, topic, [b"x"], client_id=f"{name}-pub")
    assert client.expect(Publish).topic == f"/{name}/"
    assert client.expect(Publish).topic == f"/{name}/a"
    expect_nothing(client)


def test_retained_messages_that_wait_for_room_survive_the_client_and_the_broker(
    dial: Dial, name: str, own_broker: BrokerProcess
) -> None:
    """[MQTT-3.3.1-9, MQTT-4.1.0-1] Each exactly once at QoS 2, whoever ends in between."""
    port = own_broker.port
    with RawClient(port) as publisher:
        publisher.connect(connect_packet(f"{name}-pub"))
        for packet_id in range(1, 7):
            topic = f"{name}/{packet_id}"
            publisher.send(Publish(topic, b"%d" % packet_id, 2, True, False, packet_id))
            assert publisher.expect(Ack).type == PUBREC
    connect = replace(connect_packet(name, durable=True), receive_maximum=1)
    client = dial(connect, port=port)
    client.subscribe(f"{name}/+", 2)
    got = []
    for ends in ("", "broker", "", "client", "broker", ""):
        publish = client.expect(Publish)
        assert (publish.qos, publish.retain, publish.dup) == (2, True, False)
        got.append(publish.payload)
        client.send(Ack(PUBREC, [publish.packet_id]))
        assert client.expect(Ack) == Ack(PUBREL, [publish.packet_id])
        if ends == "broker":
            own_broker.kill()
            own_broker.start()
        elif ends == "client":
            client.socket.close()
        if ends:
            client = dial(connect, port=port, present=True)
            assert client.expect(Ack) == Ack(PUBREL, [publish.packet_id])
        client.send(Ack(PUBCOMP, [publish.packet_id]))
    expect_nothing(client)
    assert got == [b"1", b"2", b"3", b"4", b"5", b"6"]
