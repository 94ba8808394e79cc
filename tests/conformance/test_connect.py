"""CONNECT, CONNACK and what becomes of sessions and wills. (Sections 3.1, 3.2, 4.1)"""

from __future__ import annotations

import string
import time
from dataclasses import replace
from pathlib import Path

import pytest

from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Connack,
    Connect,
    Disconnect,
    Pingreq,
    Publish,
    Will,
)
from broker.mqtt.properties import Property
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.raw_client import Dial, RawClient, connect_packet, expect_nothing, publish_many

QUOTA_EXCEEDED, SERVER_UNAVAILABLE_3_1_1 = 0x97, 3
CLIENT_IDENTIFIER_REJECTED_3_1_1 = 2
US = 1_000_000


def test_session_present_says_whether_there_was_a_session(
    dial: Dial, name: str, version: int
) -> None:
    """[MQTT-3.1.2-5, 6, MQTT-3.2.2-2, 3, MQTT3-3.1.2-4, 6, MQTT3-3.2.2-1..3]"""
    durable = connect_packet(name, version=version, durable=True)
    for present in (False, True):
        client = dial(durable, present=present)
        client.send(Disconnect())
        assert client.closed()
    for _ in range(2):
        client = dial(replace(durable, clean_start=True, session_expiry_s=None), present=False)
        client.send(Disconnect())
        assert client.closed()
    dial(durable, present=False)


def test_each_client_identifier_has_a_session_of_its_own(
    dial: Dial, name: str, version: int, broker: BrokerProcess
) -> None:
    """[MQTT-3.1.3-2, MQTT3-3.1.3-2] Names that differ in case or in a blank are others."""
    names = [name, name.upper(), f"{name} ", f" {name}"]
    for client_id in names:
        client = dial(connect_packet(client_id, version=version, durable=True))
        client.subscribe(f"{name}/{names.index(client_id)}", 1)
        client.send(Disconnect())
        assert client.closed()
    for index in range(len(names)):
        publish_many(broker.port, f"{name}/{index}", [b"%d" % index], client_id=f"{name}-pub")
    for index, client_id in enumerate(names):
        client = dial(connect_packet(client_id, version=version, durable=True), present=True)
        assert client.expect(Publish).payload == b"%d" % index
        expect_nothing(client)


def test_letters_and_digits_make_a_client_identifier(dial: Dial, version: int) -> None:
    """[MQTT-3.1.3-5, MQTT3-3.1.3-5] Up to 23 of them; others and more are fine, too."""
    letters = string.digits + string.ascii_letters
    for client_id in ("0", letters[:23], letters[23:46], letters[39:62], letters * 4, "ä/+#"):
        dial(connect_packet(client_id, version=version))


def test_who_has_no_name_is_given_one(dial: Dial, name: str, broker: BrokerProcess) -> None:
    """[MQTT-3.1.3-6, 7, MQTT-3.2.2-16] It is unique, and as good as one of its own."""
    nameless = connect_packet("", durable=True)
    given = []
    for _ in range(3):
        with RawClient(broker.port) as client:
            given.append(client.connect(nameless).properties[Property.ASSIGNED_CLIENT_IDENTIFIER])
            client.send(Disconnect())
            assert client.closed()
    assert len({*given}) == 3
    for client_id in given:
        dial(connect_packet(client_id, durable=True), present=True)


def test_who_has_no_name_has_no_session_in_3_1_1(broker: BrokerProcess) -> None:
    """[MQTT3-3.1.3-6..9]"""
    with RawClient(broker.port, MQTT_3_1_1) as client, RawClient(broker.port, MQTT_3_1_1) as other:
        for nameless in (client, other):
            assert nameless.connect(connect_packet("", version=MQTT_3_1_1)).reason_code == 0
        expect_nothing(client)
    with RawClient(broker.port, MQTT_3_1_1) as client:
        refused = client.connect(connect_packet("", version=MQTT_3_1_1, durable=True))
        assert refused == Connack(False, CLIENT_IDENTIFIER_REJECTED_3_1_1)
        assert client.closed()


@pytest.mark.parametrize("expected", [0x85, CLIENT_IDENTIFIER_REJECTED_3_1_1])
def test_who_has_the_name_of_a_group_is_rejected(
    own_broker: BrokerProcess, name: str, expected: int
) -> None:
    """[MQTT-3.1.3-8, MQTT3-3.1.3-9] The group keeps its place in the log under that name."""
    version = MQTT_5 if expected == 0x85 else MQTT_3_1_1
    with RawClient(own_broker.port, version) as client:
        thief = connect_packet(f"$share/group/{name}", version=version, durable=True)
        assert client.connect(thief).reason_code == expected
        assert client.closed()


def test_connack_has_nothing_that_was_not_asked_for(broker: BrokerProcess, name: str) -> None:
    """[MQTT-3.1.2-28, MQTT-4.12.0-6, MQTT-3.2.2-22] And limits none of what is supported."""
    with RawClient(broker.port) as client:
        properties = client.connect(connect_packet(name)).properties
    for absent in (
        Property.RESPONSE_INFORMATION,
        Property.AUTHENTICATION_METHOD,
        Property.AUTHENTICATION_DATA,
        Property.ASSIGNED_CLIENT_IDENTIFIER,
        Property.SERVER_KEEP_ALIVE,
        Property.SESSION_EXPIRY_INTERVAL,
        Property.MAXIMUM_QOS,
        Property.RETAIN_AVAILABLE,
        Property.WILDCARD_SUBSCRIPTION_AVAILABLE,
        Property.SUBSCRIPTION_IDENTIFIER_AVAILABLE,
    ):
        assert absent not in properties


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_a_refused_client_is_not_obeyed(tmp_path: Path, version: int) -> None:
    """[MQTT-3.1.4-2, 6, MQTT-3.2.2-6, 7, MQTT3-3.1.4-5, MQTT3-3.2.2-4, 5]

    The broker keeps one session here, and it is another's.
    """
    with BrokerProcess(tmp_path, {"sessions_max": 1}) as broker:
        with RawClient(broker.port) as client:
            client.connect(connect_packet("first", durable=True))
            client.subscribe("t", 1)
            with RawClient(broker.port, version) as refused:
                refused.send(
                    connect_packet("second", version=version, durable=True),
                    Publish("t", b"not obeyed", 1, False, False, 1),
                    Pingreq(),
                )
                connack = refused.expect(Connack)
                wanted = QUOTA_EXCEEDED if version == MQTT_5 else SERVER_UNAVAILABLE_3_1_1
                assert (connack.reason_code, connack.session_present) == (wanted, False)
                assert refused.closed()
            client.publish_all("t", [b"own"], 0)
            assert client.expect(Publish).payload == b"own"
        assert broker.stop() == 0
        assert broker.query("SELECT payload FROM history") == [(b"own",)]
    assert broker.complaints() == []


# Wills


def with_will(name: str, version: int, will: Will, *, durable: bool = False) -> Connect:
    return replace(connect_packet(name, version=version, durable=durable), will=will)


def test_a_will_is_retained_if_it_says_so(dial: Dial, name: str, version: int) -> None:
    """[MQTT-3.1.2-14, 15, MQTT3-3.1.2-16, 17]"""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(f"{name}/#", 1)
    for retain in (False, True):
        topic = f"{name}/{retain}"
        dial(with_will(name, version, Will(topic, b"gone", 1, retain))).socket.close()
        assert watcher.expect(Publish).topic == topic
    late = dial(connect_packet(f"{name}-late", version=version))
    late.subscribe(f"{name}/False", 1)
    expect_nothing(late)
    late.subscribe(f"{name}/+", 1)
    retained = late.expect(Publish)
    assert (retained.topic, retained.payload, retained.retain) == (f"{name}/True", b"gone", True)


def test_the_properties_of_a_will_keep_their_order(dial: Dial, name: str) -> None:
    """[MQTT-3.1.3-10]"""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    pairs = (b"b1", b"a2", b"b1", b"a0")
    properties = b"".join(b"\x26\0\1%c\0\1%c" % (key, value) for key, value in pairs)
    will = Will(name, b"gone", 1, False, properties)
    dial(with_will(f"{name}-lost", MQTT_5, will)).socket.close()
    assert watcher.expect(Publish).properties == properties


def test_a_will_is_published_once(dial: Dial, name: str, version: int) -> None:
    """[MQTT-3.1.2-10, MQTT3-3.1.2-10, 12] Who comes back without one has none."""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    lost = with_will(name, version, Will(name, b"gone", 1, False), durable=True)
    dial(lost).socket.close()
    assert watcher.expect(Publish).payload == b"gone"
    client = dial(replace(lost, will=None), present=True)
    client.socket.close()
    dial(replace(lost, will=Will(name, b"again", 1, False)), present=True).socket.close()
    assert watcher.expect(Publish).payload == b"again"


@pytest.mark.parametrize("bad", ["00 00", "10 00", "32 05 0001 61 0000"])
def test_a_client_that_breaks_a_rule_is_lost(dial: Dial, name: str, version: int, bad: str) -> None:
    """[MQTT-3.1.2-8, MQTT3-3.1.2-8, MQTT3-4.8.0-1] So that its will is published."""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    client = dial(with_will(name, version, Will(name, b"gone", 1, False)))
    client.send(bytes.fromhex(bad))
    assert watcher.expect(Publish).payload == b"gone"


def test_a_client_that_falls_silent_is_lost(dial: Dial, name: str, version: int) -> None:
    """[MQTT-3.1.2-8, 22, MQTT3-3.1.2-8, 24] Nothing else tells that it is gone."""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    silent = with_will(name, version, Will(name, b"gone", 1, False))
    dial(replace(silent, keep_alive_s=1))
    assert watcher.expect(Publish).payload == b"gone"


def test_a_crash_of_the_broker_ends_sessions_and_so_the_will_delay(
    own_broker: BrokerProcess, dial: Dial, name: str
) -> None:
    """[MQTT-3.1.2-8, MQTT-3.1.3-9] Of those that have no Session Expiry Interval."""
    watching = connect_packet(f"{name}-watcher", durable=True)
    dial(watching, port=own_broker.port).subscribe(f"{name}/#", 1)
    for durable in (False, True):
        will = Will(f"{name}/{durable}", b"gone", 1, False, delay_s=3600)
        lost = with_will(f"{name}-{durable}", MQTT_5, will, durable=durable)
        dial(lost, port=own_broker.port)
    own_broker.kill()
    own_broker.start()
    watcher = dial(watching, port=own_broker.port, present=True)
    watcher.publish_all(f"{name}/after", [b""], 0)
    assert watcher.expect(Publish).topic == f"{name}/False"
    assert watcher.expect(Publish).topic == f"{name}/after"


@pytest.mark.parametrize("delay_s", [0, 3600])
@pytest.mark.parametrize("clean_start", [False, True])
def test_a_takeover_publishes_the_will_unless_it_waits_for_the_same_session(
    dial: Dial, name: str, clean_start: bool, delay_s: int
) -> None:
    """[MQTT-3.1.2-8, MQTT-3.1.3-9, MQTT-3.1.4-3]"""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    will = Will(name, b"gone", 1, False, delay_s=delay_s)
    first = dial(with_will(name, MQTT_5, will, durable=True))
    expect_nothing(first)
    dial(
        replace(connect_packet(name, durable=True), clean_start=clean_start),
        present=not clean_start,
    )
    if clean_start or not delay_s:
        assert watcher.expect(Publish).payload == b"gone"
    watcher.publish_all(name, [b"after"], 0)
    assert watcher.expect(Publish).payload == b"after"


def test_a_disconnect_that_is_not_normal_keeps_the_will(dial: Dial, name: str) -> None:
    """[MQTT-3.14.4-3]"""
    watcher = dial(connect_packet(f"{name}-watcher"))
    watcher.subscribe(name, 1)
    for code in (0x04, 0x80, 0x98):
        client = dial(with_will(name, MQTT_5, Will(name, b"%d" % code, 1, False)))
        client.send(Disconnect(code))
        assert watcher.expect(Publish).payload == b"%d" % code


def test_disconnect_may_extend_a_session(dial: Dial, name: str, broker: BrokerProcess) -> None:
    """Section 3.14.2.2.2: its Session Expiry Interval replaces that of CONNECT."""

    def kept_until_us() -> int:
        sql = "SELECT expires_at_us FROM sessions WHERE client_id = ?"
        [(expires_at_us,)] = broker.query(sql, name)
        return expires_at_us or 0

    started_us = time.time_ns() // 1000
    dial(replace(connect_packet(name, durable=True), session_expiry_s=1)).send(
        Disconnect(session_expiry_s=7200)
    )
    wait_until(lambda: kept_until_us() > started_us + 7199 * US)
    assert kept_until_us() <= time.time_ns() // 1000 + 7200 * US


def test_retained_messages_are_no_part_of_a_session(dial: Dial, name: str, version: int) -> None:
    """[MQTT3-3.1.2-7]"""
    client = dial(connect_packet(name, version=version))
    client.send(Publish(name, b"kept", 0, True, False, 0), Disconnect())
    assert client.closed()
    late = dial(connect_packet(name, version=version))
    late.subscribe(name, 1)
    assert late.expect(Publish).payload == b"kept"
