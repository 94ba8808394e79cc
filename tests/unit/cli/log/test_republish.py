"""Publishing again: what is acknowledged, and what is refused."""

from __future__ import annotations

import pytest

from cli.log.republish import Republisher, payload_of
from cli.net.address import Address
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from tests.support.scripted_client import ScriptedClient, acknowledged


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient()
    monkeypatch.setattr("cli.log.republish.Client", lambda *_: client)
    return client


def opened() -> Republisher:
    publisher = Republisher(Address(), "me")
    publisher.open()
    return publisher


@pytest.mark.parametrize(
    ("fields", "payload"),
    [
        ({"payload": "ü"}, "ü".encode()),
        ({"payload_base64": "/w=="}, b"\xff"),
        ({}, b""),
    ],
)
def test_a_payload_is_the_bytes_that_it_was(fields: dict[str, object], payload: bytes) -> None:
    assert payload_of(fields) == payload


def test_done_has_no_gap(client: ScriptedClient) -> None:
    publisher = opened()
    for number in range(3):
        publisher.send({"topic": "a", "payload": str(number)})
    assert publisher.done == 0
    client.turns.extend([[acknowledged(2)], [acknowledged(1)], [acknowledged(3)]])
    publisher._turn()
    assert publisher.done == 0
    publisher._turn()
    assert publisher.done == 2
    publisher.wait()
    assert publisher.done == 3


def test_it_waits_for_room_in_the_window(client: ScriptedClient) -> None:
    client.receive_max = 2
    publisher = opened()
    client.turns.extend([[], [acknowledged(1)]])
    for _ in range(3):
        publisher.send({"topic": "a"})
    assert not client.turns
    assert publisher.done == 1


def test_an_interrupt_gives_the_broker_a_moment(
    client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    publisher = opened()
    publisher.send({"topic": "a"})
    publisher.send({"topic": "a"})
    client.turns.extend([[acknowledged(1)], [acknowledged(2)], [ConnectionLost("closed")]])
    publisher.drain()
    assert publisher.done == 2
    publisher.send({"topic": "a"})
    publisher.drain()  # Its connection is lost: nothing more is known.
    assert publisher.done == 2
    monkeypatch.setattr("cli.log.republish.DRAIN_S", 0)
    publisher.drain()


def test_a_refusal_ends_it(client: ScriptedClient) -> None:
    publisher = opened()
    publisher.send({"topic": "a"})
    client.turns.append([acknowledged(1, 0x87)])
    with pytest.raises(
        CommandFailed, match="Not authorized; ann needs the right to publish a"
    ) as failed:
        publisher.wait()
    assert failed.value.code is Exit.NOT_AUTHORIZED


def test_a_lost_connection_says_what_is_known(client: ScriptedClient) -> None:
    publisher = opened()
    publisher.send({"topic": "a"})
    publisher.send({"topic": "a"})
    client.turns.extend([[acknowledged(1)], [ConnectionLost("closed")]])
    with pytest.raises(CommandFailed, match="1 acknowledged, 1 sent and not") as failed:
        publisher.wait()
    assert failed.value.code is Exit.UNREACHABLE


def test_what_is_larger_than_the_broker_takes_is_not_sent(client: ScriptedClient) -> None:
    client.packet_bytes_max = 1000
    publisher = opened()
    with pytest.raises(CommandFailed, match="more than the broker takes"):
        publisher.send({"topic": "a", "payload": "x" * 1000})
    assert client.did[-1][0] == "open"


def test_qos_retain_and_properties_are_as_they_were(
    client: ScriptedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[tuple[int, bool, object]] = []
    publish = client.publish

    def remembered(topic: str, payload: bytes, qos: int, retain: bool, properties: object):  # type: ignore[no-untyped-def]
        sent.append((qos, retain, properties))
        return publish(topic, payload, qos, retain, properties)

    monkeypatch.setattr(client, "publish", remembered)
    publisher = opened()
    times = {
        "published_at": "2025-03-14T10:30:00.000000Z",
        "expires_at": "2025-03-14T10:31:30.000000Z",
    }
    publisher.send({"topic": "a", "qos": 0, "retain": True})
    publisher.send({"topic": "a", "qos": 2, "retain": True, **times}, retain=False)
    publisher.send({"topic": "a", "content_type": "text", "user_properties": [["a", "b"]]})
    assert [(qos, retain) for qos, retain, _ in sent] == [(1, True), (2, False), (1, False)]
    assert sent[0][2] is None
    assert vars(sent[1][2])["MessageExpiryInterval"] == 90
    assert vars(sent[2][2])["ContentType"] == "text"
    assert vars(sent[2][2])["UserProperty"] == [("a", "b")]
