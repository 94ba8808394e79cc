"""A conversation: a line is a command, and an error ends none."""

from __future__ import annotations

import io
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace

import pytest
from paho.mqtt.packettypes import PacketTypes

from cli.messages import publish, subscribe
from cli.messages.interactive import deliver_line, publish_lines, subscribe_lines
from cli.net.address import Address
from cli.net.client import packet_properties
from cli.terminal.failure import ConnectionLost
from tests.support.scripted_client import ScriptedClient, acknowledged, message

PUBLISHING = publish.Options(address=Address(), client_id="me", qos=1, retain=False, json=False)
SUBSCRIBING = subscribe.Options(
    address=Address(),
    filters=(),
    client_id="me",
    durable=False,
    resume=False,
    qos=1,
    format=lambda *_: b"",
    metadata=False,
)
MONTH_S = 30 * 86_400


class Keyboard:
    """Standard input, and who types there."""

    def __init__(self) -> None:
        readable, self._writable = os.pipe()
        self.stdin = io.TextIOWrapper(io.FileIO(readable))
        self._ended = False

    def type(self, *lines: str) -> None:
        os.write(self._writable, "".join(f"{line}\n" for line in lines).encode())

    def end(self) -> None:
        os.close(self._writable)
        self._ended = True

    def close(self) -> None:
        if not self._ended:
            self.end()
        self.stdin.close()


@pytest.fixture
def keyboard(monkeypatch: pytest.MonkeyPatch) -> Iterator[Keyboard]:
    with closing(Keyboard()) as keyboard:
        monkeypatch.setattr("sys.stdin", keyboard.stdin)
        yield keyboard


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient()
    for module in ("publish", "interactive"):
        monkeypatch.setattr(f"cli.messages.{module}.Client", lambda *_: client)
    monkeypatch.setattr("cli.net.reconnect.FIRST_PAUSE_S", 0.001)
    return client


def shown(capfd: pytest.CaptureFixture[str]) -> tuple[list[str], list[str]]:
    """The lines of both outputs, without prompts; the first is the note on how to use it."""
    out, err = capfd.readouterr()
    lines = [re.sub(r"^(> )+", "", line.replace("\r", "")) for line in out.split("\n")]
    return [line for line in lines if line], err.splitlines()[1:]


def test_a_line_is_published_and_what_is_wrong_with_it_is_said(
    client: ScriptedClient, keyboard: Keyboard, capfd: pytest.CaptureFixture[str]
) -> None:
    keyboard.type("weather Rainy day", "", "weather", "a/# b", "a b")
    keyboard.end()
    client.turns.extend([[acknowledged(1)], [acknowledged(2, 0x97)]])
    publish_lines(PUBLISHING)
    assert [did for did in client.did if did[0] == "publish"] == [
        ("publish", "weather", b"Rainy day"),
        ("publish", "a", b"b"),
    ]
    out, err = shown(capfd)
    assert out == ["published"]
    assert [line.partition(";")[0] for line in err] == [
        "pubsub: a message is missing",
        "pubsub: Topic Name has a wildcard: publish to a name without + and #",
        "pubsub: the broker did not accept it",
    ]


def test_publishing_goes_on_after_a_lost_connection(
    client: ScriptedClient, keyboard: Keyboard, capfd: pytest.CaptureFixture[str]
) -> None:
    keyboard.type("a 1", "a 2")
    keyboard.end()
    client.turns.extend([[ConnectionLost("closed")], [acknowledged(2)]])
    publish_lines(PUBLISHING)
    assert [did[0] for did in client.did] == ["open", "publish", "open", "publish", "close"]
    out, err = shown(capfd)
    assert out == ["published"]
    assert err[0].startswith("pubsub: connection lost (closed): 0 acknowledged, 1 sent")


def test_subscribe_and_unsubscribe_by_line(
    client: ScriptedClient, keyboard: Keyboard, capfd: pytest.CaptureFixture[str]
) -> None:
    keyboard.type("subscribe a", "subscribe +x", "unsubscribe b", "unsubscribe a")
    keyboard.type("unsubscribe a", "unsubscribe +x", "fly", "quit")
    subscribe_lines(SUBSCRIBING)
    assert client.did == [
        ("open", True, 0, 0),
        ("subscribe", ("a",), 1, {"metadata": "true"}),
        ("unsubscribe", "b"),
        ("unsubscribe", "a"),
        ("unsubscribe", "a"),
        ("close", False),
    ]
    out, err = shown(capfd)
    assert out == ["subscribed to a", "unsubscribed from a"]
    assert err[0].startswith("pubsub: '+x': Topic Filter has a +")
    assert err[1:3] == ["pubsub: not subscribed to b", "pubsub: not subscribed to a"]
    assert err[3].startswith("pubsub: '+x': Topic Filter has a +")
    assert err[4].startswith("pubsub: unknown command; use subscribe <TOPIC>")


def test_a_durable_subscriber_goes_on_and_is_told_what_it_is_subscribed_to(
    client: ScriptedClient, keyboard: Keyboard, capfd: pytest.CaptureFixture[str]
) -> None:
    keyboard.type("quit")
    client.sessions.append(True)
    client.reports.append([("subscription", "b"), ("subscription", "a"), ("subscriptions", "2")])
    subscribe_lines(replace(SUBSCRIBING, durable=True))
    assert client.did == [("open", False, MONTH_S, 0), ("close", False)]
    assert capfd.readouterr().err.splitlines()[0] == "resuming me where it stopped: a, b"


def test_a_fresh_one_discards_the_session_and_says_how_many_messages_went(
    client: ScriptedClient, keyboard: Keyboard, capfd: pytest.CaptureFixture[str]
) -> None:
    keyboard.type("quit")
    client.sessions.append(True)
    client.reports.append([("unread", "3")])
    subscribe_lines(replace(SUBSCRIBING, durable=True, fresh=True))
    assert client.did[:3] == [
        ("open", False, 0, 1),
        ("close", False),
        ("open", True, MONTH_S, 0),
    ]
    said = capfd.readouterr().err.splitlines()[0]
    assert said == "the session of me is discarded, with 3 messages not delivered yet"


def test_what_arrives_is_shown_above_the_prompt_and_then_acknowledged(
    client: ScriptedClient, keyboard: Keyboard, capfd: pytest.CaptureFixture[str]
) -> None:
    client.turns.extend([[message("a", 1)], [keyboard.end]])
    subscribe_lines(SUBSCRIBING)
    assert client.did[1:] == [("acknowledge", 1), ("close", False)]
    (line,), _ = shown(capfd)
    assert line.startswith(">> DELIVER a x - ")


def test_after_a_lost_connection_what_was_subscribed_to_is_again(
    client: ScriptedClient, keyboard: Keyboard
) -> None:
    keyboard.type("subscribe a")
    client.turns.extend([[ConnectionLost("closed")], [keyboard.end]])
    subscribe_lines(SUBSCRIBING)
    assert [did[:2] for did in client.did] == [
        ("open", True),
        ("subscribe", ("a",)),
        ("open", True),
        ("subscribe", ("a",)),
        ("close", False),
    ]


def test_a_delivery_is_the_line_of_the_line_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    """In local time."""
    monkeypatch.setenv("TZ", "CET-1")
    time.tzset()
    delivered = message("weather", 1, payload=b"Rainy\x1b[2J day")
    delivered.properties = packet_properties(
        PacketTypes.PUBLISH, [("publisher", "pub1"), ("published-at", "2025-03-14T10:30:00Z")]
    )
    line = r">> DELIVER weather Rainy\x1b[2J day pub1 2025-03-14 11:30:00"
    assert deliver_line(delivered, 0) == line
    assert deliver_line(message("a", 1), 0) == ">> DELIVER a x - 1970-01-01 01:00:00"
    monkeypatch.undo()
    time.tzset()
