"""SUBSCRIBE and UNSUBSCRIBE: what is answered, and what comes of it. (Sections 3.8 to 3.11)"""

from __future__ import annotations

from broker.mqtt.packets import (
    MQTT_5,
    Ack,
    PacketType,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
)
from tests.e2e.process import Broker
from tests.e2e.test_flow import Dial, expect_nothing
from tests.e2e.wire import connect_packet, publish_many

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP
NO_SUBSCRIPTION_EXISTED = 0x11


def test_suback_has_the_identifier_and_a_code_for_each_filter_in_order(
    dial: Dial, name: str, version: int
) -> None:
    """[MQTT-2.2.1-6, MQTT-3.8.4-1, 2, 5..7, MQTT-3.9.3-1, MQTT3-2.3.1-7, MQTT3-3.8.4-1, 2, 4, 5,
    MQTT3-3.9.3-1]"""
    wire = dial(connect_packet(name, version=version))
    for packet_id, grants in ((65_535, [2, 0, 1, 0]), (1, [0]), (256, [1, 1, 2])):
        requests = [SubscriptionRequest(f"{name}/{i}/+", qos) for i, qos in enumerate(grants)]
        wire.send(Subscribe(packet_id, requests))
        assert wire.expect(Suback) == Suback(packet_id, grants)


def test_several_filters_are_like_several_packets(
    dial: Dial, name: str, version: int, broker: Broker
) -> None:
    """[MQTT-3.8.4-5, MQTT-3.10.4-6, MQTT3-3.8.4-4, MQTT3-3.10.4-6] The later of two counts."""
    wire = dial(connect_packet(name, version=version))
    wire.send(Subscribe(1, [SubscriptionRequest(name, 2), SubscriptionRequest(name, 0)]))
    assert wire.expect(Suback).reason_codes == [2, 0]
    publish_many(broker.port, name, [b"x"], client_id=f"{name}-pub")
    assert wire.expect(Publish).qos == 0
    expect_nothing(wire)
    wire.send(Unsubscribe(2, [name, name]))
    unsuback = wire.expect(Unsuback)
    codes = [0, NO_SUBSCRIPTION_EXISTED] if version == MQTT_5 else []
    assert (unsuback.packet_id, unsuback.reason_codes) == (2, codes)
    publish_many(broker.port, name, [b"x"], client_id=f"{name}-pub")
    expect_nothing(wire)


def test_a_subscription_made_again_gets_what_is_retained_again(
    dial: Dial, name: str, version: int, broker: Broker
) -> None:
    """[MQTT-3.8.4-3, 4, MQTT-3.3.1-9, MQTT3-3.8.4-3, MQTT3-3.3.1-6, 8] With the new QoS, once."""
    wire = dial(connect_packet(name, version=version))
    wire.send(Publish(name, b"kept", 2, True, False, 1))
    assert wire.expect(Ack) == Ack(PUBREC, [1])
    for qos in (0, 2, 1):
        wire.subscribe(name, qos)
        got = wire.expect(Publish)
        assert (got.payload, got.qos, got.retain) == (b"kept", qos, True)
        expect_nothing(wire)
    publish_many(broker.port, name, [b"live"], client_id=f"{name}-pub")
    assert wire.expect(Publish).payload == b"live"
    expect_nothing(wire)


def test_only_the_very_filter_is_unsubscribed(
    dial: Dial, name: str, version: int, broker: Broker
) -> None:
    """[MQTT-3.10.4-1, 2, 4, 5, MQTT-3.11.3-1, 2, MQTT3-3.10.4-1, 2, 4, 5]"""
    wire = dial(connect_packet(name, version=version))
    wire.subscribe(f"{name}/+/b", 1)
    others = [f"{name}/a/b", f"{name}/#", f"{name}/+/+", f"{name.upper()}/+/b", f"{name}/+/b/"]
    wire.send(Unsubscribe(300, others))
    wanted = [NO_SUBSCRIPTION_EXISTED] * len(others) if version == MQTT_5 else []
    assert wire.expect(Unsuback) == Unsuback(300, wanted)
    publish_many(broker.port, f"{name}/a/b", [b"1"], client_id=f"{name}-pub")
    assert wire.expect(Publish).payload == b"1"
    wire.send(Unsubscribe(301, [*others, f"{name}/+/b"]))
    wanted = [*wanted, 0] if version == MQTT_5 else []
    assert wire.expect(Unsuback) == Unsuback(301, wanted)
    publish_many(broker.port, f"{name}/a/b", [b"2"], client_id=f"{name}-pub")
    expect_nothing(wire)


def test_what_was_begun_is_finished_without_the_subscription(
    dial: Dial, name: str, version: int, broker: Broker
) -> None:
    """[MQTT-3.10.4-3, MQTT3-3.10.4-3] Even on the next connection."""
    connect = connect_packet(name, version=version, durable=True)
    wire = dial(connect)
    wire.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    for packet_id, qos in ((1, 1), (2, 2), (3, 2)):
        publisher.send(Publish(name, b"%d" % packet_id, qos, False, False, packet_id))
    one, two, three = (wire.expect(Publish) for _ in range(3))
    wire.send(Ack(PUBREC, [three.packet_id]))
    assert wire.expect(Ack) == Ack(PUBREL, [three.packet_id])
    wire.send(Unsubscribe(9, [name]))
    wire.expect(Unsuback)
    wire.socket.close()
    publish_many(broker.port, name, [b"new"], client_id=f"{name}-other")
    wire = dial(connect, present=True)
    again = [wire.receive() for _ in range(3)]
    assert again[0] == Ack(PUBREL, [three.packet_id])
    for packet, first in zip(again[1:], (one, two), strict=True):
        assert isinstance(packet, Publish)
        assert (packet.packet_id, packet.payload, packet.qos, packet.dup) == (
            first.packet_id,
            first.payload,
            first.qos,
            True,
        )
    wire.send(Ack(PUBCOMP, [three.packet_id]), Ack(PUBACK, [one.packet_id]))
    wire.send(Ack(PUBREC, [two.packet_id]))
    assert wire.expect(Ack) == Ack(PUBREL, [two.packet_id])
    wire.send(Ack(PUBCOMP, [two.packet_id]))
    expect_nothing(wire)


def test_an_empty_level_is_a_level(dial: Dial, name: str, version: int, broker: Broker) -> None:
    """[MQTT-4.7.1-1, 2, MQTT3-4.7.1-2, 3]"""
    wire = dial(connect_packet(name, version=version))
    wire.subscribe(f"/{name}/+", 1)
    for topic in (f"/{name}/", f"/{name}", f"{name}/a", f"/{name}/a"):
        publish_many(broker.port, topic, [b"x"], client_id=f"{name}-pub")
    assert wire.expect(Publish).topic == f"/{name}/"
    assert wire.expect(Publish).topic == f"/{name}/a"
    expect_nothing(wire)
