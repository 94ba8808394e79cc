"""Publishing: what counts as taken, and what is said when some was not."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Publish
from broker.mqtt.properties import Property, write_properties
from cli.address import Address
from cli.failure import CommandFailed, ConnectionLost, Exit
from cli.publish import Options, Publisher, publish, publish_lines, read_file
from tests.support.scripted_client import ScriptedClient, acknowledged


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient()
    monkeypatch.setattr("cli.publish.Client", lambda *_: client)
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

    monkeypatch.setattr("cli.output.waiting", waiting)
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


def test_a_full_disk_is_called_that(client: ScriptedClient) -> None:
    client.turns.append([acknowledged(1, 0x97)])
    with pytest.raises(CommandFailed, match="Quota exceeded: the broker's disk is full"):
        publish(options(qos=2), "a", lambda: b"b")


def test_after_a_lost_connection_what_may_be_stored_is_counted(
    client: ScriptedClient, stdin: int
) -> None:
    os.write(stdin, b"1\n2\n3\n")
    os.close(stdin)
    client.turns.extend([[], [acknowledged(1), ConnectionLost("closed")]])
    says = r"connection lost \(closed\): 1 acknowledged, 2 sent and not acknowledged"
    with pytest.raises(CommandFailed, match=says) as failed:
        publish_lines(options(), "a")
    assert failed.value.code is Exit.UNREACHABLE


def test_after_a_lost_connection_nothing_is_in_doubt_if_all_was_acknowledged(
    client: ScriptedClient, stdin: int
) -> None:
    os.write(stdin, b"1\n")
    client.turns.extend([[], [acknowledged(1)], [ConnectionLost("closed")]])
    says = r"connection lost \(closed\): 1 acknowledged, nothing else was sent$"
    with pytest.raises(CommandFailed, match=says):
        publish_lines(options(), "a")
    os.close(stdin)


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
