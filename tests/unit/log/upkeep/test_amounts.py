"""Amounts: what there is of each rule is counted once."""

from __future__ import annotations

import asyncio

from broker.log.upkeep.amounts import Amounts
from broker.settings.retention import RetentionRule
from broker.store import Store
from broker.store.removing import SEGMENT
from tests.support.messages import message, numbered
from tests.support.retention import SIZE, Rules, four


async def test_full_segments_are_counted_once_and_the_newest_each_time(store: Store) -> None:
    keeper = Rules(store, RetentionRule("a", keep_last=1), RetentionRule(None))
    amounts = Amounts(store, keeper, asyncio.ensure_future)
    await store.append([*four(SEGMENT), *four(10, "a")])
    for more in range(3):
        await amounts.count()
        assert amounts.of(0) == (10 + more, (10 + more) * SIZE)
        assert amounts.of(1) == (SEGMENT, SEGMENT * SIZE)
        await store.append([message("1234", "a")])
    [number] = [n for n, name in (await store.removing.topic_names({1, 2})).items() if name == "a"]
    assert amounts.messages_of(number) == 12
    await store.append(numbered(SEGMENT, "a"))
    await amounts.count()
    assert amounts.of(0).messages == 13 + SEGMENT
