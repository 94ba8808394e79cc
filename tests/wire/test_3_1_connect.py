"""Chapter 3.1 and 3.2: CONNECT and CONNACK."""

from __future__ import annotations

import pytest

from broker.mqtt.connection import Closed
from broker.mqtt.packets import Connect, Will
from broker.mqtt.properties import Property
from tests.support.wire import Wire


def test_connect_is_accepted(wire: Wire) -> None:
    wire.client("10 0E  0004 'MQTT' 05 02 003C 00  0001 'a'")
    assert wire.took() == [Connect(5, "a", True, 60)]
    wire.broker("20 03  00 00 00")
    wire.open()


def test_connect_3_1_1_is_accepted(wire: Wire) -> None:
    wire.client("10 0D  0004 'MQTT' 04 02 003C  0001 'a'")
    assert wire.took() == [Connect(4, "a", True, 60)]
    wire.broker("20 02  00 00")
    wire.open()


def test_connect_with_everything(wire: Wire) -> None:
    wire.client(
        "10 (0004 'MQTT' 05 F6 0000"
        " (11 00000064  21 0010  27 00001000  22 0005  19 01  17 00  26 0001 'k' 0001 'v')"
        " 0001 'a'"
        " (18 0000000A  02 00000014  01 01  26 0001 'x' 0001 'y'  03 0001 't')"
        " 0002 'w/' 0003 'bye'  0001 'u' 0001 'p')"
    )
    will = Will(
        "w/",
        b"bye",
        qos=2,
        retain=True,
        properties=b"\x01\x01\x26\x00\x01x\x00\x01y\x03\x00\x01t",
        message_expiry_s=20,
        delay_s=10,
    )
    assert wire.took() == [
        Connect(
            5,
            "a",
            True,
            0,
            will,
            "u",
            b"p",
            session_expiry_s=100,
            receive_maximum=16,
            packet_bytes_max=4096,
            topic_alias_maximum=5,
            request_response_information=True,
            request_problem_information=False,
            user_properties=[("k", "v")],
        )
    ]
    assert wire.connection.receive_maximum == 16
    assert wire.connection.packet_bytes_max == 4096


def test_connack_tells_the_limits(wire: Wire) -> None:
    """[MQTT-3.2.2-15, MQTT-3.2.2-17]"""
    wire.limits(receive_max=20, packet_bytes_max=1000, topic_alias_max=3)
    wire.connack = {Property.ASSIGNED_CLIENT_IDENTIFIER: "x"}
    wire.client("10 0D  0004 'MQTT' 05 02 003C 00  0000")
    wire.broker("20 12  00 00 0F  12 0001 'x'  21 0014  27 000003E8  22 0003")
    assert wire.connection.client_id == "x"


def test_connect_twice_is_a_protocol_error(wire: Wire) -> None:
    """[MQTT-3.1.0-2]"""
    wire.client("10 0E  0004 'MQTT' 05 02 003C 00  0001 'a'")
    wire.broker("20 03  00 00 00")
    wire.client("10 0E  0004 'MQTT' 05 02 003C 00  0001 'a'")
    wire.broker("E0 .. 82 *")
    wire.closed()


@pytest.mark.parametrize(
    "packet", ["30 03 0001 't'", "C0 00", "E0 00", "20 02 0000", "'GET / HTTP/1.1'"]
)
def test_what_does_not_begin_with_connect_is_closed_without_a_word(wire: Wire, packet: str) -> None:
    """[MQTT-3.1.0-1]"""
    wire.client(packet)
    assert [type(event) for event in wire.took()] == [Closed]
    wire.closed()


@pytest.mark.parametrize(
    ("name_and_level", "answer"),
    [
        ("0004 'MQTT' 00", "20 02 00 01"),
        ("0004 'MQTT' 03", "20 02 00 01"),
        ("0004 'MQTT' 83", "20 02 00 01"),
        ("0004 'MQTT' 06", "20 .. 00 84 *"),
        ("0004 'MQTT' 86", "20 .. 00 84 *"),
        ("0006 'MQIsdp' 03", "20 02 00 01"),
        ("0006 'MQIsdp' 83", "20 02 00 01"),  # a bridge of Mosquitto's that speaks MQTT 3.1
        ("0006 'MQIsdp' 04", ""),
        ("0004 'mqtt' 04", ""),
    ],
)
def test_another_protocol_is_refused_so_that_it_understands(
    wire: Wire, name_and_level: str, answer: str
) -> None:
    """[MQTT-3.1.2-1, MQTT-3.1.2-2, MQTT3-3.1.2-2]"""
    wire.client(f"10 ({name_and_level} 02 003C 0000)")
    wire.broker(answer)
    assert [type(event) for event in wire.took()] == [Closed]
    wire.closed()


@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        ("03", "0001 'a'"),  # reserved [MQTT-3.1.2-3]
        ("0A", "0001 'a'"),  # Will QoS without a Will [MQTT-3.1.2-11]
        ("22", "0001 'a'"),  # Will Retain without a Will [MQTT-3.1.2-13]
        ("1E", "0001 'a' 0001 'w' 0000"),  # Will QoS 3 [MQTT-3.1.2-12]
        ("82", "0001 'a'"),  # no user name where there should be one [MQTT-3.1.2-17]
        ("02", "0001 'a' 0001 'u'"),  # one where there should be none [MQTT-3.1.2-16]
        ("42", "0001 'a' 0001 'p'"),  # password without user name [MQTT3-3.1.2-22]
        ("C2", "0001 'a' 0001 'u'"),  # no password where there should be one [MQTT-3.1.2-19]
        ("82", "0001 'a' 0001 'u' 0001 'p'"),  # one where there should be none [MQTT-3.1.2-18]
        ("06", "0001 'a'"),  # no Will where there should be one [MQTT-3.1.2-9]
        ("06", "0001 'a' 0001 'w'"),
        ("02", "0001 'a' 0001 'w' 0000"),
        ("02", ""),  # no client identifier [MQTT-3.1.3-3]
    ],
)
def test_flags_that_contradict_the_payload(wire: Wire, flags: str, rest: str) -> None:
    """[MQTT3-3.1.2-3, 9, 11, 13..15, 18..22, MQTT3-3.1.3-3, MQTT3-3.1.4-1]"""
    wire.client(f"10 (0004 'MQTT' 04 {flags} 003C {rest})")
    assert [type(event) for event in wire.took()] == [Closed]
    wire.closed()


@pytest.mark.parametrize(
    ("flags", "rest"),
    [
        ("03", "0001 'a'"),
        ("0A", "0001 'a'"),
        ("22", "0001 'a'"),
        ("1E", "0001 'a' 00 0001 'w' 0000"),
        ("06", "0001 'a'"),
        ("06", "0001 'a' 00 0001 'w'"),
        ("02", "0001 'a' 00 0001 'w' 0000"),
        ("82", "0001 'a'"),
        ("02", "0001 'a' 0001 'u'"),
        ("42", "0001 'a'"),
        ("82", "0001 'a' 0001 'u' 0001 'p'"),
        ("02", ""),
    ],
)
def test_flags_that_contradict_the_payload_in_5(wire: Wire, flags: str, rest: str) -> None:
    """[MQTT-3.1.2-3, 9, 11..13, 16..19, MQTT-3.1.3-1, 3, MQTT-3.1.4-1]"""
    wire.client(f"10 (0004 'MQTT' 05 {flags} 003C 00 {rest})")
    wire.broker("20 .. 00 81 *")
    wire.closed()


@pytest.mark.parametrize(
    "connect", ["0004 'MQTT' 05 03 003C 00  0001 'a'", "0004 'MQTT' 04 03 003C  0001 'a'"]
)
def test_what_follows_a_refused_connect_is_not_processed(wire: Wire, connect: str) -> None:
    """[MQTT-3.1.4-6, MQTT-3.2.0-2, MQTT3-3.1.4-5]"""
    wire.client(f"10 ({connect})  C0 00  30 04 0001 't' 00  10 ({connect})")
    assert [type(event) for event in wire.took()] == [Closed]
    wire.broker("20 .. 00 81 *" if " 05 " in connect else "")
    wire.client("C0 00")
    wire.closed()


@pytest.mark.parametrize(
    ("size", "answer"),
    [
        ("00000010", "20 0E  00 00 0B  1F 0001 'r'  26 0001 'k' 0001 'v'"),
        ("0000000F", "20 03  00 00 00"),
    ],
)
def test_connack_leaves_out_what_is_too_long_for_the_client(
    wire: Wire, size: str, answer: str
) -> None:
    """[MQTT-3.2.2-19, MQTT-3.2.2-20]"""
    wire.connack = {Property.REASON_STRING: "r", Property.USER_PROPERTY: [("k", "v")]}
    wire.client(f"10 (0004 'MQTT' 05 02 003C (27 {size})  0001 'a')")
    wire.broker(answer)
    wire.open()


def test_a_password_without_a_user_name_is_fine_in_5(wire: Wire) -> None:
    wire.client("10 11  0004 'MQTT' 05 42 003C 00  0001 'a' 0001 'p'")
    assert wire.took() == [Connect(5, "a", True, 60, password=b"p")]


def test_a_malformed_connect_5_gets_a_connack(wire: Wire) -> None:
    """[MQTT-3.1.4-1]"""
    wire.client("10 0E  0004 'MQTT' 05 03 003C 00  0001 'a'")
    wire.broker("20 .. 00 81 *")
    wire.closed()


@pytest.mark.parametrize(
    ("clean", "version", "answer"),
    [("00", "04", "20 02 00 02"), ("02", "04", "20 02 00 00"), ("00", "05", "20 03 00 00 00")],
)
def test_an_empty_client_identifier(wire: Wire, clean: str, version: str, answer: str) -> None:
    """[MQTT3-3.1.3-7, MQTT3-3.1.3-8, MQTT-3.1.3-6]"""
    properties = "00" if version == "05" else ""
    wire.client(f"10 (0004 'MQTT' {version} {clean} 003C {properties} 0000)")
    wire.broker(answer)


def test_enhanced_authentication_is_refused(wire: Wire) -> None:
    """[MQTT-4.12.0-1]"""
    wire.client("10 12  0004 'MQTT' 05 02 003C 04 15 0001 'm'  0001 'a'")
    wire.broker("20 .. 00 8C *")
    wire.closed()


def test_authentication_data_without_a_method_is_a_protocol_error(wire: Wire) -> None:
    wire.client("10 12  0004 'MQTT' 05 02 003C 04 16 0001 'm'  0001 'a'")
    wire.broker("20 .. 00 82 *")
    wire.closed()


def test_a_bridge_may_have_its_state_as_will(wire: Wire) -> None:
    wire.client(
        "10 (0004 'MQTT' 84 26 003C 0001 'a' 00('$SYS/broker/connection/a.b/state') 0001 '0')"
    )
    wire.broker("20 02 00 00")
    wire.open()


@pytest.mark.parametrize(
    ("version", "answer"), [("05", "20 .. 00 95 *"), ("85", "20 .. 00 95 *"), ("04", "")]
)
def test_a_connect_that_is_too_large_is_refused_before_it_has_come(
    wire: Wire, version: str, answer: str
) -> None:
    """3.1.1 has no return code for it."""
    wire.limits(packet_bytes_max=1000)
    wire.client(f"10 E907 0004 'MQTT' {version}")
    wire.broker(answer)
    assert [type(event) for event in wire.took()] == [Closed]
    wire.closed()


@pytest.mark.parametrize("topic", ["0000", "0001 '#'", "0003 'a/+'", "0006 '$SYS/x'"])
def test_a_will_needs_a_legal_topic(wire: Wire, topic: str) -> None:
    wire.client(f"10 (0004 'MQTT' 05 06 003C 00  0001 'a' 00 {topic} 0000)")
    wire.broker("20 .. 00 82 *" if topic == "0000" else "20 .. 00 90 *")
    wire.closed()


@pytest.mark.parametrize("property", ["21 0000", "27 00000000", "17 02", "19 02", "24 00"])
def test_connect_properties_out_of_range(wire: Wire, property: str) -> None:
    """Section 3.1.2.11: Receive Maximum 0, Maximum Packet Size 0, flags of 2, Maximum QoS."""
    wire.client(f"10 (0004 'MQTT' 05 02 003C ({property})  0001 'a')")
    wire.broker("20 .. 00 82 *")
    wire.closed()


@pytest.mark.parametrize("character", ["01", "1F", "7F", "C2 80", "EF B7 90", "EF BF BF"])
@pytest.mark.parametrize(("version", "answer"), [("04", "20 02 00 02"), ("05", "20 .. 00 85 *")])
def test_a_client_identifier_without_control_characters(
    wire: Wire, version: str, answer: str, character: str
) -> None:
    """[MQTT-3.1.3-8, MQTT3-3.1.3-9]"""
    properties = "00" if version == "05" else ""
    length = 1 + len(bytes.fromhex(character))
    wire.client(f"10 (0004 'MQTT' {version} 02 003C {properties} {length:04X} 'a' {character})")
    wire.broker(answer)
    wire.closed()


@pytest.mark.parametrize("will", ["00 0002 'w' 07 0000", "05 08 0002 'r' 07 0001 'w' 0000"])
def test_a_will_without_control_characters(wire: Wire, will: str) -> None:
    """Neither in its topic nor in its Response Topic."""
    wire.client(f"10 (0004 'MQTT' 05 06 003C 00 0001 'a' {will})")
    wire.broker("20 .. 00 90 *")
    wire.closed()


@pytest.mark.parametrize("text", ["26 0001 'k' 0001 0A", "26 0001 0A 0001 'v'", "03 0001 7F"])
def test_a_will_without_control_characters_in_its_properties(wire: Wire, text: str) -> None:
    wire.client(f"10 (0004 'MQTT' 05 06 003C 00 0001 'a' ({text}) 0001 'w' 0000)")
    wire.broker("20 .. 00 99 *")
    wire.closed()


def test_a_will_with_a_control_character_is_answered_with_silence_in_3_1_1(wire: Wire) -> None:
    wire.client("10 (0004 'MQTT' 04 06 003C 0001 'a' 0002 'w' 07 0000)")
    wire.closed()
