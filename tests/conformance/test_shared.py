"""Shared Subscriptions, seen by their members. (Section 4.8.2)"""

from __future__ import annotations

from dataclasses import replace

import pytest

from broker.mqtt.packets import Ack, Disconnect, PacketType, Publish, Unsuback, Unsubscribe
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import Dial, RawClient, connect_packet, expect_nothing

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP
UNSPECIFIED_ERROR = 0x80


def publish(client: RawClient, topic: str, payload: bytes, qos: int) -> None:
    client.send(Publish(topic, payload, qos, False, False, 1 if qos else 0))
    if qos:
        assert client.expect(Ack).packet_ids == [1]
    if qos == 2:
        client.send(Ack(PUBREL, [1]))
        assert client.expect(Ack) == Ack(PUBCOMP, [1])


def unsubscribe(client: RawClient, filter: str) -> None:
    client.send(Unsubscribe(7, [filter]))
    assert client.expect(Unsuback).packet_id == 7


def finish(client: RawClient, message: Publish) -> None:
    """Acknowledge it to the end."""
    if message.qos == 1:
        client.send(Ack(PUBACK, [message.packet_id]))
    elif message.qos == 2:
        client.send(Ack(PUBREC, [message.packet_id]))
        assert client.expect(Ack) == Ack(PUBREL, [message.packet_id])
        client.send(Ack(PUBCOMP, [message.packet_id]))


def test_each_member_has_its_own_qos(dial: Dial, name: str, version: int) -> None:
    """[MQTT-4.8.2-3] And of each message there is one."""
    publisher = dial(connect_packet(f"{name}-pub"))
    members = []
    for qos in range(3):
        members.append(dial(connect_packet(f"{name}-{qos}", version=version)))
        members[-1].subscribe(f"$share/g/{name}", qos)
    for number in range(6):
        publish(publisher, name, b"%d" % number, 2)
    payloads = []
    for qos, member in enumerate(members):
        messages = [member.expect(Publish) for _ in range(2)]
        assert [message.qos for message in messages] == [qos, qos]
        payloads += [message.payload for message in messages]
        expect_nothing(member)
    assert sorted(payloads) == [b"%d" % number for number in range(6)]


def test_a_qos_2_message_waits_for_the_member_that_has_it(
    dial: Dial, name: str, version: int
) -> None:
    """[MQTT-4.8.2-4]"""
    publisher = dial(connect_packet(f"{name}-pub"))
    connect = connect_packet(f"{name}-a", version=version, durable=True)
    first = dial(connect)
    first.subscribe(f"$share/g/{name}", 2)
    publish(publisher, name, b"begun", 2)
    begun = first.expect(Publish)
    second = dial(connect_packet(f"{name}-b", version=version))
    second.subscribe(f"$share/g/{name}", 2)
    first.socket.close()
    publish(publisher, name, b"other", 2)
    other = second.expect(Publish)
    assert other.payload == b"other"
    finish(second, other)
    first = dial(connect, present=True)
    assert first.expect(Publish) == replace(begun, dup=True)
    finish(first, begun)
    expect_nothing(second)


def test_a_qos_2_message_ends_with_the_session_that_has_it(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-4.8.2-5]"""
    publisher = dial(connect_packet(f"{name}-pub"))
    first = dial(connect_packet(f"{name}-a", version=version))
    first.subscribe(f"$share/g/{name}", 2)
    publish(publisher, name, b"begun", 2)
    assert first.expect(Publish).payload == b"begun"
    second = dial(connect_packet(f"{name}-b", version=version))
    second.subscribe(f"$share/g/{name}", 2)
    first.send(Disconnect())
    assert first.closed()
    publish(publisher, name, b"other", 2)
    other = second.expect(Publish)
    assert other.payload == b"other"
    finish(second, other)
    expect_nothing(second)


@pytest.mark.parametrize(("qos", "kind"), [(1, PUBACK), (2, PUBREC)])
def test_what_a_member_refuses_goes_to_no_other(
    dial: Dial, name: str, qos: int, kind: PacketType
) -> None:
    """[MQTT-4.8.2-6]"""
    publisher = dial(connect_packet(f"{name}-pub"))
    first = dial(connect_packet(f"{name}-a"))
    first.subscribe(f"$share/g/{name}", qos)
    publish(publisher, name, b"refused", qos)
    refused = first.expect(Publish)
    second = dial(connect_packet(f"{name}-b"))
    second.subscribe(f"$share/g/{name}", qos)
    first.send(Ack(kind, [refused.packet_id], UNSPECIFIED_ERROR))
    expect_nothing(first)
    first.socket.close()
    publish(publisher, name, b"other", qos)
    other = second.expect(Publish)
    assert other.payload == b"other"
    finish(second, other)
    expect_nothing(second)


def test_the_last_to_unsubscribe_ends_the_group(dial: Dial, name: str, version: int) -> None:
    """[MQTT 5, 4.8.2] What is unread goes with it, and whoever comes then gets what is new."""
    publisher = dial(connect_packet(f"{name}-pub"))
    filter = f"$share/g/{name}"
    first = dial(connect_packet(f"{name}-a", version=version, durable=True))
    second = dial(connect_packet(f"{name}-b", version=version))
    for member in (first, second):
        member.subscribe(filter, 1)
    unsubscribe(second, filter)
    publish(publisher, name, b"0", 1)
    finish(first, first.expect(Publish))
    first.socket.close()
    for number in (b"1", b"2"):
        publish(publisher, name, number, 1)
    first = dial(connect_packet(f"{name}-a", version=version, durable=True), present=True)
    # The first may have been sent already, and then comes after a pause.
    assert {first.expect(Publish).payload for _ in range(2)} == {b"1", b"2"}
    unsubscribe(first, filter)
    publish(publisher, name, b"3", 1)
    first.subscribe(filter, 1)
    second.subscribe(filter, 1)
    for number in (b"4", b"5"):
        publish(publisher, name, number, 1)
    assert {first.expect(Publish).payload, second.expect(Publish).payload} == {b"4", b"5"}


def test_a_group_outlives_its_last_session_for_a_while(dial: Dial, name: str, version: int) -> None:
    """So that a worker can restart."""
    publisher = dial(connect_packet(f"{name}-pub"))
    worker = dial(connect_packet(f"{name}-a", version=version))
    worker.subscribe(f"$share/g/{name}", 1)
    worker.socket.close()
    publish(publisher, name, b"meanwhile", 1)
    worker = dial(connect_packet(f"{name}-b", version=version))
    worker.subscribe(f"$share/g/{name}", 1)
    assert worker.expect(Publish).payload == b"meanwhile"


def test_a_member_that_does_not_acknowledge_has_its_receive_maximum_and_no_more(
    dial: Dial, name: str
) -> None:
    """[MQTT-3.3.4-9] And the others do not wait for it."""
    publisher = dial(connect_packet(f"{name}-pub"))
    slow = dial(replace(connect_packet(f"{name}-slow"), receive_maximum=3))
    others = [dial(connect_packet(f"{name}-{n}")) for n in range(2)]
    for member in (slow, *others):
        member.subscribe(f"$share/g/{name}", 1)
    publisher.publish_all(name, [b"%d" % number for number in range(43)])
    had = [slow.expect(Publish) for _ in range(3)]
    expect_nothing(slow)
    for member in others:
        for _ in range(20):
            finish(member, member.expect(Publish))
        expect_nothing(member)
    finish(slow, had[0])
    publisher.publish_all(name, [b"%d" % number for number in range(3)])
    slow.expect(Publish)
    expect_nothing(slow)
