"""User Properties decoded without paho: the same that paho finds, or left to it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties

from cli.net.client import packet_properties
from cli.net.user_properties import OnlyUserProperties, only_user_properties

TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), max_size=200)
PAIRS = st.lists(st.tuples(TEXT, TEXT), max_size=20)
HEAD, PAYLOAD = b"\x00\x01t\x00\x05", b"payload"


def packed(properties: Properties) -> bytes:
    return bytes(properties.pack())  # type: ignore[no-untyped-call]  # paho leaves it so


def decoded(block: bytes) -> tuple[list[tuple[str, str]], int] | None:
    return only_user_properties(HEAD + block + PAYLOAD, len(HEAD))


@given(PAIRS)
def test_pairs_are_found_as_paho_packs_them(pairs: list[tuple[str, str]]) -> None:
    block = packed(packet_properties(PacketTypes.PUBLISH, pairs))
    assert decoded(block) == (pairs, len(HEAD) + len(block))


def test_what_asks_for_them_finds_them_and_no_others() -> None:
    properties = OnlyUserProperties([("offset", "7")])
    assert getattr(properties, "UserProperty", ()) == [("offset", "7")]
    assert not hasattr(properties, "ContentType")


def test_other_properties_are_for_paho() -> None:
    properties = packet_properties(PacketTypes.PUBLISH, [("a", "b")])
    properties.ContentType = "text/plain"
    assert decoded(packed(properties)) is None


@pytest.mark.parametrize(
    "block",
    [
        "07 26 0001 61 0001 ff",
        "07 26 0001 61 0001 00",
        "06 26 0001 61 0001",
        "03 26 0001",
        "07 26 0001 61 0009 62",
        "80 80 80 80",
        "7f 26 0001 61 0001 62",
        "",
    ],
)
def test_what_is_malformed_is_for_paho(block: str) -> None:
    assert only_user_properties(HEAD + bytes.fromhex(block), len(HEAD)) is None


@given(st.binary(max_size=60))
def test_no_bytes_make_it_fail(block: bytes) -> None:
    only_user_properties(block, 0)
