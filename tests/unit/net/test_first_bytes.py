"""What is text, and what the operator is told of what is nothing that we know."""

from __future__ import annotations

import pytest

from broker.net.first_bytes import begins_a_line, protocol_of, why_refused


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (b"PUBLISH t x p", True),
        (b"\n", True),
        (b"0\x06\x00\x01t", False),  # PUBLISH: the length of its topic has a zero.
        (b"b\x02\x00\x01", False),  # PUBREL
        (b"\x00", False),
        (b"\xc3\xa9", False),
    ],
)
def test_a_command_is_text_without_a_zero(data: bytes, line: bool) -> None:
    assert begins_a_line(data) == line


@pytest.mark.parametrize(
    ("data", "protocol"),
    [
        (b"\x10", "mqtt"),
        (b"GET /", "websocket"),
        (b"GETS", "lines"),
        (b"POST /", "http"),
        (b"POSTS", "lines"),
        (b"\x16\x03", ""),
    ],
)
def test_which_protocol_begins(data: bytes, protocol: str) -> None:
    assert protocol_of(data) == protocol


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"\x16\x03\x01", "it speaks TLS, and its listener does not"),
        (b"GET /", "it speaks HTTP, and its listener does not"),
        (b"POST / HTTP/1.1\r\n", "it speaks HTTP without GET, and its listener does not"),
        (b"\x00secret", "its first byte, 0x00, begins neither MQTT nor HTTP nor text"),
    ],
)
def test_the_operator_is_told_the_likely_cause_and_no_more_than_one_byte(
    data: bytes, why: str
) -> None:
    assert why_refused(data, protocol_of(data)) == why
