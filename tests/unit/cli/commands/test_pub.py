"""`pubsub pub`: from options to what is published; nothing is, where they contradict."""

from __future__ import annotations

import io
import shlex
from collections.abc import Callable
from pathlib import Path

import pytest
import typer

from cli.main import app
from cli.messages.publish import Options
from cli.net.address import Address, Will

Published = list[tuple[Options, str, bytes | None]]


@pytest.fixture(autouse=True)
def published(monkeypatch: pytest.MonkeyPatch) -> Published:
    """Options, topic and payload; None: the lines of standard input."""
    published: Published = []

    def publish(options: Options, topic: str, read_payload: Callable[[], bytes]) -> None:
        published.append((options, topic, read_payload()))

    def publish_lines(options: Options, topic: str, *, away_s_max: float | None) -> None:
        published.append((options, topic, None))

    monkeypatch.setattr("cli.messages.publish.publish", publish)
    monkeypatch.setattr("cli.messages.publish.publish_lines", publish_lines)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"in\nput")))
    return published


def pub(arguments: str) -> None:
    app(["pub", *shlex.split(arguments)], standalone_mode=False)


@pytest.mark.parametrize(
    ("arguments", "topic", "payload"),
    [
        ("a b", "a", b"b"),
        ("-t a -m b", "a", b"b"),
        ("-t a b", "a", b"b"),
        ("a -m b", "a", b"b"),
        ("a \udcff", "a", b"\xff"),
        ("a ''", "a", b""),
        ("a -n", "a", b""),
        ("a -s", "a", b"in\nput"),
        ("a -l", "a", None),
    ],
)
def test_a_topic_and_what_to_publish(
    published: Published, arguments: str, topic: str, payload: bytes | None
) -> None:
    pub(arguments)
    ((_, *what),) = published
    assert what == [topic, payload]


def test_a_file_is_published_byte_for_byte(published: Published, tmp_path: Path) -> None:
    (tmp_path / "cat").write_bytes(b"\xff\r\n\0")
    pub(f"a -f {tmp_path}/cat")
    assert published[0][2] == b"\xff\r\n\0"


def test_the_options_say_to_whom_and_how(published: Published) -> None:
    pub("a b -h h -p 1 -i me -u u -P p -k 9 -q 2 -r --json -D x=y=z -D x=")
    assert published[0][0] == Options(
        address=Address(host="h", port=1, username="u", password="p", keep_alive_s=9),
        client_id="me",
        qos=2,
        retain=True,
        json=True,
        user_properties=(("x", "y=z"), ("x", "")),
    )


def test_mosquittos_options_say_it_too(published: Published) -> None:
    pub("-L mqtt://u:p@h:1/a/b c -V mqttv5 -d --will-topic w --will-payload x --will-qos 2")
    pub("-L mqtt://h/a -m c --will-topic w --will-retain")
    (first, topic, payload), (second, *_) = published
    assert (topic, payload) == ("a/b", b"c")
    will = Will("w", b"x", 2, retain=False)
    assert first.address == Address(
        host="h", port=1, username="u", password="p", will=will, debug=True
    )
    assert second.address == Address(host="h", will=Will("w", b"", 0, retain=True))


def test_without_options_it_is_qos_1_to_the_broker_on_this_machine(published: Published) -> None:
    pub("a b")
    pub("a b")
    (first, *_), (second, *_) = published
    assert (first.address, first.qos, first.retain) == (Address(), 1, False)
    assert first.client_id != second.client_id


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "a topic is missing"),
        ("-l", "a topic is missing"),
        ("a", "a message is missing"),
        ("a b -n", "one of MESSAGE, -l, -s, -f and -n"),
        ("a -l -s", "one of MESSAGE, -l, -s, -f and -n"),
        ("a b -t c", "one TOPIC"),
        ("-m b", "one TOPIC"),
        ("a b -D x", "'x' is not NAME=VALUE"),
        ("-L mqtt://h/a -t b c", "one TOPIC"),
        ("a b -V 311", "-V 311: these commands speak MQTT 5 only"),
        ("a b -q 3", "2"),
        ("a b -W 3", "--timeout is for -l"),
    ],
)
def test_what_contradicts_is_a_usage_error(published: Published, arguments: str, says: str) -> None:
    with pytest.raises(typer.BadParameter) as refused:
        pub(arguments)
    assert says in refused.value.message
    assert published == []


def test_a_terminal_and_no_topic_is_a_conversation(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Options] = []
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("cli.messages.interactive.publish_lines", asked.append)
    pub("-i me")
    assert [options.client_id for options in asked] == ["me"]
