"""The line protocol: what lines ask for, how they are answered, what a DELIVER looks like."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from broker.lines.connection import (
    LineConfirm,
    LineConnection,
    LineError,
    LineEvent,
    LinePublish,
    LineSubscribe,
    LineUnsubscribe,
    _local,
)
from broker.message import Message, Monotonic

NOW = Monotonic(0.0)

HALF_PAST_TEN_US = 1_741_948_200_000_000  # 2025-03-14T10:30:00Z


@pytest.fixture(autouse=True)
def utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Where the broker is, unless a test moves it."""
    with local_time(monkeypatch, "UTC0"):
        yield


@contextmanager
def local_time(monkeypatch: pytest.MonkeyPatch, zone: str) -> Iterator[None]:
    with monkeypatch.context() as patch:
        patch.setenv("TZ", zone)
        time.tzset()
        _local.cache_clear()
        yield
    time.tzset()
    _local.cache_clear()


def connection(line_bytes_max: int = 1000) -> LineConnection:
    return LineConnection(
        now=NOW, line_bytes_max=line_bytes_max, topic_bytes_max=100, topic_levels_max=8
    )


def receive(data: bytes) -> list[LineEvent]:
    return connection().receive_data(data, NOW)


def delivered(topic: str, payload: bytes, publisher: str = "pub1") -> bytes:
    lines = connection()
    lines.deliver(topic, payload, publisher, HALF_PAST_TEN_US)
    return lines.data_to_send()


def test_the_three_commands() -> None:
    assert receive(b"SUBSCRIBE home/# sub1\n") == [LineSubscribe("home/#", "sub1")]
    assert receive(b"UNSUBSCRIBE home/# sub1\n") == [LineUnsubscribe("home/#", "sub1")]
    assert receive("PUBLISH weather Rainy day ähead! pub1\n".encode()) == [
        LinePublish("weather", "Rainy day ähead!".encode(), "pub1")
    ]


def test_confirm_takes_nothing() -> None:
    assert receive(b"CONFIRM\nconfirm \r\n") == [LineConfirm(), LineConfirm()]
    (error,) = receive(b"CONFIRM all\n")
    assert error == LineError("CONFIRM takes nothing: each command is answered then")


def test_the_time_of_a_delivery_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    """Summer and winter, as the program that spoke the protocol first prints it."""
    half_a_year_us = 182 * 86_400_000_000
    with local_time(monkeypatch, "CET-1CEST,M3.5.0,M10.5.0/3"):
        lines = connection()
        lines.deliver("t", b"", "p", HALF_PAST_TEN_US)
        lines.deliver("t", b"", "p", HALF_PAST_TEN_US + half_a_year_us)
        assert lines.data_to_send() == (
            b"DELIVER t  p 2025-03-14 11:30:00\nDELIVER t  p 2025-09-12 12:30:00\n"
        )


def test_two_commands_in_one_write_and_one_command_in_many() -> None:
    assert receive(b"SUBSCRIBE a s\nPUBLISH a hi p\nUNSUB") == [
        LineSubscribe("a", "s"),
        LinePublish("a", b"hi", "p"),
    ]
    lines = connection()
    events = [lines.receive_data(bytes([byte]), NOW) for byte in b"PUBLISH a hi p\n"]
    assert events == [[]] * 14 + [[LinePublish("a", b"hi", "p")]]


def test_case_of_commands_carriage_returns_and_spaces_around_do_not_matter() -> None:
    assert receive(b"  publish  a hi p \r\nSubscribe  a  s\r\n") == [
        LinePublish("a", b"hi", "p"),
        LineSubscribe("a", "s"),
    ]


@pytest.mark.parametrize(
    ("line", "payload"),
    [
        (b"PUBLISH t a  b   c p\n", b"a  b   c"),
        (b"PUBLISH t  a  p\n", b" a "),
        (b"PUBLISH t a\tb\\n p\n", b"a\tb\\n"),
        (b"PUBLISH t  p\n", b""),
        (b"PUBLISH t   p\n", b" "),
    ],
)
def test_a_message_keeps_its_spaces_and_may_be_empty(line: bytes, payload: bytes) -> None:
    assert receive(line) == [LinePublish("t", payload, "p")]


def test_empty_lines_are_ignored() -> None:
    assert receive(b"\n\r\n   \n \r\n") == []


@pytest.mark.parametrize(
    ("line", "says"),
    [
        (b"HELLO a b", "unknown command"),
        (b"GET / HTTP/1.1", "unknown command"),
        (b"PUBLISH", "PUBLISH takes"),
        (b"PUBLISH t", "PUBLISH takes"),
        (b"PUBLISH t p", "PUBLISH takes"),
        (b"PUBLISH t p ", "PUBLISH takes"),
        (b"SUBSCRIBE t", "SUBSCRIBE takes"),
        (b"SUBSCRIBE t s x", "SUBSCRIBE takes"),
        (b"unsubscribe t", "UNSUBSCRIBE takes"),
        (b"PUBLISH a/# hi p", "wildcard"),
        (b"PUBLISH $SYS/a hi p", "only the broker"),
        (b"PUBLISH " + b"t" * 101 + b" hi p", "101 bytes"),
        (b"PUBLISH a/b/c/d/e/f/g/h/i hi p", "9 levels"),
        (b"SUBSCRIBE a# s", "Topic Filter has a #"),
        (b"UNSUBSCRIBE a/b/c/d/e/f/g/h/i s", "9 levels"),
        (b"PUBLISH t \xff p", "UTF-8"),
        (b"PUBLISH t a\0b p", "NUL"),
    ],
)
def test_a_bad_line_is_an_error_in_its_turn_and_nothing_else(line: bytes, says: str) -> None:
    before, error, after = receive(b"SUBSCRIBE a s\n" + line + b"\nPUBLISH a hi p\n")
    assert before == LineSubscribe("a", "s")
    assert isinstance(error, LineError)
    assert says in error.reason
    assert after == LinePublish("a", b"hi", "p")


def test_a_subscriber_may_be_as_long_as_a_client_identifier_and_no_longer() -> None:
    for command in (b"SUBSCRIBE t %b\n", b"UNSUBSCRIBE t %b\n", b"PUBLISH t hi %b\n"):
        lines = connection(line_bytes_max=100_000)
        assert not isinstance(lines.receive_data(command % (b"s" * 65_535), NOW)[0], LineError)
        assert isinstance(lines.receive_data(command % (b"s" * 65_536), NOW)[0], LineError)


def test_a_line_may_be_as_long_as_the_limit() -> None:
    lines = connection(line_bytes_max=16)
    assert lines.receive_data(b"PUBLISH a 1234 p\n", NOW) == [LinePublish("a", b"1234", "p")]
    error = LineError("line is too long: send at most 16 bytes")
    assert lines.receive_data(b"PUBLISH a 12345 p\n", NOW) == [error]


def test_an_overlong_line_is_refused_once_and_skipped_without_being_kept() -> None:
    lines = connection(line_bytes_max=16)
    error = LineError("line is too long: send at most 16 bytes")
    assert lines.receive_data(b"SUBSCRIBE a s\nPUBLISH a 12", NOW) == [LineSubscribe("a", "s")]
    assert lines.receive_data(b"345678", NOW) == [error]
    for _ in range(10):
        assert lines.receive_data(b"x" * 100, NOW) == []
        assert not lines._line
    assert lines.receive_data(b" p\nPUBLISH a hi p\n", NOW) == [LinePublish("a", b"hi", "p")]


def test_answers_leave_in_the_order_they_were_given() -> None:
    lines = connection()
    lines.ok()
    lines.error("because")
    lines.deliver("weather", b"Rainy day ahead!", "pub1", HALF_PAST_TEN_US + 999_999)
    lines.ok()
    assert lines.data_to_send() == (
        b"OK\nERROR because\nDELIVER weather Rainy day ahead! pub1 2025-03-14 10:30:00\nOK\n"
    )
    assert lines.data_to_send() == b""


def test_a_batch_is_delivered_line_by_line() -> None:
    lines = connection()
    lines.deliver_many(
        Message("t", b"%d" % number, 1, False, "p", HALF_PAST_TEN_US + number * 1_000_000)
        for number in (1, 2)
    )
    assert lines.data_to_send() == (
        b"DELIVER t 1 p 2025-03-14 10:30:01\nDELIVER t 2 p 2025-03-14 10:30:02\n"
    )


@pytest.mark.parametrize("payload", [b"", b" ", b" a  b ", b'{"a": "\\n"}', "naïve €".encode()])
def test_what_a_line_can_carry_is_delivered_as_it_is(payload: bytes) -> None:
    assert delivered("t", payload) == b"DELIVER t " + payload + b" pub1 2025-03-14 10:30:00\n"


@pytest.mark.parametrize(
    ("payload", "text"),
    [
        (b"a\nb", rb"a\nb"),
        (b"a\r\nb", rb"a\r\nb"),
        (b"\0", rb"\x00"),
        (b"\xff\xc3", rb"\xff\xc3"),
        (b"C:\\new\n", rb"C:\\new\n"),
        ("€\n".encode() + b"\xe2\x82", "€".encode() + rb"\n\xe2\x82"),
    ],
)
def test_what_a_line_cannot_carry_is_escaped(payload: bytes, text: bytes) -> None:
    assert delivered("t", payload) == b"DELIVER t " + text + b" pub1 2025-03-14 10:30:00\n"


def test_topic_and_publisher_stay_one_token() -> None:
    line = delivered("my house/a\\b\n", b"hi there", "\\me too")
    assert line == (rb"DELIVER my\x20house/a\\b\n hi there \\me\x20too 2025-03-14 10:30:00" + b"\n")
    assert delivered("DOMAIN\\user", b"") == b"DELIVER DOMAIN\\user  pub1 2025-03-14 10:30:00\n"


def test_a_reason_stays_one_line() -> None:
    lines = connection()
    lines.error("no\nOK")
    assert lines.data_to_send() == b"ERROR no\\nOK\n"


def test_there_is_no_keep_alive() -> None:
    lines = connection()
    assert lines.deadline() is None
    assert lines.expire(Monotonic(1e9)) == []


@pytest.mark.parametrize(
    "line",
    [
        "PUBLISH a\tb hi p",
        "PUBLISH a hi p\x7f",
        "SUBSCRIBE a\u0085/# s",
        "SUBSCRIBE a s\ufffe",
        "UNSUBSCRIBE a\x1b s",
        "UNSUBSCRIBE a \x01s",
    ],
)
def test_no_name_has_a_control_character(line: str) -> None:
    (error,) = receive(f"{line}\n".encode())
    assert isinstance(error, LineError)
    assert "control character" in error.reason
    assert receive(b"PUBLISH a tab\there p\n") == [LinePublish("a", b"tab\there", "p")]
