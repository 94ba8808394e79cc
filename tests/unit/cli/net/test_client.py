"""Client against a broker played by hand, in bytes: above all, when it acknowledges."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest
from paho.mqtt import client as mqtt

from cli.net.address import Address
from cli.net.client import Client
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from tests.support.requirements import allowed, installed

CONNACK = bytes.fromhex("20 03 00 00 00")
PUBLISH_QOS_1 = bytes.fromhex("32 07 0001 61 0005 00 31")
PUBLISH_QOS_2 = bytes.fromhex("34 07 0001 61 0006 00 32")
PUBREL = bytes.fromhex("62 02 0006")


class HandPlayedBroker:
    """The broker's end of one connection."""

    def __init__(self, connack: bytes = CONNACK) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.client = Client(Address(port=self._listener.getsockname()[1]), "sub1")
        self._thread = threading.Thread(target=self._accept, args=[connack])
        self._thread.start()

    def _accept(self, connack: bytes) -> None:
        self.connection, _ = self._listener.accept()
        self.connection.settimeout(5)
        self.connection.recv(1000)
        self.connection.sendall(connack)

    def open(self) -> bool:
        try:
            return self.client.open(clean_start=False)
        finally:
            self._thread.join()

    def receives(self, data: bytes) -> None:
        self.connection.sendall(data)
        self.client.turn(5)

    def has_sent(self) -> bytes:
        self.client.turn(0)
        self.connection.setblocking(False)
        try:
            return self.connection.recv(1000)
        except BlockingIOError:
            return b""
        finally:
            self.connection.settimeout(5)

    def close(self) -> None:
        self.connection.close()
        self.client.close()
        self._listener.close()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A peer that does not close its end is not waited for."""
    monkeypatch.setattr("cli.net.burst.CLOSE_TIMEOUT_S", 0.05)


@pytest.fixture
def peer() -> Iterator[HandPlayedBroker]:
    with closing(HandPlayedBroker()) as peer:
        assert not peer.open()
        yield peer


def test_paho_is_a_version_that_was_tried() -> None:
    """2.2.0. With 2.1.0 the reason of a DISCONNECT without properties is lost, so a client whose
    session was taken over would connect again."""
    assert allowed("paho-mqtt") == ">=2.2,<2.3"
    assert installed("paho-mqtt") == (2, 2)


def test_the_protected_methods_of_paho_that_it_changes_are_there() -> None:
    for name in (
        "_create_socket",
        "_do_on_publish",
        "_handle_publish",
        "_handle_pubackcomp",
        "_send_puback",
        "_send_pubrec",
    ):
        assert name in vars(mqtt.Client), f"this paho has no {name}"


def test_qos_1_is_acknowledged_when_told_to(peer: HandPlayedBroker) -> None:
    peer.receives(PUBLISH_QOS_1)
    assert peer.has_sent() == b""
    peer.client.acknowledge([peer.client.arrived.popleft()])
    assert peer.has_sent() == bytes.fromhex("40 02 0005")


def test_qos_2_is_not_even_received_until_told_to(peer: HandPlayedBroker) -> None:
    """[MQTT-4.3.3-8]: after PUBREC the broker forgets the message."""
    peer.receives(PUBLISH_QOS_2)
    assert peer.has_sent() == b""
    (message,) = peer.client.arrived
    assert message.payload == b"2"
    peer.client.arrived.clear()
    peer.client.acknowledge([message])
    assert peer.has_sent() == bytes.fromhex("50 02 0006")
    peer.receives(PUBREL)
    assert peer.has_sent() == bytes.fromhex("70 02 0006")
    assert not peer.client.arrived


def test_qos_2_sent_again_before_its_release_is_not_delivered_again(peer: HandPlayedBroker) -> None:
    """[MQTT-4.3.3-10]"""
    peer.receives(PUBLISH_QOS_2)
    peer.client.acknowledge([peer.client.arrived.popleft()])
    assert peer.has_sent() == bytes.fromhex("50 02 0006")
    peer.receives(PUBLISH_QOS_2)
    assert not peer.client.arrived
    assert peer.has_sent() == bytes.fromhex("50 02 0006")
    peer.receives(PUBREL + PUBLISH_QOS_2)
    assert len(peer.client.arrived) == 1, "the identifier was released and is used again"


def test_a_release_of_what_an_earlier_process_received_is_completed(peer: HandPlayedBroker) -> None:
    """[MQTT-4.3.3-11]"""
    peer.receives(PUBREL)
    assert peer.has_sent() == bytes.fromhex("70 02 0006")


def test_messages_arrive_in_order_whatever_their_qos_and_packets_may_be_cut(
    peer: HandPlayedBroker,
) -> None:
    stream = PUBLISH_QOS_1 + PUBLISH_QOS_2 + bytes.fromhex("30 05 0001 61 00 30")
    for byte in stream:
        peer.receives(bytes([byte]))
    assert [message.payload for message in peer.client.arrived] == [b"1", b"2", b"0"]


def test_a_message_is_the_same_with_properties_and_without(peer: HandPlayedBroker) -> None:
    peer.receives(bytes.fromhex("33 07 0001 61 0005 00 31  31 04 0001 62 00"))
    peer.receives(bytes.fromhex("33 0E 0001 61 0005 07 26 0001 6B 0001 76 31"))
    plain, empty, with_properties = peer.client.arrived
    for message in (plain, with_properties):
        assert (message.topic, message.payload, message.qos) == ("a", b"1", 1)
        assert (message.mid, bool(message.retain)) == (5, True)
    assert (empty.topic, empty.payload, empty.qos, empty.mid) == ("b", b"", 0, 0)


@pytest.mark.parametrize(
    ("puback", "reason_code", "offset"),
    [
        ("40 02 0001", 0x00, None),
        ("40 03 0001 10", 0x10, None),
        ("40 03 0001 97", 0x97, None),
        ("40 0F 0001 00 0B 26 0006 6F6666736574 0000", 0x00, ""),
    ],
)
def test_what_the_broker_says_to_a_message_of_ours(
    peer: HandPlayedBroker, puback: str, reason_code: int, offset: str | None
) -> None:
    """[MQTT-3.4.2-1]"""
    assert peer.client.publish("a", b"1", qos=1).mid == 1
    peer.receives(bytes.fromhex(puback))
    (acknowledged,) = peer.client.acknowledged
    assert (acknowledged.packet_id, acknowledged.reason.value) == (1, reason_code)
    assert acknowledged.user_properties.get("offset") == offset


@pytest.mark.parametrize("pubrec", ["50 03 0001 97", "50 08 0001 97 04 1F 0001 66"])
def test_a_refused_message_of_qos_2_is_over(peer: HandPlayedBroker, pubrec: str) -> None:
    """[MQTT-4.3.3-4] No PUBREL, to which the broker could only say that it has no such message."""
    assert peer.client.publish("a", b"1", qos=2).mid == 1
    peer.has_sent()
    peer.receives(bytes.fromhex(pubrec))
    (acknowledged,) = peer.client.acknowledged
    assert (acknowledged.packet_id, acknowledged.reason.value) == (1, 0x97)
    assert str(acknowledged.reason) == "Quota exceeded"
    assert peer.has_sent() == b""


def test_acknowledgements_leave_before_the_connection_closes(peer: HandPlayedBroker) -> None:
    peer.receives(PUBLISH_QOS_1)
    peer.client.acknowledge(peer.client.arrived)
    peer.connection.sendall(PUBLISH_QOS_1)  # unread, it would reset the connection
    closing_client = threading.Thread(target=peer.client.close)
    closing_client.start()
    received = b""
    while block := peer.connection.recv(1000):
        received += block
    peer.connection.close()
    closing_client.join()
    assert received == bytes.fromhex("40 02 0005  E0 02 00 00")


def test_the_brokers_reason_for_ending_the_connection_is_known(peer: HandPlayedBroker) -> None:
    with pytest.raises(ConnectionLost, match="Session taken over") as raised:
        peer.receives(bytes.fromhex("E0 02 8E 00"))
    assert raised.value.reason_code == 0x8E


def test_a_refused_connection_says_why() -> None:
    with closing(HandPlayedBroker(bytes.fromhex("20 03 00 87 00"))) as peer:
        with pytest.raises(CommandFailed, match="Not authorized") as raised:
            peer.open()
        assert raised.value.code is Exit.NOT_AUTHORIZED


def test_a_refusal_has_the_reason_that_the_broker_gives() -> None:
    """[MQTT-3.2.2-19]"""
    full = b"disk full"
    connack = bytes((0x20, 6 + len(full), 0, 0x97, 3 + len(full), 0x1F, 0, len(full))) + full
    with (
        closing(HandPlayedBroker(connack)) as peer,
        pytest.raises(CommandFailed, match="the connection: Quota exceeded: disk full"),
    ):
        peer.open()


def test_a_person_is_told_what_a_silent_broker_is_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hints: list[str] = []
    monkeypatch.setattr("cli.terminal.output.hint", hints.append)
    monkeypatch.setattr("cli.terminal.output.SILENT_S", 0.02)
    monkeypatch.setattr("cli.net.client.ANSWER_TIMEOUT_S", 0.2)
    with closing(HandPlayedBroker(b"")) as peer:
        with pytest.raises(CommandFailed) as raised:
            peer.open()
        address = peer.client.address
    assert hints == [f"waiting for an answer from {address}"]
    assert str(raised.value) == (
        f"no MQTT broker answers at {address} (no answer to CONNECT within 0 s); "
        "does that port want TLS (mqtts://), does something else listen there, or is the broker"
        " stuck?"
    )
    assert raised.value.code is Exit.UNREACHABLE


def test_nobody_there_says_how_to_start_a_broker() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(CommandFailed, match="pubsub broker start") as raised:
        Client(Address(port=port), "sub1").open(clean_start=True)
    assert raised.value.code is Exit.UNREACHABLE
