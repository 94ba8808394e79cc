"""What the operator of a real broker finds in the file that its standard error goes to."""

from __future__ import annotations

import re
import socket
from dataclasses import replace

import pytest

from broker.mqtt.packets import Connack, Publish
from broker.store.sqlite.files.checkpoint import COPIES_BESIDE
from tests.support.broker_process import BrokerProcess
from tests.support.raw_client import RawClient, connect_packet

TIME = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z "


def told(broker: BrokerProcess) -> str:
    """The lines, without their times and ports, once it has stopped."""
    assert broker.stop() == 0
    lines = broker.stderr.read_text().splitlines()
    assert all(re.match(TIME, line) for line in lines)
    text = "\n".join(line.partition(" ")[2] for line in lines)
    return re.sub(r":\d{4,5}\b", ":PORT", text)


def test_each_event_is_a_plain_line_with_its_time_and_client(own_broker: BrokerProcess) -> None:
    with RawClient(own_broker.port) as one, RawClient(own_broker.port) as other:
        one.connect(replace(connect_packet("dev1"), username="u", password=b"SECRET"))
        other.connect(connect_packet("dev1"))
        one.receive()
        other.send(Publish("t", b"SECRET", 1, False, False, 1))
        other.receive()
    with socket.create_connection(("127.0.0.1", own_broker.port), 5) as junk:
        junk.sendall(b"\x16\x03\x01")
        assert junk.recv(1) == b""
    text = told(own_broker)
    client = "client 'dev1' at 127.0.0.1:PORT: "
    advice = [
        "other programs may read pubsub.db, each time briefly: publishers wait when they end, "
        "about 0.1-0.2 s for each 100 MiB written meanwhile",
    ]
    assert text.splitlines() == [
        f"listening on 127.0.0.1:PORT, data in {own_broker.data_dir}/ (pubsub.db); Ctrl-C stops it",
        *([] if COPIES_BESIDE else advice),
        f"{client}connected (MQTT 5, new session, keep alive 60 s)",
        f"{client}disconnected: taken over by another connection with its client identifier",
        f"{client}connected (MQTT 5, new session, keep alive 60 s)",
        f"{client}disconnected: the connection was lost",
        "connection from 127.0.0.1:PORT closed: it speaks TLS, and its listener does not",
        "stopping: 0 connections are closed",
        "stopped",
    ]


@pytest.mark.parametrize("clients", [2, 3])
def test_clients_that_fight_over_an_identifier_are_told(
    own_broker: BrokerProcess, clients: int
) -> None:
    for _ in range(4 * clients):
        with RawClient(own_broker.port) as client, RawClient(own_broker.port) as other:
            client.connect(connect_packet("dev1"))
            assert isinstance(other.connect(connect_packet("dev1")), Connack)
    assert told(own_broker).count("WARNING client identifier 'dev1' was taken over 3 times") == 1
