"""What members refuse is dealt with together, and many in several turns of the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.message import Lease, Offset
from broker.registry.groups.refusals import AT_ONCE_MAX, Refusal, Refusals
from broker.session.session import Session

MEMBER = Session("m", created_at_us=1, start=Offset(0), inflight_max=1)


class Dealt:
    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []
        self.refusals = Refusals(self)

    def __call__(self, group: str, refusals: Sequence[Refusal]) -> None:
        self.calls.append((group, len(refusals)))
        if group == "bad":
            raise ZeroDivisionError

    def add(self, group: str, count: int) -> None:
        for n in range(count):
            self.refusals.add(MEMBER, [Lease(group, n + 1)], "no")


async def test_those_of_a_turn_are_dealt_with_together() -> None:
    dealt = Dealt()
    dealt.add("a", 2)
    dealt.add("b", 1)
    dealt.add("a", 1)
    assert dealt.calls == []
    await asyncio.sleep(0)
    assert dealt.calls == [("a", 3), ("b", 1)]


async def test_many_take_several_turns() -> None:
    dealt = Dealt()
    dealt.add("a", 2 * AT_ONCE_MAX + 1)
    await asyncio.sleep(0)
    assert dealt.calls == [("a", AT_ONCE_MAX)]
    for _ in range(3):
        await asyncio.sleep(0)
    assert [count for _, count in dealt.calls] == [AT_ONCE_MAX, AT_ONCE_MAX, 1]


async def test_who_leaves_waits_for_nothing() -> None:
    dealt = Dealt()
    dealt.add("a", AT_ONCE_MAX + 1)
    dealt.refusals.flush()
    assert sum(count for _, count in dealt.calls) == AT_ONCE_MAX + 1
    await asyncio.sleep(0)
    assert len(dealt.calls) == 2


async def test_a_mistake_in_one_group_is_that_groups() -> None:
    dealt = Dealt()
    dealt.add("bad", 1)
    dealt.add("good", 1)
    dealt.refusals.flush()
    assert dealt.calls == [("bad", 1), ("good", 1)]
