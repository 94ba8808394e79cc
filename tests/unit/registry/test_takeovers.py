"""Clients that take one client identifier from each other are told, once in a while."""

from __future__ import annotations

import pytest

from broker.message import Monotonic
from broker.registry import takeovers
from broker.registry.takeovers import FIGHT, WINDOW_S, Takeovers
from tests.support.world import Disk, Subscriber, running


def taken_over(found: Takeovers, client_id: str, times: int, now: float = 0.0) -> None:
    for _ in range(times):
        found.taken_over(client_id, Monotonic(now))


def test_a_fight_is_told_once_in_a_window(caplog: pytest.LogCaptureFixture) -> None:
    found = Takeovers()
    taken_over(found, "a\n", FIGHT - 1)
    assert caplog.messages == []
    taken_over(found, "a\n", 1000)
    said = (
        "client identifier 'a\\n' was taken over 3 times within 60 s: "
        "do several clients use it? Each needs its own"
    )
    assert caplog.messages == [said]
    taken_over(found, "a\n", FIGHT, now=WINDOW_S)
    assert caplog.messages == [said, said]


def test_clients_that_come_back_now_and_then_are_no_fight(caplog: pytest.LogCaptureFixture) -> None:
    found = Takeovers()
    for minute in range(10):
        taken_over(found, "a", FIGHT - 1, now=minute * WINDOW_S)
    for number in range(100):
        taken_over(found, f"client{number}", 1)
    assert caplog.messages == []


def test_memory_has_a_bound(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeovers, "IDENTIFIERS_MAX", 10)
    found = Takeovers()
    for number in range(100):
        taken_over(found, f"client{number}", FIGHT)
    assert len(caplog.messages) == 10


async def test_sessions_count_them_whoever_their_owners_are(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(Disk()) as world:
        for _ in range(FIGHT + 1):
            await Subscriber(world).open("a")
    assert [text[:22] for text in caplog.messages] == ["client identifier 'a' "]
