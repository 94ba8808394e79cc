"""Who is woken in which turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from broker.counters import Counters
from broker.delivery import waking
from broker.delivery.waking import LITTLE_BYTES, WAKE_MESSAGES, Waking
from broker.message import Grant, Offset
from broker.session.session import Session
from tests.support.messages import message


class Woken:
    """What a `Waking` sends: each session `sends` so many messages of `size` bytes."""

    def __init__(self, *, sends: int = 0, size: int = 0) -> None:
        self.counters = Counters()
        self.names: list[str] = []
        self.sends, self.size = sends, size
        self.waking = Waking(self.wake, self.counters)

    def wake(self, session: Session) -> None:
        self.names.append(session.client_id)
        self.counters.messages_out += self.sends
        self.counters.payload_bytes_out += self.sends * self.size

    async def turns(self) -> list[int]:
        """How many were woken after each turn."""
        turns = []
        while self.waking.later:
            await asyncio.sleep(0)
            turns.append(len(self.names))
        return turns


def sessions(number: int, *, size: int = 0) -> list[Session]:
    made = [
        Session(f"sub{n}", created_at_us=1, start=Offset(0), inflight_max=1) for n in range(number)
    ]
    for session in made:
        session.supply.offer([(message(), Grant(0))], size)
    return made


async def test_many_take_turns_and_each_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waking, "AT_ONCE_MAX", WAKE_MESSAGES)
    woken, many = Woken(), sessions(7)
    woken.waking.wake(many)
    assert woken.names == ["sub0", "sub1"]
    assert await woken.turns() == [4, 6, 7]
    assert sorted(woken.names) == [session.client_id for session in many]


@pytest.mark.parametrize(("sends", "size"), [(4990, 0), (1000, 4096)])
async def test_what_is_sent_counts_by_messages_and_by_bytes(sends: int, size: int) -> None:
    woken, many = Woken(sends=sends, size=size), sessions(3, size=LITTLE_BYTES + 1)
    woken.waking.wake(many)
    assert woken.names == ["sub0"]
    assert await woken.turns() == [2, 3]


async def test_who_has_little_does_not_wait_for_those_with_much() -> None:
    woken, much = Woken(sends=5000), sessions(3, size=LITTLE_BYTES + 1)
    [little] = sessions(1)
    woken.waking.wake(much)
    assert len(woken.names) == 1
    woken.sends = 1
    woken.waking.wake([little])
    assert len(woken.names) == 2
