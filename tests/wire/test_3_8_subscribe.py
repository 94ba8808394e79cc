"""Chapter 3.8 to 3.11: SUBSCRIBE and UNSUBSCRIBE."""

from __future__ import annotations

import pytest

from broker.mqtt.connection import Closed
from broker.mqtt.packets import Suback, Subscribe, SubscriptionRequest, Unsuback, Unsubscribe
from tests.support.wire import Wire


def test_subscribe_5(wire: Wire) -> None:
    wire.connect()
    wire.client("82 (0005 (26 0001 'k' 0001 'v' 0B 07)  0003 'a/#' 2E  0001 '+' 00)")
    assert wire.took() == [
        Subscribe(
            5,
            [SubscriptionRequest("a/#", 2, True, True, 2), SubscriptionRequest("+", 0)],
            7,
            [("k", "v")],
        )
    ]
    wire.send(Suback(5, [2, 0x87]))
    wire.broker("90 05 0005 00 02 87")


def test_subscribe_3_1_1(wire: Wire) -> None:
    wire.connect(4)
    wire.client("82 0C 0005  0003 'a/#' 02  0001 '+' 00")
    assert wire.took() == [
        Subscribe(5, [SubscriptionRequest("a/#", 2), SubscriptionRequest("+", 0)])
    ]
    wire.send(Suback(5, [2, 0x87]))
    wire.broker("90 04 0005 02 80")  # [MQTT3-3.9.3-2]


@pytest.mark.parametrize("packet", ["82 0F 0001 00 {} 00 {} 00 {} 00", "A2 0C 0001 00 {} {} {}"])
def test_more_filters_than_are_permitted_are_refused(wire: Wire, packet: str) -> None:
    """Reason Code 0x97: they would be decoded in one go, while nobody else is attended to."""
    wire.limits(filters_per_packet_max=3)
    wire.connect()
    wire.client(packet.format(*["0001 't'"] * 3))
    assert len(wire.took()) == 1
    wire.open()
    wire.limits(filters_per_packet_max=2)
    wire.connect()
    wire.client(packet.format(*["0001 't'"] * 3))
    assert [type(event) for event in wire.took()] == [Closed]
    wire.broker("E0 .. 97 *")
    wire.closed()


def test_unsubscribe(wire: Wire) -> None:
    wire.connect()
    wire.client("A2 0B 0005 00  0003 'a/#'  0001 '+'")
    assert wire.took() == [Unsubscribe(5, ["a/#", "+"])]
    wire.send(Unsuback(5, [0, 0x11]))
    wire.broker("B0 05 0005 00 00 11")


def test_unsubscribe_3_1_1(wire: Wire) -> None:
    wire.connect(4)
    wire.client("A2 07 0005  0003 'a/#'")
    assert wire.took() == [Unsubscribe(5, ["a/#"])]
    wire.send(Unsuback(5, [0]))
    wire.broker("B0 02 0005")


@pytest.mark.parametrize(
    ("packet", "code"),
    [
        ("82 03 0001 00", "82"),  # no filter [MQTT-3.8.3-2]
        ("A2 03 0001 00", "82"),  # [MQTT-3.10.3-2]
        ("82 07 0001 00 0001 't' 03", "82"),  # QoS 3
        ("82 07 0001 00 0001 't' 30", "82"),  # Retain Handling 3
        ("82 07 0001 00 0001 't' 40", "81"),  # reserved [MQTT-3.8.3-5]
        ("82 06 0001 00 0001 't'", "81"),  # no options
        ("82 09 0001 00 0003 'a#b' 00", "8F"),  # [MQTT-4.7.1-1]
        ("82 08 0001 00 0002 'a+' 00", "8F"),  # [MQTT-4.7.1-2]
        ("82 06 0001 00 0000 00", "8F"),  # [MQTT-4.7.3-1]
        ("A2 07 0001 00 0002 'a+'", "8F"),
        ("82 10 0001 00 000A '$share/g/t' 04", "82"),  # No Local [MQTT-3.8.3-4]
        ("82 0E 0001 00 0008 '$share/g' 00", "8F"),  # [MQTT-4.8.2-2]
        ("82 (0001 00 00 ('$share//t') 00)", "8F"),  # [MQTT-4.8.2-1]
        ("82 (0001 00 00 ('$share/+/t') 00)", "8F"),
        ("82 (0001 00 00 ('$share/g#/t') 00)", "8F"),
        ("82 (0001 00 00 ('$share/g/') 00)", "8F"),
        ("82 (0001 00 00 ('$share/g/a+') 00)", "8F"),
        ("82 07 0000 00 0001 't' 00", "81"),
    ],
)
def test_bad_subscribe(wire: Wire, packet: str, code: str) -> None:
    wire.connect()
    wire.client(packet)
    wire.broker(f"E0 .. {code} *")
    wire.closed()


@pytest.mark.parametrize("level", ["84", "85"])
def test_a_bridge_gets_no_echo_and_retain_as_published(wire: Wire, level: str) -> None:
    """It cannot ask for that in 3.1.1. A Shared Subscription has no No Local. [MQTT-3.8.3-4]"""
    properties = "00" if level == "85" else ""
    wire.client(f"10 (0004 'MQTT' {level} 02 003C {properties} 0001 'a')")
    wire.broker("20 *")
    wire.took()
    wire.client(f"82 (0001 {properties} 0001 't' 01  00 ('$share/g/t') 01)")
    assert wire.took() == [
        Subscribe(
            1,
            [
                SubscriptionRequest("t", 1, no_local=True, retain_as_published=True),
                SubscriptionRequest("$share/g/t", 1),
            ],
        )
    ]
    wire.open()


@pytest.mark.parametrize("options", ["03", "04", "08", "10", "20", "40", "80"])
def test_options_of_5_and_qos_3_are_none_of_3_1_1(wire: Wire, options: str) -> None:
    """[MQTT3-3.8.3-4]"""
    wire.connect(4)
    wire.client(f"82 06 0001 0001 't' {options}")
    assert [type(event) for event in wire.took()] == [Closed]
    wire.closed()
