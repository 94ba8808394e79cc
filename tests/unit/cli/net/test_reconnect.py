"""Connecting again: how often it is tried, for how long, and what is not tried again."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator

import pytest

from cli.net import reconnect as module
from cli.net.client import ADMINISTRATIVE_ACTION, SESSION_TAKEN_OVER
from cli.net.reconnect import reconnect
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from cli.terminal.interrupt import Interrupt

LOST = ConnectionLost("closed")
AWAY = CommandFailed("no broker answers", code=Exit.UNREACHABLE)


@pytest.fixture
def interrupt() -> Iterator[Interrupt]:
    with Interrupt() as interrupt:
        yield interrupt


def attempts(*errors: Exception | None) -> Callable[[], None]:
    left = deque(errors)

    def attempt() -> None:
        if (error := left.popleft()) is not None:
            raise error

    return attempt


def test_it_tries_until_the_broker_is_there_after_pauses_that_grow(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    monkeypatch.setattr(module, "PAUSE_S_MAX", 0.003)
    asked: list[float] = []

    def left_s(pause_s: float) -> float:
        asked.append(pause_s)
        return pause_s

    assert reconnect(attempts(AWAY, LOST, AWAY, None), LOST, interrupt, left_s)
    assert asked == [0.001, 0.002, 0.003, 0.003]


def test_no_time_left_is_the_end(interrupt: Interrupt) -> None:
    assert not reconnect(attempts(), LOST, interrupt, lambda _: 0.0)


def test_what_does_not_get_better_is_not_tried_again(
    interrupt: Interrupt, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FIRST_PAUSE_S", 0.001)
    with pytest.raises(CommandFailed, match="took the session over; give each its own --id"):
        reconnect(attempts(), ConnectionLost("why", SESSION_TAKEN_OVER), interrupt)
    with pytest.raises(CommandFailed, match="removed; the same command again begins anew"):
        reconnect(attempts(), ConnectionLost("removed", ADMINISTRATIVE_ACTION), interrupt)
    with pytest.raises(CommandFailed, match="why") as failed:
        reconnect(attempts(), ConnectionLost("why", 0x87), interrupt)
    assert failed.value.code is Exit.NOT_AUTHORIZED
    refused = CommandFailed("no", code=Exit.NOT_AUTHORIZED)
    with pytest.raises(CommandFailed, match="no"):
        reconnect(attempts(AWAY, refused), LOST, interrupt)


def test_ctrl_c_ends_the_wait(interrupt: Interrupt) -> None:
    interrupt.requested = True
    with pytest.raises(KeyboardInterrupt):
        reconnect(attempts(), LOST, interrupt, lambda _: 0.001)
