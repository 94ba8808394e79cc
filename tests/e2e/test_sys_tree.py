"""What the broker tells about itself under $SYS, which nobody else may, and in CONNACK if asked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker import __version__
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
    Will,
)
from broker.mqtt.properties import Property
from tests.support.broker_process import BrokerProcess
from tests.support.fixtures import dial, version
from tests.support.line_socket import LineSocket
from tests.support.raw_client import Dial, RawClient, connect_packet, expect_nothing

__all__ = ["dial", "version"]

PUBACK, PUBREC = PacketType.PUBACK, PacketType.PUBREC
PUBREL, PUBCOMP = PacketType.PUBREL, PacketType.PUBCOMP
TOPIC_NAME_INVALID, KEEP_ALIVE_TIMEOUT = 0x90, 0x8D


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerProcess]:
    settings = {
        "sys_interval_s": 0.1,
        "keep_alive_max_s": 1,
        "response_information": "answers/here",
    }
    with BrokerProcess(tmp_path_factory.mktemp("broker"), settings) as broker:
        yield broker
        assert broker.stop() == 0
    assert broker.complaints() == []


def publish(topic: str, payload: bytes, qos: int, packet_id: int) -> Publish:
    return Publish(topic, payload, qos, False, False, packet_id if qos else 0)


def test_mosquitto_sub_reads_the_version(broker: BrokerProcess) -> None:
    if shutil.which("mosquitto_sub") is None:
        pytest.skip("needs mosquitto_sub (Debian: mosquitto-clients)")
    command = ["mosquitto_sub", "-p", str(broker.port), "-t", "$SYS/broker/version", "-C", "1"]
    done = subprocess.run([*command, "-F", "%r %p"], capture_output=True, text=True, timeout=10)
    assert done.stdout == f"1 pubsub version {__version__}\n"


@pytest.mark.parametrize("counted", ["messages/received", "messages/sent", "bytes/sent"])
def test_values_come_at_once_and_again_when_they_change(
    dial: Dial, name: str, version: int, counted: str
) -> None:
    """At once as retained messages; though QoS 2 is granted at QoS 0."""
    client = dial(connect_packet(name, version=version))
    topic = f"$SYS/broker/{counted}"
    client.send(Subscribe(1, [SubscriptionRequest(topic, 2)]))
    assert client.expect(Suback).reason_codes == [2]
    first = client.expect(Publish)
    assert (first.topic, first.qos, first.retain) == (topic, 0, True)
    second = client.expect(Publish)  # SUBSCRIBE and what it got were packets, too.
    assert (second.topic, second.qos, second.retain) == (topic, 0, False)
    assert int(second.payload) > int(first.payload)


def test_a_wildcard_that_comes_first_does_not_match(dial: Dial, name: str) -> None:
    """[MQTT-4.7.2-1]"""
    client, uptime = dial(connect_packet(name)), dial(connect_packet(f"{name}-2"))
    client.subscribe("#")
    uptime.subscribe("$SYS/broker/publish/messages/received")
    uptime.expect(Publish)
    client.send(publish(name, b"", 0, 0))
    uptime.expect(Publish)  # So a round of values went out while the other was subscribed.
    assert client.expect(Publish).topic == name
    expect_nothing(client)


def test_the_line_protocol_reads_them_and_may_not_write_them(
    broker: BrokerProcess, name: str
) -> None:
    with LineSocket(broker.port) as lines:
        lines.write(f"SUBSCRIBE $SYS/broker/version {name}\n")
        version = f"pubsub version {__version__}"
        assert lines.read() == "OK"
        assert lines.delivered() == f"$SYS/broker/version {version} $SYS"
        answer = lines.ask(f"PUBLISH $SYS/broker/version 9 {name}")
        assert answer.startswith("ERROR Topic Name begins with $SYS")


@pytest.mark.parametrize("counted", ["messages", "bytes"])
def test_packets_and_bytes_are_counted(dial: Dial, name: str, counted: str) -> None:
    """Every packet counts, also each acknowledgement of a run and a PINGREQ."""
    watcher = dial(connect_packet(name))
    watcher.subscribe(f"$SYS/broker/{counted}/received")
    while not watcher.expect(Publish).retain:
        pass

    def value() -> int:
        """Computed after all that was sent before: the ping changes it once more."""
        watcher.send(Pingreq())
        while not isinstance(watcher.receive(), Pingresp):
            pass
        return int(watcher.expect(Publish).payload)

    before = value()
    connect = connect_packet(f"{name}-2")
    acks = Ack(PUBACK, range(1, 101))
    client = dial(connect)
    client.send(acks)
    expect_nothing(client)
    size = len(encode(connect, MQTT_5) + encode(acks, MQTT_5) + 2 * encode(Pingreq(), MQTT_5))
    assert value() - before == (1 + 100 + 2 if counted == "messages" else size)


@pytest.mark.parametrize("qos", [0, 1])
def test_payload_that_was_sent_is_counted(
    dial: Dial, name: str, broker: BrokerProcess, qos: int
) -> None:
    """Each time that it was sent, and not where it was too large for the client."""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe("$SYS/broker/publish/bytes/sent")
    before = int(watcher.expect(Publish).payload)
    durable = connect_packet(name, durable=True)
    subscriber = dial(durable)
    subscriber.subscribe(name, qos)
    small = dial(replace(connect_packet(f"{name}-small"), packet_bytes_max=1000))
    small.subscribe(name, qos)
    size = 1_000_000
    publisher = dial(connect_packet(f"{name}-pub"))
    publisher.publish_all(name, [bytes(size)])
    subscriber.expect(Publish)
    sent = size
    if qos == 1:
        subscriber.socket.close()
        dial(durable, present=True).expect(Publish)
        sent += size
    while (now := int(watcher.expect(Publish).payload)) < before + sent:
        pass
    assert now < before + sent + size // 2


@pytest.mark.parametrize("topic", ["$SYS/broker/version", "$SYS/a", "$SYS"])
def test_clients_may_not_publish_there(
    dial: Dial, name: str, version: int, broker: BrokerProcess, topic: str
) -> None:
    """[MQTT-4.7.2, MQTT3-3.3.5-2] Refused in its turn, where MQTT can say so; nothing else is."""
    subscriber = dial(connect_packet(f"{name}-sub", version=version))
    subscriber.subscribe(name, 0)
    client = dial(connect_packet(name, version=version))
    client.send(
        publish(name, b"1", 1, 1),
        publish(topic, b"x", 1, 2),
        publish(topic, b"x", 0, 0),
        publish(topic, b"x", 2, 3),
        publish(name, b"2", 1, 4),
    )
    acks = [client.expect(Ack) for _ in range(4)]
    code = TOPIC_NAME_INVALID if version == MQTT_5 else 0
    assert [(ack.type, *ack.packet_ids, ack.reason_code) for ack in acks] == [
        (PUBACK, 1, 0),
        (PUBACK, 2, code),
        (PUBREC, 3, code),
        (PUBACK, 4, 0),
    ]
    if version == MQTT_5:
        assert acks[1].reason_string is not None
        assert "$SYS" in acks[1].reason_string
    else:
        client.send(Ack(PUBREL, [3]))
        assert client.expect(Ack) == Ack(PUBCOMP, [3])
    assert [subscriber.expect(Publish).payload for _ in range(2)] == [b"1", b"2"]
    assert broker.query("SELECT count(*) FROM history WHERE topic = ?", topic) == [(0,)]


def test_nor_by_topic_alias(dial: Dial, name: str) -> None:
    """And the alias is set all the same. [MQTT-3.3.2-12]"""
    client = dial(connect_packet(name))
    alias = b"\x23\0\1"
    client.send(
        replace(publish("$SYS/x", b"", 1, 1), properties=alias),
        replace(publish("", b"", 1, 2), properties=alias),
        replace(publish(name, b"", 1, 3), properties=alias),
        replace(publish("", b"", 1, 4), properties=alias),
    )
    codes = [client.expect(Ack).reason_code for _ in range(4)]
    assert codes == [TOPIC_NAME_INVALID, TOPIC_NAME_INVALID, 0, 0]


def test_refused_messages_do_not_use_up_receive_maximum(dial: Dial, name: str) -> None:
    """[MQTT-4.9.0-2]"""
    client = dial(connect_packet(name))
    for qos in (1, 2):
        for _ in range(3):
            client.send(*[publish("$SYS/x", b"", qos, i) for i in range(1, 1001)])
            for _ in range(1000):
                assert client.expect(Ack).reason_code == TOPIC_NAME_INVALID
    expect_nothing(client)


def test_a_will_there_is_refused(broker: BrokerProcess, name: str, version: int) -> None:
    """Reason Code 0x90 of section 3.2.2.2; 3.1.1 has none for it."""
    will = Will("$SYS/broker/version", b"9", 0, False)
    with RawClient(broker.port, version) as client:
        client.send(replace(connect_packet(name, version=version), will=will))
        if version == MQTT_5:
            assert client.expect(Connack).reason_code == TOPIC_NAME_INVALID
        assert client.closed()


@pytest.mark.parametrize("asked_s", [0, 2, 65_535])
def test_who_asks_for_a_longer_keep_alive_is_told_ours(
    broker: BrokerProcess, name: str, asked_s: int
) -> None:
    with RawClient(broker.port) as client:
        connack = client.connect(replace(connect_packet(name), keep_alive_s=asked_s))
        assert connack.properties[Property.SERVER_KEEP_ALIVE] == 1


def test_and_is_held_to_it(broker: BrokerProcess, name: str) -> None:
    """[MQTT-3.1.2-22, MQTT-3.2.2-21] 3.1.1 cannot be told, and is not held."""
    with RawClient(broker.port) as client, RawClient(broker.port, MQTT_3_1_1) as untold:
        client.connect(replace(connect_packet(name), keep_alive_s=0))
        untold.connect(replace(connect_packet(f"{name}-old", version=MQTT_3_1_1), keep_alive_s=60))
        assert client.expect(Disconnect).reason_code == KEEP_ALIVE_TIMEOUT
        assert client.closed()
        expect_nothing(untold)


def test_who_asks_for_less_is_told_nothing(broker: BrokerProcess, name: str) -> None:
    """[MQTT-3.2.2-22]"""
    with RawClient(broker.port) as client:
        connack = client.connect(replace(connect_packet(name), keep_alive_s=1))
        assert Property.SERVER_KEEP_ALIVE not in connack.properties


@pytest.mark.parametrize("asked", [True, False])
def test_response_information_is_for_who_asks(
    broker: BrokerProcess, name: str, asked: bool
) -> None:
    """[MQTT-3.1.2-28]"""
    with RawClient(broker.port) as client:
        connect = replace(connect_packet(name), request_response_information=asked)
        information = client.connect(connect).properties.get(Property.RESPONSE_INFORMATION)
        assert information == ("answers/here" if asked else None)


def test_all_of_it_can_be_left_out(tmp_path: Path, name: str) -> None:
    with BrokerProcess(tmp_path, {"sys_interval_s": 0}) as broker:
        with RawClient(broker.port) as client:
            connect = replace(
                connect_packet(name), keep_alive_s=0, request_response_information=True
            )
            properties = client.connect(connect).properties
            assert not {Property.SERVER_KEEP_ALIVE, Property.RESPONSE_INFORMATION} & {*properties}
            client.subscribe("$SYS/#")
            expect_nothing(client)
        assert broker.stop() == 0
