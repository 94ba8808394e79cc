"""Who is woken in which turn of the loop."""

from __future__ import annotations

import asyncio

import pytest

from broker.delivery import waking
from broker.delivery.waking import Waking
from broker.message import Offset
from broker.session.session import Session


async def test_many_take_turns_and_each_is_woken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is few is woken at once, whoever else waits."""
    monkeypatch.setattr(waking, "AT_ONCE_MAX", 2)
    sessions = [
        Session(f"sub{n}", created_at_us=1, start=Offset(0), inflight_max=1) for n in range(8)
    ]
    woken: list[str] = []
    all_of_them = Waking(lambda session: woken.append(session.client_id))
    all_of_them.wake(sessions[:7])
    all_of_them.wake(sessions[7:])
    all_of_them.wake([*sessions[:2], sessions[5]])
    assert woken == ["sub0", "sub1", "sub7", "sub0", "sub1"]
    woken.clear()
    turns = []
    while all_of_them.unfinished:
        await asyncio.sleep(0)
        turns.append(len(woken))
    assert woken == ["sub2", "sub3", "sub4", "sub5", "sub6"]
    assert turns == [2, 4, 5]
