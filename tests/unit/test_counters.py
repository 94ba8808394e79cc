"""Counters: what is told of them."""

from __future__ import annotations

from broker.counters import Counters


def test_what_is_told_is_of_now() -> None:
    counters = Counters(messages_in=3)
    counters.dropped["expired"] += 2
    told = counters.told()
    assert (told["messages_in"], told["dropped"]) == (3, {"expired": 2})
    counters.dropped["expired"] += 1
    assert told["dropped"] == {"expired": 2}
