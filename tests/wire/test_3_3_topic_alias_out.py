"""Topic Aliases towards a client that takes them: less to send, never another topic."""

from __future__ import annotations

import pytest

from broker.message import Grant, Message
from broker.mqtt.connection import Connection
from tests.support.wire import Wire, script_bytes


@pytest.fixture
def taking(wire: Wire) -> Wire:
    """A client with Topic Alias Maximum 2."""
    wire.client("10 ( 0004 'MQTT' 05 02 003C ( 22 0002 )  0001 'a' )")
    wire.broker("20 03 00 00 00")
    return wire


def deliver(connection: Connection, *topics: str, size: int = 1) -> list[int]:
    outgoing = [(Message(t, b"x" * size, 1, False, "p", 0), Grant(1)) for t in topics]
    return connection.send_publishes(outgoing, range(1, len(topics) + 1), now_us=0)


def said(wire: Wire, script: str) -> None:
    wire.broker(script_bytes(script).hex())


def test_the_alias_is_given_with_the_topic_and_used_without(taking: Wire) -> None:
    """[MQTT-3.3.2-8, MQTT-3.3.2-12]"""
    assert deliver(taking.connection, "t", "u", "t") == []
    said(
        taking,
        "32 ( 0001 't' 0001 ( 23 0001 ) 'x' )"
        "32 ( 0001 'u' 0002 ( 23 0002 ) 'x' )"
        "32 ( 0000     0003 ( 23 0001 ) 'x' )",
    )


def test_no_more_aliases_than_the_client_takes(taking: Wire) -> None:
    """[MQTT-3.1.2-26, MQTT-3.3.2-9]"""
    deliver(taking.connection, "t", "u", "v")
    taking.connection.data_to_send()
    deliver(taking.connection, "v", "u")
    said(taking, "32 ( 0001 'v' 0001 () 'x' )  32 ( 0000 0002 ( 23 0002 ) 'x' )")


def test_none_for_who_takes_none(wire: Wire) -> None:
    """[MQTT-3.1.2-27]"""
    wire.connect()
    deliver(wire.connection, "t", "t")
    said(wire, "32 ( 0001 't' 0001 00 'x' )  32 ( 0001 't' 0002 00 'x' )")


def test_another_connection_begins_anew(taking: Wire) -> None:
    """[MQTT-3.3.2-7]"""
    deliver(taking.connection, "t")
    taking.limits()
    taking.client("10 ( 0004 'MQTT' 05 00 003C ( 22 0002 )  0001 'a' )")
    taking.broker("20 03 00 00 00")
    deliver(taking.connection, "t")
    said(taking, "32 ( 0001 't' 0001 ( 23 0001 ) 'x' )")


def test_a_message_that_is_left_out_gives_no_alias(wire: Wire) -> None:
    """The client never heard what it stands for. [MQTT-3.1.2-24]"""
    wire.client("10 ( 0004 'MQTT' 05 02 003C ( 22 0002  27 00000014 )  0001 'a' )")
    wire.broker("20 03 00 00 00")
    assert deliver(wire.connection, "t", size=20) == [0]
    assert deliver(wire.connection, "t") == []
    said(wire, "32 ( 0001 't' 0001 ( 23 0001 ) 'x' )")
