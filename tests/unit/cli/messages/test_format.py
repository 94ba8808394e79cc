"""-F: mosquitto_sub's fields and ours."""

from __future__ import annotations

import json
import re

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes

from broker.message import Message, Offset
from cli.log.logged import as_received
from cli.messages.format import compile_format, plain_format, record
from cli.net.client import packet_properties
from cli.terminal.failure import CommandFailed, Exit

METADATA = (
    ("offset", "42"),
    ("published-at", "2025-03-14T10:30:00.000001Z"),
    ("publisher", "pub1"),
)
NOW = 1741948200.25


def message(
    payload: bytes = b"Rainy", user_properties: tuple[tuple[str, str], ...] = ()
) -> MQTTMessage:
    message = MQTTMessage(7, b"home/weather")
    message.payload = payload
    message.qos = 1
    message.properties = packet_properties(PacketTypes.PUBLISH, user_properties)
    return message


def written(text: str, message: MQTTMessage, *, terminal: bool = False) -> bytes:
    return compile_format(text, terminal=terminal)(message, NOW)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%t %p", b"home/weather Rainy"),
        ("%q%r %m %l", b"10 7 5"),
        ("%x %X", b"5261696e79 5261696E79"),
        ("100%% \\\\ \\t\\e[0m\\n", b"100% \\ \t\x1b[0m\n"),
        ("%U", b"1741948200.250000000"),
        ("%{offset} %{publisher} %{published_at}", b"42 pub1 2025-03-14T10:30:00.000001Z"),
        ("%P", b"offset:42 published-at:2025-03-14T10:30:00.000001Z publisher:pub1"),
        ("<%C>", b"<>"),
    ],
)
def test_each_field_stands_for_its_part_of_the_message(text: str, expected: bytes) -> None:
    assert written(text, message(user_properties=METADATA)) == expected


def test_a_message_of_the_log_has_metadata_and_its_own_properties_only() -> None:
    logged = Message("a", b"x", 1, False, "pub1", 1, properties=b"\x26\x00\x01a\x00\x01b")
    logged.offset = Offset(42)
    received = as_received(logged)
    fields = "%{offset} %{publisher} %{published_at} %P"
    assert written(fields, received) == b"42 pub1 1970-01-01T00:00:00.000001Z a:b"


def test_the_time_received_is_local_with_its_zone() -> None:
    assert re.fullmatch(rb"2025-03-1\dT\d\d:\d\d:00[+-]\d{4}", written("%I", message()))
    assert written("%@Y", message()) == b"2025"


def test_json_has_the_payload_as_text_or_as_the_json_it_is() -> None:
    as_text, as_json = (
        json.loads(written(field, message(b'{"rain": true}'))) for field in ("%j", "%J")
    )
    assert as_text["payload"] == '{"rain": true}'
    assert as_json["payload"] == {"rain": True}
    assert as_json | {"tst": ""} == {
        "tst": "",
        "topic": "home/weather",
        "qos": 1,
        "retain": 0,
        "payloadlen": 14,
        "mid": 7,
        "payload": {"rain": True},
    }


@pytest.mark.parametrize("text", ["%z", "%{offsets}"])
def test_an_unknown_field_is_a_usage_error(text: str) -> None:
    with pytest.raises(CommandFailed, match=re.escape(text)) as raised:
        compile_format(text, terminal=False)
    assert raised.value.code is Exit.USAGE


def test_on_a_terminal_the_format_may_colour_and_the_payload_may_not() -> None:
    assert written("\\e[31m%p", message(b"\x1b[2J"), terminal=True) == b"\x1b[31m\\x1b[2J"


def test_plain_is_the_payload_bit_for_bit_into_a_pipe_and_harmless_on_a_terminal() -> None:
    pipe = plain_format(verbose=True, newline=True, terminal=False)
    terminal = plain_format(verbose=True, newline=True, terminal=True)
    assert pipe(message(b"\xff\x1b"), NOW) == b"home/weather \xff\x1b\n"
    assert terminal(message(b"\xff\x1b"), NOW) == b"home/weather \\xff\\x1b\n"
    assert plain_format(verbose=False, newline=False, terminal=False)(message(), NOW) == b"Rainy"


def test_a_record_has_the_metadata_that_the_broker_sent_and_no_other() -> None:
    plain = {"topic": "home/weather", "payload": "Rainy", "qos": 1, "retain": False}
    assert record(message()) == plain
    assert record(message(user_properties=METADATA)) == plain | {
        "offset": 42,
        "publisher": "pub1",
        "published_at": "2025-03-14T10:30:00.000001Z",
    }
