"""Which broker `pub` and `sub` connect to, and how, from the options that they share."""

from __future__ import annotations

import pytest
import typer

from cli.address import Address, Will
from cli.connecting import address_of
from cli.failure import CommandFailed


def address(
    url: str | None = None, host: str | None = None, version: str | None = None, **will: str
) -> tuple[Address, str | None]:
    return address_of(
        url,
        host,
        *(None, None, None, 60),
        version=version,
        debug=False,
        will_topic=will.get("topic"),
        will_payload=will.get("payload"),
        will_qos=0,
        will_retain=False,
    )


def test_a_url_says_all_and_maybe_a_topic() -> None:
    assert address("mqtt://u:p%40@h:1") == (
        Address(host="h", port=1, username="u", password="p@"),
        None,
    )
    assert address("mqtt://h/home/#") == (Address(host="h"), "home/#")
    with pytest.raises(typer.BadParameter, match="--url says all"):
        address("mqtt://h", "h")
    with pytest.raises(CommandFailed, match="--url must be like mqtt://"):
        address("mqtts://user:secret@h")


@pytest.mark.parametrize("version", [None, "5", "mqttv5"])
def test_any_name_of_version_5_will_do(version: str | None) -> None:
    assert address(version=version) == (Address(), None)


def test_other_versions_are_refused_with_what_replaces_their_sessions() -> None:
    with pytest.raises(typer.BadParameter, match=r"speak MQTT 5 only.*is --id"):
        address(version="mqttv311")


def test_a_will_needs_a_topic_that_can_be_published_to() -> None:
    assert address(topic="w", payload="x")[0].will == Will("w", b"x", 0, retain=False)
    with pytest.raises(CommandFailed, match="a will needs its topic: --will-topic"):
        address(payload="x")
    with pytest.raises(CommandFailed, match="--will-topic 'w/#': Topic Name has a wildcard"):
        address(topic="w/#")
