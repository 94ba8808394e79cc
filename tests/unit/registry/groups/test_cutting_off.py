"""Members of a group that cannot be served are cut off, many in several turns of the loop."""

from __future__ import annotations

import asyncio

from broker.message import Offset
from broker.registry.groups.cutting_off import CUT_OFF_AT_ONCE_MAX, CuttingOff
from broker.session.session import Session
from tests.support.patience import PATIENCE_S


def session(number: int) -> Session:
    return Session(f"m{number}", created_at_us=1, start=Offset(0), inflight_max=1)


async def test_few_are_cut_off_at_once_and_many_in_parts() -> None:
    gone: list[Session] = []

    cutting = CuttingOff("g", asyncio.Lock())
    cutting.cut_off([session(1), session(2)], gone.append)
    assert (len(gone), cutting.under_way) == (2, False)
    many = [session(n) for n in range(2 * CUT_OFF_AT_ONCE_MAX + 1)]
    cutting.cut_off(many, gone.append)
    assert (len(gone), cutting.under_way) == (2 + CUT_OFF_AT_ONCE_MAX, True)
    async with asyncio.timeout(PATIENCE_S):
        while cutting.under_way:  # noqa: ASYNC110  It takes its turns.
            await asyncio.sleep(0)
    assert gone[2:] == many
