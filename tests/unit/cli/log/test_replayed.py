"""The history of a broker that is elsewhere: what is asked of it, and how answers are taken."""

from __future__ import annotations

import pytest
from paho.mqtt.client import MQTTMessage
from paho.mqtt.packettypes import PacketTypes

from broker.topics import REPLAY_ENDED
from cli.log.history import Options, Places
from cli.log.replayed import Replayed, words
from cli.net.address import Address
from cli.net.client import packet_properties
from cli.terminal.failure import CommandFailed
from tests.support.scripted_client import ScriptedClient, message

NOW_US = 1_741_948_200_000_000


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> ScriptedClient:
    client = ScriptedClient()
    monkeypatch.setattr("cli.log.replayed.Client", lambda *_: client)
    return client


def options(*filters: str, **changes: object) -> Options:
    given = {"data_dir": ".", "filters": filters, "last": None} | changes
    return Options(**given)  # type: ignore[arg-type]


def told(topic: str, number: int, *own: tuple[str, str]) -> MQTTMessage:
    made = message(topic, number)
    known = [
        ("offset", str(number)),
        ("published-at", "2025-03-14T10:30:00.000001Z"),
        ("publisher", "pub1"),
    ]
    made.properties = packet_properties(PacketTypes.PUBLISH, [*own, *known])
    return made


ENDED = message(REPLAY_ENDED, 99)


def found(client: ScriptedClient, asked: Options) -> list[tuple[str, int]]:
    with Replayed(Address(), asked, Places.of(asked, NOW_US)) as replayed:
        return [(one.topic, int(one.offset)) for page in replayed.pages() for one in page]


@pytest.mark.parametrize(
    ("asked", "places"),
    [
        (options("a"), ("earliest", "latest")),
        (options("a", last=20), ("-20", "latest")),
        (options("a", "b", last=20), ("earliest", "latest")),
        (options("a", last=20, grep="x"), ("earliest", "latest")),
        (options("a", start="5", until="9", last=3), ("5", "9")),
    ],
)
def test_what_is_asked(asked: Options, places: tuple[str, str]) -> None:
    assert words(asked, Places.of(asked, NOW_US)) == places


def test_it_ends_with_the_replay_and_all_is_acknowledged(client: ScriptedClient) -> None:
    client.turns.extend([[told("a", 1), told("a", 2)], [], [told("a", 3), ENDED]])
    assert found(client, options("a")) == [("a", 1), ("a", 2), ("a", 3)]
    (_, filters, qos, properties), *acknowledged = client.did[1:-1]
    assert (filters, qos) == (("a",), 2)
    assert properties == {"metadata": "true", "from": "earliest", "until": "latest"}
    assert acknowledged == [("acknowledge", 1, 2), ("acknowledge",), ("acknowledge", 3, 99)]


def test_several_filters_are_one_replay_and_the_last_are_counted_here(
    client: ScriptedClient,
) -> None:
    client.turns.extend([[told("a", 1), told("x", 2), told("b/c", 3)], [told("a", 4), ENDED]])
    assert found(client, options("a", "b/#", last=2)) == [("b/c", 3), ("a", 4)]
    assert client.did[1][1] == ("#",)


def test_properties_of_the_application_stay(client: ScriptedClient) -> None:
    client.turns.extend([[told("a", 1, ("a", "b")), ENDED]])
    asked = options("a")
    with Replayed(Address(), asked, Places.of(asked, NOW_US)) as replayed:
        (page,) = replayed.pages()
    assert page[0].properties == b"\x26\x00\x01a\x00\x01b"
    assert (page[0].publisher, page[0].published_at_us) == ("pub1", NOW_US + 1)


def test_another_broker_tells_no_history(client: ScriptedClient) -> None:
    client.turns.extend([[message("a", 1)]])
    with pytest.raises(CommandFailed, match="is it a pubsub broker"):
        found(client, options("a"))
