"""Publishing: what counts as taken, and what is said when some was not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Publish
from broker.mqtt.properties import Property, write_properties
from cli.messages.publish import (
    SESSION_EXPIRY_S,
    Options,
    Publisher,
    publish,
    publish_lines,
    read_file,
)
from cli.net.address import Address
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from tests.support.scripted_client import ScriptedClient, acknowledged


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient()
    monkeypatch.setattr("cli.messages.publish.Client", lambda *_: client)
    monkeypatch.setattr("cli.net.reconnect.FIRST_PAUSE_S", 0.001)
    return client


def options(*, qos: int = 1, json: bool = False) -> Options:
    return Options(address=Address(), client_id="me", qos=qos, retain=False, json=json)


@pytest.fixture
def stdin(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Its other end, to be written to and closed."""
    readable, writable = os.pipe()
    monkeypatch.setattr("sys.stdin", SimpleNamespace(fileno=lambda: readable))
    yield writable
    os.close(readable)


def test_a_message_is_published_when_it_is_acknowledged(client: ScriptedClient) -> None:
    client.turns.extend([[], [], [acknowledged(1)]])
    publish(options(), "a", lambda: b"b")
    assert not client.turns
    assert client.did[1:] == [("publish", "a", b"b"), ("close", False)]


def test_the_wait_for_the_acknowledgement_is_told(
    client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def waiting(sentence: str) -> Iterator[None]:
        client.did.append(("waits", sentence))
        yield
        client.did.append(("waited",))

    monkeypatch.setattr("cli.terminal.output.waiting", waiting)
    client.turns.extend([[], [acknowledged(1)]])
    publish(options(), "a", lambda: b"b")
    assert client.did[1:] == [
        ("publish", "a", b"b"),
        ("waits", "sent; waiting for the broker to have it on its disk"),
        ("waited",),
        ("close", False),
    ]


def test_an_illegal_topic_and_a_missing_file_are_told_before_anybody_is_asked(
    client: ScriptedClient, tmp_path: Path
) -> None:
    with pytest.raises(CommandFailed, match="'a/#': Topic Name has a wildcard") as failed:
        publish(options(), "a/#", lambda: b"b")
    assert failed.value.code is Exit.USAGE
    with pytest.raises(CommandFailed, match="No such file") as failed:
        publish(options(), "a", lambda: read_file(tmp_path / "none"))
    assert failed.value.code is Exit.USAGE
    assert client.did == []


@pytest.mark.parametrize(("reason_code", "code"), [(0x87, Exit.NOT_AUTHORIZED), (0x97, 1)])
def test_a_refused_message_fails(client: ScriptedClient, reason_code: int, code: int) -> None:
    client.turns.append([acknowledged(1, reason_code)])
    with pytest.raises(CommandFailed, match="the message was not accepted: ") as failed:
        publish(options(), "a", lambda: b"b")
    assert failed.value.code == code
    missing = str(failed.value).endswith(
        "; anonymous needs the right to publish a (or log in as another: -u)"
    )
    assert missing is (code == Exit.NOT_AUTHORIZED)


def test_the_brokers_reason_is_said(client: ScriptedClient) -> None:
    client.turns.append([replace(acknowledged(1, 0x90), said="only the broker publishes there")])
    said = r"Topic name invalid \(only the broker publishes there\)"
    with pytest.raises(CommandFailed, match=said):
        publish(options(), "$SYS/a", lambda: b"b")


def test_a_full_disk_is_called_that(client: ScriptedClient) -> None:
    client.turns.append([acknowledged(1, 0x97)])
    with pytest.raises(CommandFailed, match="Quota exceeded: the broker's disk is full"):
        publish(options(qos=2), "a", lambda: b"b")


def test_after_a_lost_connection_one_message_is_in_doubt(client: ScriptedClient) -> None:
    client.turns.append([ConnectionLost("closed")])
    says = r"connection lost \(closed\): 0 acknowledged, 1 sent and not acknowledged; that one may"
    with pytest.raises(CommandFailed, match=says) as failed:
        publish(options(), "a", lambda: b"b")
    assert failed.value.code is Exit.UNREACHABLE


@pytest.mark.parametrize(
    ("qos", "session_there", "says"),
    [
        (0, False, "QoS 0 that was on its way is lost"),
        (1, True, "2 messages sent again: each is stored twice if the broker had it, marked as a"),
        (2, True, "2 messages sent again: each is stored once"),
        (2, False, "2 messages sent again: each is stored twice if the broker had it, marked as a"),
    ],
)
def test_lines_go_on_after_a_lost_connection_and_what_that_means_is_said(
    client: ScriptedClient,
    stdin: int,
    capsys: pytest.CaptureFixture[str],
    qos: int,
    session_there: bool,
    says: str,
) -> None:
    os.write(stdin, b"1\n2\n3\n")
    os.close(stdin)
    client.sessions.extend([False, session_there])
    first = [] if qos == 0 else [acknowledged(1)]
    last = [] if qos == 0 else [acknowledged(2), acknowledged(3)]
    client.turns.extend([[], [*first, ConnectionLost("closed")], last])
    publish_lines(options(qos=qos), "a")
    expiry_s = SESSION_EXPIRY_S if qos else 0
    opened = [did for did in client.did if did[0] == "open"]
    assert opened == [("open", True, expiry_s, 0), ("open", not qos, expiry_s, 0)]
    assert client.did[-1] == ("close", qos > 0)
    lost, again = capsys.readouterr().err.splitlines()
    assert lost == "connection lost (closed); reconnecting"
    assert says in again


def test_nothing_is_sent_again_if_all_was_acknowledged(
    client: ScriptedClient, stdin: int, capsys: pytest.CaptureFixture[str]
) -> None:
    os.write(stdin, b"1\n")
    client.turns.extend([[], [acknowledged(1)], [ConnectionLost("closed")], []])
    client.turns.append([lambda: os.close(stdin)])
    publish_lines(options(), "a")
    assert capsys.readouterr().err.splitlines()[1:] == ["reconnected"]


def test_lines_end_when_the_broker_is_away_for_too_long(client: ScriptedClient, stdin: int) -> None:
    os.write(stdin, b"1\n2\n3\n")
    os.close(stdin)
    client.turns.extend([[], [acknowledged(1), ConnectionLost("closed")]])
    says = (
        "the broker was away for 0 s: 1 acknowledged, 2 sent and not acknowledged; those may or may"
        " not be stored"
    )
    with pytest.raises(CommandFailed, match=f"^{says}$") as failed:
        publish_lines(options(), "a", away_s_max=0)
    assert failed.value.code is Exit.TIMEOUT


def test_a_broker_that_takes_less_at_once_than_is_to_be_sent_again_is_an_error(
    client: ScriptedClient, stdin: int
) -> None:
    """[MQTT-3.3.4-7] paho would send all of them."""
    os.write(stdin, b"1\n2\n")
    os.close(stdin)

    def less() -> None:
        client.receive_max = 1

    client.turns.extend([[], [less, ConnectionLost("closed")]])
    with pytest.raises(CommandFailed, match="the broker takes 1 at once now: 0 acknowledged, 2"):
        publish_lines(options(), "a")


def test_ctrl_c_says_what_was_acknowledged(client: ScriptedClient, stdin: int) -> None:
    os.write(stdin, b"1\n2\n")
    client.turns.extend([[], [acknowledged(1)], [KeyboardInterrupt]])
    with pytest.raises(CommandFailed, match="stopped: 1 acknowledged, 1 sent and not") as failed:
        publish_lines(options(), "a")
    os.close(stdin)
    assert failed.value.code is Exit.FAILED


def test_lines_are_sent_ahead_of_their_acknowledgements_up_to_receive_maximum(
    client: ScriptedClient, stdin: int
) -> None:
    os.write(stdin, b"1\n2\n3")
    os.close(stdin)
    client.receive_max = 2

    def published() -> list[object]:
        return [did[2] for did in client.did if did[0] == "publish"]

    seen: list[int] = []
    turn = client.turn

    def counted(timeout_s: float, *_: object, **__: object) -> list[object]:
        seen.append(len(published()))
        return turn(timeout_s)

    client.turn = counted  # type: ignore[method-assign]
    client.turns.extend([[], [], [acknowledged(1)], [acknowledged(2), acknowledged(3)]])
    publish_lines(options(), "a")
    assert published() == [b"1", b"2", b"3"]
    assert seen == [0, 2, 2, 3]


def test_a_receipt_says_where_it_is_in_the_log(
    client: ScriptedClient, stdin: int, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    os.write(stdin, b"1\n22\n")
    os.close(stdin)
    client.turns.extend([[], [acknowledged(1, 0, {"offset": "7"}), acknowledged(2, 0x97)]])
    with pytest.raises(CommandFailed, match="1 of 2 messages was not accepted"):
        publish_lines(options(json=True), "a")
    lines = capsysbinary.readouterr().out.splitlines()
    assert [json.loads(line) for line in lines] == [
        {"topic": "a", "qos": 1, "bytes": 1, "offset": 7},
        {"topic": "a", "qos": 1, "bytes": 2, "error": "Quota exceeded"},
    ]


# Too large


def test_a_message_larger_than_the_broker_takes_is_not_sent(client: ScriptedClient) -> None:
    """[MQTT-3.2.2-15] To the byte: nine of them are not of the payload."""
    client.packet_bytes_max = 100
    client.turns.append([acknowledged(1)])
    publish(options(), "ab", lambda: b"x" * 91)
    client.did.clear()
    with pytest.raises(CommandFailed, match=r"packet of 101 bytes.* at most 100 ") as failed:
        publish(options(), "ab", lambda: b"x" * 92)
    assert failed.value.code is Exit.FAILED
    assert [did[0] for did in client.did] == ["open", "close"]


@pytest.mark.parametrize("qos", [0, 1, 2])
@pytest.mark.parametrize("size", [0, 120, 130, 16_380, 16_390, 2_097_150])
@pytest.mark.parametrize("properties", [(), (("a", "b"), ("c", "ü"))])
def test_the_size_is_that_of_the_packet(
    qos: int, size: int, properties: tuple[tuple[str, str], ...], client: ScriptedClient
) -> None:
    encoded_properties = write_properties({Property.USER_PROPERTY: list(properties)})
    packet = Publish("tü", b"x" * size, qos, False, False, 1, encoded_properties[1:])
    client.packet_bytes_max = 0
    publishing = replace(options(qos=qos), user_properties=properties)
    publisher = Publisher(publishing)
    publisher.send("tü", b"x" * size)
    assert publisher.largest_refused == len(encode(packet, MQTT_5))


def test_one_line_that_is_too_large_does_not_keep_the_others(
    client: ScriptedClient, stdin: int, capfd: pytest.CaptureFixture[str]
) -> None:
    client.packet_bytes_max = 40
    os.write(stdin, b"1\n%b\n3\n" % (b"x" * 30))
    os.close(stdin)
    client.turns.extend([[], [acknowledged(1)], [acknowledged(2)]])
    with pytest.raises(CommandFailed, match=r"1 of 3 .* packet of 54 bytes.* at most 40 "):
        publish_lines(options(json=True), "a")
    assert [did[2] for did in client.did if did[0] == "publish"] == [b"1", b"3"]
    errors = [json.loads(line).get("error") for line in capfd.readouterr().out.splitlines()]
    assert [error for error in errors if error] == ["a packet of 54 bytes; the broker takes 40"]


# What it asks the broker for


def asked(client: ScriptedClient, said: dict[str, str], **wanted: Any) -> None:
    number = 1 + sum(done[0] == "publish" for done in client.did)
    client.turns.append([acknowledged(number, user_properties=said)])
    publish(replace(options(), **wanted), "a", lambda: b"b")


def test_a_receipt_is_the_offset(
    client: ScriptedClient, capsys: pytest.CaptureFixture[str]
) -> None:
    asked(client, {"offset": "7"}, receipt=True)
    assert capsys.readouterr().out == "7\n"
    asked(client, {}, receipt=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert "names no offset" in err


def test_a_repeat_is_told(client: ScriptedClient, capsys: pytest.CaptureFixture[str]) -> None:
    asked(client, {"offset": "7", "dedup": "first"}, dedup_key="k")
    assert capsys.readouterr().err == ""
    asked(client, {"offset": "7", "dedup": "repeat"}, dedup_key="k")
    assert "had it already, at offset 7" in capsys.readouterr().err
    asked(client, {"offset": "8"}, dedup_key="k", json=True)
    out, err = capsys.readouterr()
    assert "keeps no keys for this topic" in err
    assert "repeat" not in json.loads(out)
