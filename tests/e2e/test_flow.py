"""What client libraries hide: who may send when, Packet Identifiers, and exchanges that go on."""

from __future__ import annotations

import socket
import time
from dataclasses import replace
from typing import TypeVar

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    Disconnect,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsuback,
    Unsubscribe,
    Will,
)
from broker.mqtt.properties import Property
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.line_socket import LineSocket
from tests.support.raw_client import Dial, RawClient, connect_packet, expect_nothing, publish_many

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP
SERVER_SHUTTING_DOWN, KEEP_ALIVE_TIMEOUT, SESSION_TAKEN_OVER = 0x8B, 0x8D, 0x8E
RECEIVE_MAXIMUM_EXCEEDED, DISCONNECT_WITH_WILL = 0x93, 0x04
NO_SUBSCRIPTION_EXISTED = 0x11
RECEIVE_MAXIMUM = 2000
P = TypeVar("P")


def test_connack_tells_the_limits(broker: BrokerProcess) -> None:
    with RawClient(broker.port) as client:
        properties = client.connect(connect_packet("")).properties
        assert properties[Property.RECEIVE_MAXIMUM] == RECEIVE_MAXIMUM
        assert properties[Property.MAXIMUM_PACKET_SIZE] == 2 * 1024 * 1024
        assert properties[Property.TOPIC_ALIAS_MAXIMUM] > 0
        assert properties[Property.ASSIGNED_CLIENT_IDENTIFIER]
        assert Property.SHARED_SUBSCRIPTION_AVAILABLE not in properties
        assert Property.MAXIMUM_QOS not in properties
        assert Property.RETAIN_AVAILABLE not in properties
        assert Property.WILDCARD_SUBSCRIPTION_AVAILABLE not in properties


def test_all_in_one_write(broker: BrokerProcess, name: str, version: int) -> None:
    """A client need not wait for any answer; CONNACK is the first. [MQTT-3.1.4-5, MQTT-3.2.0-1]"""
    with RawClient(broker.port, version) as client:
        client.send(
            connect_packet(name, version=version, durable=True),
            Subscribe(1, [SubscriptionRequest(name, 1)]),
            Publish(name, b"own", 1, False, False, 2),
            Pingreq(),
            Unsubscribe(3, [name]),
            Disconnect(),
        )
        client.expect(Connack)
        while client.receive() is not None:
            pass  # It may be gone before all is committed, so these answers are not certain.
    wait_until(lambda: broker.query("SELECT 1 FROM history WHERE topic = ?", name) == [(1,)])
    wait_until(
        lambda: (
            broker.query("SELECT 1 FROM sessions WHERE expires_at_us > 0 AND client_id = ?", name)
            == [(1,)]
        )
    )
    assert broker.query("SELECT 1 FROM subscriptions WHERE client_id = ?", name) == []


def test_what_was_sent_before_a_cut_counts(broker: BrokerProcess, dial: Dial, name: str) -> None:
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 0)
    with RawClient(broker.port) as client:
        messages = [Publish(name, b"%d" % n, n % 3, False, False, n + 1) for n in range(300)]
        client.send(connect_packet(name), *messages)
        client.socket.shutdown(socket.SHUT_WR)
        while client.receive() is not None:
            pass
    assert [int(watcher.expect(Publish).payload) for _ in messages] == [*range(300)]


def test_a_subscriber_that_does_not_read_gets_everything_later(dial: Dial, name: str) -> None:
    """At QoS 0 too: what the sockets do not take is read from the log when there is room."""
    sleeper, awake = dial(connect_packet(f"{name}-1")), dial(connect_packet(f"{name}-2"))
    sleeper.subscribe(name, 0)
    awake.subscribe(name, 0)
    publisher = dial(connect_packet(f"{name}-pub"))
    payload = bytes(100_000)
    for number in range(200):
        publisher.publish_all(name, [b"%d " % number + payload])
        assert awake.expect(Publish).payload.startswith(b"%d " % number)
    numbers = [int(sleeper.expect(Publish).payload.partition(b" ")[0]) for _ in range(200)]
    assert numbers == [*range(200)]


def test_a_thousand_filters_in_one_packet(dial: Dial, name: str, version: int) -> None:
    client = dial(connect_packet(name, version=version, durable=True))
    filters = [f"{name}/{number}" for number in range(1000)]
    client.send(Subscribe(1, [SubscriptionRequest(filter, 1) for filter in filters]))
    assert client.expect(Suback).reason_codes == [1] * 1000
    client.send(Unsubscribe(2, [*filters[:999], "never"]))
    codes = [0] * 999 + [NO_SUBSCRIPTION_EXISTED] if version == MQTT_5 else []
    assert client.expect(Unsuback).reason_codes == codes
    publisher = dial(connect_packet(f"{name}-pub"))
    for level in (998, 999):
        publisher.publish_all(f"{name}/{level}", [b""])
    assert client.expect(Publish).topic == f"{name}/999"


# Receive Maximum


def test_a_client_with_receive_maximum_1_gets_one_at_a_time(
    broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """[MQTT-3.3.4-9, MQTT-4.9.0-1, 2] QoS 0 does not count, so it may come before what waits for
    the window, and comes once."""
    client = dial(replace(connect_packet(name), receive_maximum=1))
    client.subscribe(f"{name}/1", 1)
    client.subscribe(f"{name}/2", 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    for packet_id, (level, qos) in enumerate(((1, 1), (1, 1), (2, 2), (1, 0), (2, 2)), 1):
        publisher.send(Publish(f"{name}/{level}", b"", qos, False, False, packet_id))
        if qos:
            publisher.expect(Ack)
    fired: list[Publish] = []

    def received(kind: type[P]) -> P:
        packet = client.receive()
        if isinstance(packet, Publish) and packet.qos == 0:
            fired.append(packet)
            packet = client.receive()
        assert isinstance(packet, kind), packet
        return packet

    def nothing_more() -> None:
        client.send(Pingreq())
        received(Pingresp)

    for _ in range(2):
        publish = received(Publish)
        assert publish.qos == 1
        nothing_more()
        client.send(Ack(PUBACK, [publish.packet_id]))
    for _ in range(2):
        publish = received(Publish)
        assert publish.qos == 2
        nothing_more()
        client.send(Ack(PUBREC, [publish.packet_id]))
        assert received(Ack) == Ack(PUBREL, [publish.packet_id])
        nothing_more()
        client.send(Ack(PUBCOMP, [publish.packet_id]))
    nothing_more()
    assert [packet.topic for packet in fired] == [f"{name}/1"]


def test_a_client_that_exceeds_our_receive_maximum(dial: Dial, name: str) -> None:
    """[MQTT-3.3.4-7] Each QoS 2 exchange counts until its PUBCOMP."""
    dial(connect_packet(f"{name}-sub")).subscribe(name, 0)
    client = dial(connect_packet(name))
    client.send(*(Publish(name, b"", 2, False, False, n) for n in range(1, RECEIVE_MAXIMUM + 1)))
    for _ in range(RECEIVE_MAXIMUM):
        assert client.expect(Ack).type == PUBREC
    expect_nothing(client)
    client.send(Ack(PUBREL, [1]))
    assert client.expect(Ack) == Ack(PUBCOMP, [1])
    client.send(Publish(name, b"", 1, False, False, 1))
    assert client.expect(Ack) == Ack(PUBACK, [1])
    client.send(Publish(name, b"", 2, False, False, 1))
    assert client.expect(Ack) == Ack(PUBREC, [1])
    client.send(Publish(name, b"", 1, False, False, RECEIVE_MAXIMUM + 1))
    assert client.expect(Disconnect).reason_code == RECEIVE_MAXIMUM_EXCEEDED
    assert client.closed()


def test_the_window_may_shrink_between_connections(
    dial: Dial, name: str, broker: BrokerProcess
) -> None:
    """[MQTT-3.3.4-9] Also what is sent again keeps to the Receive Maximum."""
    client = dial(connect_packet(name, durable=True))
    client.subscribe(name, 1)
    publish_many(broker.port, name, [b"%d" % n for n in range(5)], client_id=f"{name}-pub")
    assert [client.expect(Publish).payload for _ in range(5)] == [b"0", b"1", b"2", b"3", b"4"]
    client.send(Disconnect())
    back = replace(connect_packet(name, durable=True), receive_maximum=1)
    client = dial(back, present=True)
    for payload in (b"0", b"1", b"2", b"3", b"4"):
        publish = client.expect(Publish)
        assert (publish.payload, publish.dup) == (payload, True)
        expect_nothing(client)
        client.send(Ack(PUBACK, [publish.packet_id]))
    expect_nothing(client)


# Exchanges that go on


def test_unacknowledged_messages_come_again_under_the_same_identifier(
    broker: BrokerProcess, dial: Dial, name: str, version: int
) -> None:
    """[MQTT-4.4.0-1, MQTT-3.3.1-1] In order, and before what is new."""
    connect = connect_packet(name, version=version, durable=True)
    client = dial(connect)
    client.subscribe(name, 1)
    publish_many(broker.port, name, [b"%d" % n for n in range(5)], client_id=f"{name}-pub")
    first = [client.expect(Publish) for _ in range(5)]
    assert not any(publish.dup for publish in first)
    client.send(Ack(PUBACK, [first[0].packet_id]), Ack(PUBACK, [first[2].packet_id]))
    expect_nothing(client)
    client.socket.close()
    publish_many(broker.port, name, [b"new"], client_id=f"{name}-pub")
    client = dial(connect, present=True)
    for expected in (first[1], first[3], first[4]):
        assert client.expect(Publish) == replace(expected, dup=True)
    new = client.expect(Publish)
    assert (new.payload, new.dup) == (b"new", False)
    assert new.packet_id not in [publish.packet_id for publish in first[1:2] + first[3:]]


def test_a_message_that_was_received_is_only_released(
    broker: BrokerProcess, dial: Dial, name: str, version: int
) -> None:
    """QoS 2 towards the client, cut after each step. [MQTT-4.3.3-5..7]"""
    connect = connect_packet(name, version=version, durable=True)
    client = dial(connect)
    client.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    publisher.publish_all(name, [b"exactly once"], 2)
    publisher.send(Ack(PUBREL, [1]))
    publisher.expect(Ack)
    publish = client.expect(Publish)
    client.socket.close()
    client = dial(connect, present=True)
    assert client.expect(Publish) == replace(publish, dup=True)
    client.send(Ack(PUBREC, [publish.packet_id]))
    client.expect(Ack)
    client.socket.close()
    client = dial(connect, present=True)
    assert client.expect(Ack) == Ack(PUBREL, [publish.packet_id])
    client.send(Ack(PUBCOMP, [publish.packet_id]))
    expect_nothing(client)
    client.socket.close()
    expect_nothing(dial(connect, present=True))


def test_a_message_that_is_sent_twice_counts_once(dial: Dial, name: str, version: int) -> None:
    """QoS 2 towards the broker, cut after PUBREC. [MQTT-4.3.3-10..12]"""
    connect = connect_packet(name, version=version, durable=True)
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 0)
    message = Publish(name, b"once", 2, False, False, 7)
    client = dial(connect)
    client.send(message)
    assert client.expect(Ack) == Ack(PUBREC, [7])
    client.socket.close()
    client = dial(connect, present=True)
    client.send(replace(message, dup=True))
    assert client.expect(Ack) == Ack(PUBREC, [7])
    client.send(Ack(PUBREL, [7]))
    assert client.expect(Ack) == Ack(PUBCOMP, [7])
    client.send(replace(message, payload=b"another"))
    assert client.expect(Ack) == Ack(PUBREC, [7])
    assert [watcher.expect(Publish).payload for _ in range(2)] == [b"once", b"another"]


def test_exchanges_go_on_after_a_kill_of_the_broker(
    own_broker: BrokerProcess, dial: Dial, name: str, version: int
) -> None:
    """QoS 2 in both directions, killed after PUBREC."""
    publisher_connect = connect_packet(f"{name}-pub", version=version, durable=True)
    subscriber_connect = connect_packet(name, version=version, durable=True)
    subscriber = dial(subscriber_connect, port=own_broker.port)
    subscriber.subscribe(name, 2)
    publisher = dial(publisher_connect, port=own_broker.port)
    message = Publish(name, b"once", 2, False, False, 7)
    publisher.send(message)
    assert publisher.expect(Ack) == Ack(PUBREC, [7])
    publish = subscriber.expect(Publish)
    subscriber.send(Ack(PUBREC, [publish.packet_id]))
    assert subscriber.expect(Ack) == Ack(PUBREL, [publish.packet_id])
    own_broker.kill()
    own_broker.start()
    publisher = dial(publisher_connect, port=own_broker.port, present=True)
    publisher.send(replace(message, dup=True))
    assert publisher.expect(Ack) == Ack(PUBREC, [7])
    subscriber = dial(subscriber_connect, port=own_broker.port, present=True)
    assert subscriber.expect(Ack) == Ack(PUBREL, [publish.packet_id])
    subscriber.send(Ack(PUBCOMP, [publish.packet_id]))
    expect_nothing(subscriber)
    assert own_broker.query("SELECT count(*) FROM history") == [(1,)]


def test_a_release_of_the_unknown_is_answered(dial: Dial, name: str, version: int) -> None:
    """Or a client that lost its PUBCOMP would ask for ever. [MQTT-4.3.3-11]"""
    client = dial(connect_packet(name, version=version))
    client.send(Ack(PUBREL, [9]))
    ack = client.expect(Ack)
    assert (ack.type, ack.packet_ids) == (PUBCOMP, [9])


def test_an_acknowledgement_of_the_unknown_changes_nothing(
    dial: Dial, name: str, version: int
) -> None:
    client = dial(connect_packet(name, version=version))
    client.send(Ack(PUBACK, [9]), Ack(PUBCOMP, [9]), Ack(PUBREC, [9]))
    answer = client.expect(Ack)
    assert (answer.type, answer.packet_ids) == (PUBREL, [9])
    expect_nothing(client)


def test_a_subscriber_may_refuse_a_message(dial: Dial, name: str) -> None:
    """A PUBACK or PUBREC with an error ends the exchange. [MQTT-4.4.0-2]"""
    connect = connect_packet(name, durable=True)
    client = dial(connect)
    client.subscribe(name, 2)
    publisher = dial(connect_packet(f"{name}-pub"))
    for packet_id, (qos, kind) in enumerate(((1, PUBACK), (2, PUBREC)), 1):
        publisher.send(Publish(name, b"", qos, False, False, packet_id))
        publisher.expect(Ack)
        client.send(Ack(kind, [client.expect(Publish).packet_id], 0x83))
    expect_nothing(client)
    client.socket.close()
    expect_nothing(dial(connect, present=True))


def test_properties_keep_their_order_byte_for_byte(dial: Dial, name: str) -> None:
    """[MQTT-3.3.2-17, 18]"""
    pairs = (("b", "1"), ("a", "2"), ("b", "1"), ("a", ""))
    properties = b"".join(
        b"\x26\0"
        + bytes((len(key),))
        + key.encode()
        + b"\0"
        + bytes((len(value),))
        + value.encode()
        for key, value in pairs
    )
    properties += b"\x03\0\4text" + properties + b"\x09\0\2\0\xff\x08\0\1r\x01\1"
    client = dial(connect_packet(name))
    client.subscribe(name, 1)
    client.send(Publish(name, b"", 1, False, False, 1, properties))
    packets = [client.receive(), client.receive()]
    [publish] = [packet for packet in packets if isinstance(packet, Publish)]
    assert publish.properties == properties


# The end of a connection


def test_keep_alive(dial: Dial, name: str) -> None:
    """[MQTT-3.1.2-22] It is 1 s here, so that 1.5 s of silence end the connection."""
    silent = dial(replace(connect_packet(f"{name}-silent"), keep_alive_s=1))
    silent_3 = dial(replace(connect_packet(f"{name}-3", version=MQTT_3_1_1), keep_alive_s=1))
    alive = dial(replace(connect_packet(f"{name}-alive"), keep_alive_s=1))
    half = dial(replace(connect_packet(f"{name}-half"), keep_alive_s=1))
    slow = dial(replace(connect_packet(f"{name}-slow"), keep_alive_s=1))
    large = encode(Publish(name, bytes(100), 1, False, False, 1), MQTT_5)
    connected_at = time.monotonic()
    while time.monotonic() - connected_at < 1.4:
        expect_nothing(alive)
        slow.send(large[:1])
        large = large[1:]
        time.sleep(0.2)
    half.send(b"\x82")  # No packet that could count, as it has no end.
    assert silent.expect(Disconnect).reason_code == KEEP_ALIVE_TIMEOUT
    assert 1.4 < time.monotonic() - connected_at < 3
    assert silent.closed()
    assert silent_3.closed()
    assert half.expect(Disconnect).reason_code == KEEP_ALIVE_TIMEOUT
    slow.send(large)  # What arrives of a PUBLISH counts.
    assert slow.expect(Ack).type is PacketType.PUBACK
    expect_nothing(alive)


def test_a_suspended_broker_reads_what_arrived_before_it_judges_silence(
    own_broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """[MQTT-3.1.2-22] As on a laptop that sleeps."""
    clients = [
        dial(
            replace(connect_packet(f"{name}-{version}-{n}", version=version), keep_alive_s=1),
            port=own_broker.port,
        )
        for version in (MQTT_3_1_1, MQTT_5)
        for n in range(5)
    ]
    with own_broker.suspended():
        for client in clients:
            client.send(Pingreq())
        time.sleep(2)
    for client in clients:
        client.expect(Pingresp)
        expect_nothing(client)


def test_a_session_may_end_with_disconnect(dial: Dial, name: str, broker: BrokerProcess) -> None:
    """Section 3.14.2.2.2: Session Expiry Interval of DISCONNECT replaces that of CONNECT."""
    client = dial(connect_packet(name, durable=True))
    client.subscribe(name)
    client.send(Disconnect(session_expiry_s=0))
    assert client.closed()
    dial(connect_packet(name, durable=True), present=False)


def test_session_expiry_0_ends_the_session_with_the_connection(dial: Dial, name: str) -> None:
    """[MQTT-3.1.2-23] Also when it was there before."""
    dial(connect_packet(name, durable=True)).send(Disconnect())
    brief = dial(replace(connect_packet(name), clean_start=False), present=True)
    brief.send(Disconnect())
    assert brief.closed()
    dial(connect_packet(name, durable=True), present=False)


def test_disconnect_with_will(dial: Dial, name: str) -> None:
    """[MQTT-3.14.4-3]"""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    leaving = dial(replace(connect_packet(name), will=Will(name, b"gone", 1, False)))
    leaving.send(Disconnect(DISCONNECT_WITH_WILL))
    assert watcher.expect(Publish).payload == b"gone"


def test_takeover_has_a_reason(dial: Dial, name: str) -> None:
    """[MQTT-3.1.4-3]"""
    old = dial(connect_packet(name, durable=True))
    old.subscribe(name, 1)
    new = dial(connect_packet(name, durable=True), present=True)
    assert old.expect(Disconnect).reason_code == SESSION_TAKEN_OVER
    assert old.closed()
    new.publish_all(name, [b"x"], 0)
    assert new.expect(Publish).payload == b"x"


def test_many_takeovers_at_once_leave_one(dial: Dial, name: str, broker: BrokerProcess) -> None:
    connect = connect_packet(name, durable=True)
    clients = [RawClient(broker.port) for _ in range(20)]
    for client in clients:
        client.send(connect)
    last = dial(connect, present=True)
    last.subscribe(name, 1)
    publish_many(broker.port, name, [b"x"], client_id=f"{name}-pub")
    assert last.expect(Publish).payload == b"x"
    for client in clients:
        while client.receive() is not None:
            pass
        client.socket.close()


def test_a_subscriber_of_lines_and_a_session_of_mqtt_are_one(
    dial: Dial, name: str, broker: BrokerProcess
) -> None:
    """The later connection has it, whatever it speaks."""
    connect = connect_packet(name, durable=True)
    client = dial(connect)
    client.subscribe(name, 1)
    with LineSocket(broker.port) as lines:
        assert lines.ask(f"SUBSCRIBE {name} {name}") == "OK"
        assert client.expect(Disconnect).reason_code == SESSION_TAKEN_OVER
        publish_many(broker.port, name, [b"by line"], client_id="pub")
        assert lines.delivered() == f"{name} by line pub"
        client = dial(connect, present=True)
        publish_many(broker.port, name, [b"by MQTT"], client_id="pub")
        assert client.expect(Publish).payload == b"by MQTT"


def test_a_stopping_broker_says_so(own_broker: BrokerProcess, dial: Dial, name: str) -> None:
    """And what was acknowledged before is not sent again. (P4)"""
    connect = connect_packet(name, durable=True)
    client = dial(connect, port=own_broker.port)
    client.subscribe(name, 1)
    publish_many(own_broker.port, name, [b"1", b"2"], client_id="pub")
    first, second = client.expect(Publish), client.expect(Publish)
    client.send(Ack(PUBACK, [first.packet_id]))
    expect_nothing(client)
    assert own_broker.stop() == 0
    assert client.expect(Disconnect).reason_code == SERVER_SHUTTING_DOWN
    assert client.closed()
    own_broker.start()
    client = dial(connect, port=own_broker.port, present=True)
    assert client.expect(Publish) == replace(second, dup=True)
    expect_nothing(client)


def test_a_subscription_is_replaced_without_a_gap(
    dial: Dial, name: str, broker: BrokerProcess
) -> None:
    """[MQTT-3.8.4-3, 4]"""
    client = dial(connect_packet(name))
    client.subscribe(name, 0)
    publisher = dial(connect_packet(f"{name}-pub"))
    payloads = [b"%d" % number for number in range(1000)]
    packets = [Publish(name, payload, 0, False, False, 0) for payload in payloads]
    publisher.send(*packets[:500])
    client.send(Subscribe(1, [SubscriptionRequest(name, 1)]))
    publisher.send(*packets[500:])
    got: list[bytes] = []
    while len(got) < 1000:
        packet = client.receive()
        assert packet is not None
        if isinstance(packet, Publish):
            got.append(packet.payload)
    assert got == payloads
