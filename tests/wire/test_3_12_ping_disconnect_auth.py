"""Chapter 3.12 to 3.15: PINGREQ, DISCONNECT, AUTH."""

from __future__ import annotations

import pytest

from broker.mqtt.connection import Closed
from broker.mqtt.packets import Disconnect
from tests.support.wire import Wire


@pytest.mark.parametrize("version", [4, 5])
def test_ping_is_answered(wire: Wire, version: int) -> None:
    """[MQTT-3.12.4-1]"""
    wire.connect(version)
    wire.client("C0 00 C0 00")
    wire.broker("D0 00 D0 00")
    assert wire.took() == []


def test_a_ping_that_did_not_wait_for_connack_is_answered_after_it(wire: Wire) -> None:
    """[MQTT-3.2.0-1]"""
    wire.client("10 0D  0004 'MQTT' 04 02 003C  0001 'a'   C0 00 C0 00")
    wire.broker("20 02 00 00   D0 00 D0 00")


def test_ping_has_no_body(wire: Wire) -> None:
    wire.connect()
    wire.client("C0 01 00")
    wire.broker("E0 .. 81 *")
    wire.closed()


@pytest.mark.parametrize("version", [4, 5])
def test_after_disconnect_nothing_is_read_or_sent(wire: Wire, version: int) -> None:
    """[MQTT-3.14.4-1, MQTT-3.14.4-2]"""
    wire.connect(version)
    wire.client("E0 00  C0 00  30 04 0001 't' 00")
    wire.client("C0 00")
    assert wire.took() == [Disconnect()]
    wire.closed()


def test_disconnect_with_everything(wire: Wire) -> None:
    wire.client("10 13  0004 'MQTT' 05 02 003C 05 11 00000001  0001 'a'")
    wire.broker("20 03 00 00 00")
    wire.took()
    wire.client("E0 12 04 10 11 00000005 1F 0001 'r' 26 0001 'k' 0001 'v'")
    assert wire.took() == [Disconnect(4, 5, "r", [("k", "v")])]


def test_disconnect_cannot_revive_a_session(wire: Wire) -> None:
    """Section 3.14.2.2.2: Session Expiry Interval was 0 in CONNECT."""
    wire.connect()
    wire.client("E0 07 00 05 11 00000005")
    [closed] = wire.took()
    assert isinstance(closed, Closed)
    assert closed.reason_code == 0x82
    wire.broker("E0 .. 82 *")
    wire.closed()


@pytest.mark.parametrize("code", ["8B", "8E", "01"])
def test_disconnect_reason_codes_of_a_server_are_not_for_a_client(wire: Wire, code: str) -> None:
    """[MQTT-3.14.2-1]"""
    wire.connect()
    wire.client(f"E0 01 {code}")
    wire.broker("E0 .. 82 *")
    wire.closed()


def test_auth_without_a_method_in_connect_is_a_protocol_error(wire: Wire) -> None:
    """[MQTT-4.12.0-6]"""
    wire.connect()
    wire.client("F0 02 19 00")
    wire.broker("E0 .. 82 *")
    wire.closed()


def test_auth_is_not_in_3_1_1(wire: Wire) -> None:
    wire.connect(4)
    wire.client("F0 00")
    assert wire.took() == [Closed(0x81, "MQTT 3.1.1 has no AUTH")]
    wire.closed()
