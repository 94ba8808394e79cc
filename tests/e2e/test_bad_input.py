"""What must not be: bytes that no client should send, and places where no broker can start.

Each gets the right answer and disturbs nobody: a subscriber and a publisher are connected beside
it, and the fixture `broker` looks for tracebacks in the end.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connack,
    Disconnect,
    Packet,
    PacketType,
    Pingreq,
    Pingresp,
    Publish,
    Suback,
    Subscribe,
    SubscriptionRequest,
    Unsubscribe,
    Will,
)
from tests.support.broker_process import ROOT, BrokerProcess, listens, wait_until
from tests.support.bystanders import Bystanders
from tests.support.raw_client import RawClient, connect_packet

MIB = 1024 * 1024
USAGE, DAMAGED = 2, 74
MALFORMED_PACKET, PROTOCOL_ERROR, UNSUPPORTED_PROTOCOL_VERSION = 0x81, 0x82, 0x84
BAD_AUTHENTICATION_METHOD, TOPIC_FILTER_INVALID, TOPIC_NAME_INVALID = 0x8C, 0x8F, 0x90
TOPIC_ALIAS_INVALID, PACKET_TOO_LARGE = 0x94, 0x95
SHARED_SUBSCRIPTIONS_NOT_SUPPORTED = 0x9E


@pytest.fixture
def bystanders(broker: BrokerProcess, name: str) -> Iterator[Bystanders]:
    bystanders = Bystanders(broker.port, name)
    bystanders.exchange()
    yield bystanders
    bystanders.exchange()
    bystanders.close()


@pytest.fixture(params=[MQTT_3_1_1, MQTT_5])
def client(request: pytest.FixtureRequest, broker: BrokerProcess, name: str) -> Iterator[RawClient]:
    with RawClient(broker.port, request.param) as client:
        connack = client.connect(connect_packet(name, version=request.param))
        assert connack.reason_code == 0
        yield client


def expect_refusal(client: RawClient, reason_code: int) -> None:
    """DISCONNECT with the Reason Code in MQTT 5; 3.1.1 has no word for it. Then the end."""
    if client.version == MQTT_5:
        disconnect = client.expect(Disconnect)
        assert disconnect.reason_code == reason_code, disconnect
        assert disconnect.reason_string
    assert client.closed()


def packet(header: str, body: bytes) -> bytes:
    return bytes.fromhex(header) + bytes((len(body),)) + body


def publish(client: RawClient, topic: bytes, properties: bytes = b"\0") -> bytes:
    """A PUBLISH with QoS 1 of which `encode` would make nothing."""
    body = len(topic).to_bytes(2, "big") + topic + b"\0\x07"
    return packet("32", body + (properties if client.version == MQTT_5 else b"") + b"payload")


# After CONNECT


@pytest.mark.parametrize(
    ("bad", "reason_code"),
    [
        pytest.param("00 00", MALFORMED_PACKET, id="packet type 0"),
        pytest.param("36 05 0001 61 0007", MALFORMED_PACKET, id="QoS 3"),
        pytest.param("32 05 0001 61 0000", MALFORMED_PACKET, id="Packet Identifier 0"),
        pytest.param("30 02 0005", MALFORMED_PACKET, id="too short"),
        pytest.param("30 FF FF FF FF 01", MALFORMED_PACKET, id="endless Remaining Length"),
        pytest.param("60 02 0001", MALFORMED_PACKET, id="PUBREL without its flags"),
        pytest.param("80 06 0001 00 0001 61", MALFORMED_PACKET, id="SUBSCRIBE without its flags"),
        pytest.param("20 02 0000", MALFORMED_PACKET, id="CONNACK from a client"),
        pytest.param("C0 01 00", MALFORMED_PACKET, id="PINGREQ with a body"),
        pytest.param("30 81 80 80 02", PACKET_TOO_LARGE, id="4 MiB announced"),
    ],
)
def test_an_unparsable_packet(
    client: RawClient, bystanders: Bystanders, bad: str, reason_code: int
) -> None:
    client.send(bytes.fromhex(bad))
    expect_refusal(client, reason_code)


@pytest.mark.parametrize(
    ("topic", "reason_code"),
    [
        (b"a/#", TOPIC_NAME_INVALID),
        (b"a/+/b", TOPIC_NAME_INVALID),
        (b"", PROTOCOL_ERROR),
        (b"a\0b", MALFORMED_PACKET),
        (b"a\xff", MALFORMED_PACKET),
        (b"\xed\xa0\x80", MALFORMED_PACKET),
    ],
)
def test_a_topic_that_cannot_be_published_to(
    client: RawClient, bystanders: Bystanders, topic: bytes, reason_code: int
) -> None:
    """[MQTT-3.3.2-2, MQTT-4.7.3-1, 2, MQTT-1.5.4-1, 2]"""
    client.send(publish(client, topic))
    expect_refusal(client, reason_code)


def test_a_topic_over_the_limits(client: RawClient, bystanders: Bystanders) -> None:
    client.send(Publish("/".join("a" * 201), b"", 1, False, False, 1))
    expect_refusal(client, TOPIC_NAME_INVALID)


@pytest.mark.parametrize("filter", ["a/#/b", "#a", "a+", "a/b#", "+a/b", ""])
def test_a_bad_filter(client: RawClient, bystanders: Bystanders, filter: str) -> None:
    """[MQTT-4.7.1-1, 4.7.1-2, 4.7.3-1]"""
    client.send(Subscribe(1, [SubscriptionRequest("good", 1), SubscriptionRequest(filter, 1)]))
    expect_refusal(client, TOPIC_FILTER_INVALID)


def test_unsubscribe_from_a_bad_filter(client: RawClient, bystanders: Bystanders) -> None:
    client.send(Unsubscribe(1, ["a/#/b"]))
    expect_refusal(client, TOPIC_FILTER_INVALID)


def test_subscribe_and_unsubscribe_without_a_filter(
    broker: BrokerProcess, bystanders: Bystanders, name: str
) -> None:
    """[MQTT-3.8.3-2, MQTT-3.10.3-2]"""
    for bad in (Subscribe(1, []), Unsubscribe(1, [])):
        for version in (MQTT_3_1_1, MQTT_5):
            with RawClient(broker.port, version) as client:
                client.connect(connect_packet(name, version=version))
                client.send(bad)
                expect_refusal(client, PROTOCOL_ERROR)


def test_what_is_not_supported_is_refused_and_the_rest_granted(
    client: RawClient, bystanders: Bystanders, name: str
) -> None:
    shared = f"$replay/earliest/$share/g/{name}"
    requests = [SubscriptionRequest(f, 1) for f in (f"{name}/a", shared, f"{name}/b")]
    client.send(Subscribe(1, requests), Pingreq())
    refused = SHARED_SUBSCRIPTIONS_NOT_SUPPORTED if client.version == MQTT_5 else 0x80
    packets = [client.receive(), client.receive()]
    [suback] = [packet for packet in packets if isinstance(packet, Suback)]
    assert suback.reason_codes == [1, refused, 1]
    assert any(isinstance(packet, Pingresp) for packet in packets)


def test_a_replay_that_cannot_be_understood_is_refused_alone(
    client: RawClient, bystanders: Bystanders, name: str
) -> None:
    requests = [SubscriptionRequest(f"$replay/yesterday/{name}", 1), SubscriptionRequest(name, 1)]
    client.send(Subscribe(1, requests))
    first, second = client.expect(Suback).reason_codes
    assert first >= 0x80
    assert second == 1


def test_a_second_connect(client: RawClient, bystanders: Bystanders, name: str) -> None:
    """[MQTT-3.1.0-2]"""
    client.send(connect_packet(name, version=client.version))
    expect_refusal(client, PROTOCOL_ERROR)


@pytest.mark.parametrize(
    ("properties", "reason_code"),
    [
        pytest.param("03 23 0000", TOPIC_ALIAS_INVALID, id="Topic Alias 0"),
        pytest.param("03 23 FFFF", TOPIC_ALIAS_INVALID, id="Topic Alias over our maximum"),
        pytest.param("02 0B 01", PROTOCOL_ERROR, id="Subscription Identifier"),
        pytest.param("04 01 00 01 00", PROTOCOL_ERROR, id="a property twice"),
        pytest.param("05 11 00000001", PROTOCOL_ERROR, id="a property of another packet"),
        pytest.param("02 7F 00", MALFORMED_PACKET, id="an unknown property"),
        pytest.param("06 08 0003 612F23", PROTOCOL_ERROR, id="a wildcard in the Response Topic"),
    ],
)
def test_bad_properties(
    broker: BrokerProcess, bystanders: Bystanders, name: str, properties: str, reason_code: int
) -> None:
    with RawClient(broker.port) as client:
        client.connect(connect_packet(name))
        client.send(publish(client, b"topic", bytes.fromhex(properties)))
        expect_refusal(client, reason_code)


def test_a_packet_over_the_limit(client: RawClient, bystanders: Bystanders, name: str) -> None:
    """[MQTT-3.2.2-15] It is refused when its length is known, whatever then still comes."""
    with contextlib.suppress(OSError):  # The broker may be gone before all is written.
        client.send(Publish(name, bytes(2 * MIB), 1, False, False, 1))
    expect_refusal(client, PACKET_TOO_LARGE)


def test_what_came_before_the_bad_packet_counts(client: RawClient, bystanders: Bystanders) -> None:
    """Also if it is in the same write."""
    good = Publish(bystanders.topic, b"good", 1, False, False, 1)
    client.send(good, publish(client, b"a/#"), replace(good, payload=b"too late", packet_id=2))
    assert bystanders.received() == b"good"
    while client.receive() is not None:
        pass


# CONNECT and before


@pytest.mark.parametrize(
    ("first", "answer"),
    [
        pytest.param(b"GET / HTTP/1.1\r\n\r\n", b"HTTP/1.1 426 Upgrade Required", id="HTTP"),
        pytest.param(b"GETTING\n", b"ERROR unknown command", id="nearly HTTP"),
        pytest.param(b"PUBLISH \0\n", b"ERROR line has a NUL", id="a line with a zero"),
    ],
)
def test_another_protocol(
    broker: BrokerProcess, bystanders: Bystanders, first: bytes, answer: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), 5) as other:
        other.sendall(first)
        assert other.recv(1000).startswith(answer)


@pytest.mark.parametrize(
    "first",
    [
        pytest.param(b"\x16\x03\x01\x02\x00\x01", id="TLS"),
        pytest.param(b"POST / HTTP/1.1\r\n", id="HTTP with a body"),
        pytest.param(b"\0", id="a zero"),
        pytest.param(b"\xc0", id="half a PINGREQ"),
        pytest.param(b"\x82", id="part of a SUBSCRIBE"),
    ],
)
def test_what_no_protocol_begins_with_is_closed_at_once(
    broker: BrokerProcess, bystanders: Bystanders, first: bytes
) -> None:
    with socket.create_connection(("127.0.0.1", broker.port), 5) as other:
        other.sendall(first)
        assert other.recv(1) == b""


@pytest.mark.parametrize(
    ("bad", "version", "reason_code"),
    [
        pytest.param("10 FF FF FF FF 01", 0, None, id="endless Remaining Length"),
        pytest.param("10 09 0003 485454 05 02 003C", 0, None, id="another protocol name"),
        pytest.param("10 0E 0006 4D5149736470 03 02 003C 0000", 4, 1, id="MQTT 3.1"),
        pytest.param("10 0C 0004 4D515454 03 02 003C 0000", 4, 1, id="level 3"),
        pytest.param(
            "10 0D 0004 4D515454 06 02 003C 00 0000",
            5,
            UNSUPPORTED_PROTOCOL_VERSION,
            id="level 6",
        ),
        pytest.param(
            "10 0E 0004 4D515454 05 03 003C 00 0001 61", 5, MALFORMED_PACKET, id="reserved flag"
        ),
        pytest.param(
            "10 0E 0004 4D515454 05 02 003C 00 0001 00", 5, MALFORMED_PACKET, id="NUL in identifier"
        ),
        pytest.param(
            "10 0C 0004 4D515454 04 00 003C 0000", 4, 2, id="no identifier, no clean session"
        ),
        pytest.param(
            "10 0E 0004 4D515454 05 02 003C 00 0005 61", 5, MALFORMED_PACKET, id="too short"
        ),
        pytest.param(
            "10 12 0004 4D515454 05 02 003C 04 15 0001 78 0001 61",
            5,
            BAD_AUTHENTICATION_METHOD,
            id="authentication method",
        ),
    ],
)
def test_a_bad_connect(
    broker: BrokerProcess, bystanders: Bystanders, bad: str, version: int, reason_code: int | None
) -> None:
    """CONNACK with the code where the version is known and has one. [MQTT-3.1.4-1, 3.1.2-1, 2]"""
    with RawClient(broker.port, version) as client:
        client.send(bytes.fromhex(bad))
        if reason_code is not None:
            connack = client.expect(Connack)
            assert (connack.session_present, connack.reason_code) == (False, reason_code)
        assert client.closed()


def test_a_will_on_a_wildcard(broker: BrokerProcess, bystanders: Bystanders, name: str) -> None:
    connect = replace(connect_packet(name), will=Will("a/#", b"", 0, False))
    with RawClient(broker.port) as client:
        assert client.connect(connect).reason_code == TOPIC_NAME_INVALID
        assert client.closed()


@pytest.mark.parametrize("version", [MQTT_3_1_1, MQTT_5])
def test_any_packet_instead_of_connect_is_answered_by_nothing(
    broker: BrokerProcess, bystanders: Bystanders, version: int
) -> None:
    """[MQTT-3.1.0-1] And at once, though all but CONNECT could be the line protocol."""
    others: list[Packet] = [
        Publish("a", b"", 0, False, False, 0),
        *(Ack(PacketType(kind), [1]) for kind in range(PacketType.PUBACK, PacketType.SUBSCRIBE)),
        Subscribe(1, [SubscriptionRequest("a", 0)]),
        Unsubscribe(1, ["a"]),
        Pingreq(),
        Disconnect(),
    ]
    for other in others:
        with RawClient(broker.port, version) as client:
            client.send(encode(other, version))
            assert client.closed()


def test_connect_must_come_in_time(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, {"connect_timeout_s": 0.2}) as broker:
        with RawClient(broker.port) as slow, RawClient(broker.port) as healthy:
            slow.send(bytes.fromhex("10 0E 0004"))
            healthy.connect(connect_packet("healthy"))
            assert slow.closed()
            healthy.send(Pingreq())
            healthy.expect(Pingresp)
        assert broker.complaints() == []


# Where no broker can start


def start_fails(code: int, data_dir: Path, *arguments: str) -> str:
    """What `pubsub broker start` says: one line, no traceback."""
    command = [sys.executable, "-m", "cli.main", "broker", "start", "--port", "0"]
    done = subprocess.run(
        [*command, "--data-dir", str(data_dir), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    [said] = done.stderr.splitlines()
    return said


def test_a_busy_port(broker: BrokerProcess, bystanders: Bystanders, tmp_path: Path) -> None:
    said = start_fails(USAGE, tmp_path, "--port", str(broker.port))
    assert str(broker.port) in said
    assert "in use" in said


def test_a_data_directory_in_use(broker: BrokerProcess, bystanders: Bystanders) -> None:
    said = start_fails(USAGE, broker.data_dir)
    assert str(broker.data_dir) in said
    assert "in use by another broker" in said


def test_a_data_directory_that_cannot_be(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be written" in start_fails(USAGE, tmp_path / "file" / "data")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_data_directory(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    assert "cannot be written" in start_fails(USAGE, tmp_path / "data")


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    database = tmp_path / "pubsub.db"
    database.write_bytes(b"my letters, not a database\n" * 1000)
    database.chmod(0o600)
    before = database.read_bytes()
    assert "is not an SQLite database" in start_fails(DAMAGED, tmp_path)
    assert database.read_bytes() == before


def test_the_database_of_another_program(tmp_path: Path) -> None:
    database = tmp_path / "pubsub.db"
    with sqlite3.connect(database) as connection:
        connection.execute("CREATE TABLE letters (text TEXT)")
    connection.close()
    database.chmod(0o600)
    before = database.read_bytes()
    assert "another program" in start_fails(DAMAGED, tmp_path)
    assert database.read_bytes() == before


@pytest.fixture
def used_directory(tmp_path: Path) -> Path:
    """The data directory of a broker that was stopped, with a message in it."""
    with BrokerProcess(tmp_path) as broker:
        with RawClient(broker.port) as client:
            client.connect(connect_packet("publisher"))
            client.publish_all("topic", [b"x" * 1000] * 100)
        assert broker.stop() == 0
    return broker.data_dir


def test_the_database_of_a_newer_program(used_directory: Path) -> None:
    with sqlite3.connect(used_directory / "pubsub.db") as connection:
        connection.execute("PRAGMA user_version = 1000")
    connection.close()
    said = start_fails(DAMAGED, used_directory)
    assert "newer pubsub" in said
    assert "1000" in said


def test_a_damaged_database(used_directory: Path) -> None:
    database = used_directory / "pubsub.db"
    pages = database.read_bytes()
    database.write_bytes(pages[:4096] + b"\xaa" * (len(pages) - 4096))
    start_fails(DAMAGED, used_directory)


def test_a_failed_start_leaves_everything_as_it_was(
    used_directory: Path, broker: BrokerProcess
) -> None:
    copy = used_directory.with_name("copy")
    shutil.copytree(used_directory, copy)
    start_fails(USAGE, copy, "--port", str(broker.port))
    with sqlite3.connect(copy / "pubsub.db") as connection:
        assert connection.execute("SELECT count(*) FROM history").fetchone() == (100,)
    connection.close()
    wait_until(lambda: listens(broker.port))


def test_a_setting_that_is_none(tmp_path: Path) -> None:
    settings = tmp_path / "settings.toml"
    settings.write_text("packet_bytes = 1\n")
    assert "packet_bytes" in start_fails(USAGE, tmp_path / "data", "--config", str(settings))
    settings.write_text("= nonsense\n")
    assert str(settings) in start_fails(USAGE, tmp_path / "data", "--config", str(settings))


def test_listening_for_everybody_has_to_be_meant(tmp_path: Path) -> None:
    assert "--allow-anonymous" in start_fails(USAGE, tmp_path, "--host", "0.0.0.0")
