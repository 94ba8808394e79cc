"""Connections of the load: who is let in, and that whatever ends one ends the measurement."""

from __future__ import annotations

import socket
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from cli.bench.connection import Connection, ConnectionClosed, ConnectionRefused, LoadError, Loop
from cli.bench.packets import packet, text
from cli.net.address import Address, Tls
from tests.support.certificates import Network
from tests.support.scripted_broker import ScriptedBroker
from tests.support.tls_server import TlsServer

CONNACK = b"\x20\x02\0\0"


def connected(loop: Loop, broker: ScriptedBroker) -> Connection:
    broker.expect(CONNACK)
    connection = Connection(loop, broker.address, "a")
    connection.connect()
    broker.heard(len(packet(0x10, text("MQTT") + bytes(4) + text("a"))))
    return connection


def test_name_and_password_are_in_the_connect(loop: Loop, broker: ScriptedBroker) -> None:
    broker.expect(CONNACK)
    Connection(loop, replace(broker.address, username="u", password="p"), "a").connect()
    assert broker.heard(21) == packet(
        0x10, text("MQTT") + b"\x04\xc2\0\0" + text("a") + text("u") + text("p")
    )


def test_a_refused_connection_says_with_which_code(loop: Loop, broker: ScriptedBroker) -> None:
    broker.expect(b"\x20\x02\0\x05")
    with pytest.raises(ConnectionRefused) as refused:
        Connection(loop, broker.address, "a").connect()
    assert refused.value.return_code == 5


def test_a_session_that_should_be_there_and_is_not_is_no_result(
    loop: Loop, broker: ScriptedBroker
) -> None:
    broker.expect(CONNACK)
    with pytest.raises(LoadError, match="answered 20020000, not 20020100"):
        Connection(loop, broker.address, "a").connect(clean=False, resume=True)


def test_a_closed_connection_is_no_result(loop: Loop, broker: ScriptedBroker) -> None:
    connected(loop, broker)
    broker.socket.shutdown(socket.SHUT_WR)
    with pytest.raises(ConnectionClosed, match="a: the broker closed the connection"):
        loop.run(lambda: False, timeout_s=10)


def test_what_nobody_asked_for_is_no_result(loop: Loop, broker: ScriptedBroker) -> None:
    connected(loop, broker)
    broker.socket.sendall(b"\xd0\0")
    with pytest.raises(LoadError, match="d000 was not asked for"):
        loop.run(lambda: False, timeout_s=10)


def test_what_takes_too_long_says_how_far_it_came(loop: Loop, broker: ScriptedBroker) -> None:
    connected(loop, broker)
    with pytest.raises(LoadError, match="not finished after 0 s: a"):
        loop.run(lambda: False, timeout_s=0)


def test_what_the_socket_does_not_take_at_once_is_sent_later(
    loop: Loop, broker: ScriptedBroker
) -> None:
    connection = connected(loop, broker)
    data = bytes(range(256)) * (1 << 14)
    connection.write(data)
    connection.write(b"end")
    received = bytearray()

    def all_is_there() -> bool:
        received.extend(broker.socket.recv(1 << 16))
        return len(received) == len(data) + 3

    loop.run(all_is_there, timeout_s=10)
    assert received == data + b"end"


@pytest.mark.long
def test_a_connection_by_tls_is_written_and_read_as_any_other(loop: Loop, tmp_path: Path) -> None:
    """Also where more waits than the network takes at once, or than a record has."""
    network = Network(tmp_path)
    answer = CONNACK + b"at once"
    data = bytes(range(251)) * (1 << 15)
    with closing(TlsServer(network.server, answer=answer)) as server:
        address = Address(port=server.port, tls=Tls(cafile=network.ca))
        connection = Collector(loop, address, "me")
        connection.connect()
        assert connection.taken == b"at once"
        connection.taken = b""
        (other,) = server.connections
        connection.write(data)
        received = bytearray()

        def echoed() -> bool:
            if len(received) < len(data):
                other.settimeout(0.001)
                with suppress(TimeoutError):
                    received.extend(other.recv(1 << 16))
            elif not connection.taken:
                other.settimeout(5)
                other.sendall(data[: 1 << 16])
            return len(connection.taken) == 1 << 16

        loop.run(echoed, timeout_s=20)
        assert received == data
        assert connection.taken == data[: 1 << 16]


class Collector(Connection):
    def __init__(self, loop: Loop, address: Address, client_id: str) -> None:
        super().__init__(loop, address, client_id)
        self.taken = b""

    def received(self, buffer: bytearray, end: int) -> int:
        self.taken += buffer[:end]
        return end
