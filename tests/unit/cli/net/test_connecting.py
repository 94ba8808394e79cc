"""Which broker `pub` and `sub` connect to, and how, from the options that they share."""

from __future__ import annotations

from pathlib import Path

import pytest
import typer

from cli.net.address import Address, Will
from cli.net.connecting import address_of
from cli.options import BrokerOptions, ClientOptions
from cli.terminal.failure import CommandFailed


@pytest.fixture(autouse=True)
def _nothing_is_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("PUBSUB_URL", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))


def address(url: str | None = None, **client: str | None) -> tuple[Address, str | None]:
    return address_of(BrokerOptions(url=url), ClientOptions(**client))  # type: ignore[arg-type]  # as its


def test_the_options_of_a_client_go_with_the_broker_and_its_url_may_name_a_topic() -> None:
    found, topic = address_of(
        BrokerOptions(url="mqtt://h/home/#"), ClientOptions(keep_alive=9, debug=True)
    )
    assert (found, topic) == (Address(host="h", keep_alive_s=9, debug=True), "home/#")


@pytest.mark.parametrize("version", [None, "5", "mqttv5"])
def test_any_name_of_version_5_will_do(version: str | None) -> None:
    assert address(version=version) == (Address(), None)


def test_other_versions_are_refused_with_what_replaces_their_sessions() -> None:
    with pytest.raises(typer.BadParameter, match=r"speak MQTT 5 only.*is --id"):
        address(version="mqttv311")


def test_a_will_needs_a_topic_that_can_be_published_to() -> None:
    assert address(will_topic="w", will_payload="x")[0].will == Will("w", b"x", 0, retain=False)
    with pytest.raises(CommandFailed, match="a will needs its topic: --will-topic"):
        address(will_payload="x")
    with pytest.raises(CommandFailed, match="--will-topic 'w/#': Topic Name has a wildcard"):
        address(will_topic="w/#")
