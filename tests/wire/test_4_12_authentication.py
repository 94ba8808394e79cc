"""Chapter 4.12: enhanced authentication, with a method made for the test."""

from __future__ import annotations

import pytest

from broker.errors import BadUserNameOrPassword, NotAuthorized
from broker.message import Monotonic
from broker.mqtt.connection import Closed
from tests.support.wire import Wire, script_bytes


class Sum:
    """The client is asked for '1+1', and answers '2' or is not let in."""

    user = None

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        if data == b"":
            return b"1+1", False
        if data != b"2":
            raise NotAuthorized("that is not the sum")
        return b"ok", True


CONNECT = "10 ( 0004 'MQTT' 05 02 003C (15 0003 'sum')  0001 'a' )"
CHALLENGE = "F0 ( 18 ( 15 0003 'sum' 16 0003 '1+1' ) )"
ANSWER = "F0 ( 18 ( 15 0003 'sum' 16 0001 '2' ) )"


class Password(Sum):
    """As `Sum`; but who fails is told that by a code that DISCONNECT may not carry."""

    def step(self, data: bytes) -> tuple[bytes | None, bool]:
        if data == b"3":
            raise BadUserNameOrPassword("that is not the sum")
        return super().step(data)


WELCOME = "20 ( 00 00 ( 15 0003 'sum' 16 0002 'ok' ) )"


def said(wire: Wire, script: str) -> None:
    """The broker wrote exactly this; lengths in brackets are filled in."""
    wire.broker(script_bytes(script).hex())


@pytest.fixture
def sums(wire: Wire) -> Wire:
    wire.methods({"sum": Sum})
    return wire


def authenticate(sums: Wire) -> None:
    sums.client(CONNECT)
    said(sums, CHALLENGE)
    sums.client(ANSWER)
    said(sums, WELCOME)
    sums.took()


def test_the_client_is_there_when_the_exchange_is_done(sums: Wire) -> None:
    """[MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5]"""
    sums.client(CONNECT)
    said(sums, CHALLENGE)
    sums.client(ANSWER)
    assert sums.connection.client_id == "a"
    said(sums, WELCOME)
    sums.open()


def test_who_fails_is_refused(sums: Wire) -> None:
    """[MQTT-4.12.0-4]"""
    sums.client(CONNECT)
    said(sums, CHALLENGE)
    sums.client("F0 ( 18 ( 15 0003 'sum' 16 0001 '3' ) )")
    sums.broker("20 .. 00 87 *")
    sums.closed()


def test_an_unknown_method_is_refused(wire: Wire) -> None:
    """[MQTT-4.12.0-1]"""
    wire.client(CONNECT)
    wire.broker("20 .. 00 8C *")
    wire.closed()


@pytest.mark.parametrize(
    "packet",
    ["C0 00", "30 04 0001 'a' 00", "82 07 0001 00 0001 'a' 00", "40 02 0001"],
    ids=["PINGREQ", "PUBLISH", "SUBSCRIBE", "PUBACK"],
)
def test_only_auth_may_come_before_the_exchange_is_done(sums: Wire, packet: str) -> None:
    """[MQTT-3.1.2-30] And nothing that came reaches the session."""
    sums.client(CONNECT + packet)
    sums.broker(script_bytes(CHALLENGE).hex() + " 20 .. 00 82 *")
    assert [type(event) for event in sums.took()] == [Closed]
    sums.closed()


def test_another_method_in_auth_is_a_protocol_error(sums: Wire) -> None:
    """[MQTT-4.12.0-5]"""
    sums.client(CONNECT)
    said(sums, CHALLENGE)
    sums.client("F0 ( 18 ( 15 0001 'x' 16 0001 '2' ) )")
    sums.broker("20 .. 00 82 *")
    sums.closed()


def test_auth_that_nobody_asked_for_is_a_protocol_error(sums: Wire) -> None:
    authenticate(sums)
    sums.client(ANSWER)
    sums.broker("E0 .. 82 *")
    sums.closed()


@pytest.mark.parametrize("code", ["00", "01", "80", "87"])
def test_reason_codes_that_are_not_for_a_client_s_auth(sums: Wire, code: str) -> None:
    """[MQTT-3.15.2-1] Success is the server's to say."""
    sums.client(CONNECT)
    said(sums, CHALLENGE)
    sums.client(f"F0 ( {code} ( 15 0003 'sum' 16 0001 '2' ) )")
    sums.broker("20 .. 00 82 *")
    assert [type(event) for event in sums.took()] == [Closed]
    sums.closed()


def test_auth_without_a_method_in_connect_is_a_protocol_error(wire: Wire) -> None:
    """[MQTT-4.12.0-6]"""
    wire.connect()
    wire.client(ANSWER)
    wire.broker("E0 .. 82 *")
    wire.closed()


def test_a_connected_client_authenticates_again(sums: Wire) -> None:
    """[MQTT-4.12.1-1] It goes on meanwhile."""
    authenticate(sums)
    sums.client("F0 ( 19 ( 15 0003 'sum' ) )")
    said(sums, CHALLENGE)
    sums.client("C0 00")
    sums.broker("D0 00")
    sums.client(ANSWER)
    said(sums, "F0 ( 00 ( 15 0003 'sum' 16 0002 'ok' ) )")
    sums.open()


def test_who_fails_to_authenticate_again_is_disconnected(sums: Wire) -> None:
    """[MQTT-4.12.1-2]"""
    authenticate(sums)
    sums.client("F0 ( 19 ( 15 0003 'sum' 16 0001 '3' ) )")
    sums.broker("E0 .. 87 *")
    sums.closed()


def test_a_client_that_does_not_answer_has_its_time(sums: Wire) -> None:
    sums.client(CONNECT)
    said(sums, CHALLENGE)
    assert sums.connection.deadline() == 10.0
    sums.connection.expire(Monotonic(10.0))
    sums.broker("20 .. 00 87 *")


def test_what_comes_too_early_is_the_mistake_whatever_follows(sums: Wire) -> None:
    """[MQTT-3.1.2-30]"""
    sums.client(f"{CONNECT}  30 04 0001 't' 00  30 00")
    assert sums.took() == [Closed(0x82, "only AUTH may follow until the client is authenticated")]


def test_a_code_that_disconnect_may_not_carry_is_not_authorized_there(wire: Wire) -> None:
    """[MQTT-3.14.2-1] Bad User Name or Password is of CONNACK alone."""
    wire.methods({"sum": Password})
    authenticate(wire)
    wire.client("F0 ( 19 ( 15 0003 'sum' ) )")
    wire.client("F0 ( 18 ( 15 0003 'sum' 16 0001 '3' ) )")
    said(wire, f"{CHALLENGE} E0 ( 87 ( 1F 0013 'that is not the sum' ) )")
    wire.closed()
