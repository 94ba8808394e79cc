"""Numbers of things as people say them."""

from __future__ import annotations

import pytest

from broker.plural import counted


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 messages"), (1, "1 message"), (2, "2 messages"), (1_234_567, "1,234,567 messages")],
)
def test_one_is_told_from_many(count: int, text: str) -> None:
    assert counted(count, "message") == text


def test_a_noun_may_bring_its_plural_and_its_verb() -> None:
    assert counted(1, "entry", "entries") == "1 entry"
    assert counted(2, "message is", "messages are") == "2 messages are"
