"""Amounts: how much the log holds, by rule of retention."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable

from broker.documents import BEFORE_ALL
from broker.log.upkeep.keeper import Keeper
from broker.message import Offset
from broker.store import Store
from broker.store.removing import SEGMENT, Amount, ByTopic, Removed

Counted = tuple[ByTopic, Offset]
Look = Callable[[Awaitable[Counted]], Awaitable[Counted]]
NOTHING = Amount(0, 0)


class Amounts:
    """How much there is, by rule; and by topic where the newest of each are to be kept.

    Full segments are counted once. The newest one is counted at each pass.
    """

    def __init__(self, store: Store, keeper: Keeper, look: Look) -> None:
        """`look` awaits what it is given, and makes a pause."""
        self._store = store
        self._keeper = keeper
        self._look = look
        self._counted = BEFORE_ALL
        """The first segment that was not full when they were last counted."""
        self._full, self._open = _Kept(), _Kept()

    def of(self, rule: int) -> Amount:
        full = self._full.rules.get(rule, NOTHING)
        newest = self._open.rules.get(rule, NOTHING)
        return Amount(full.messages + newest.messages, full.bytes + newest.bytes)

    def messages_of(self, topic_id: int) -> int:
        return self._full.topics[topic_id] + self._open.topics[topic_id]

    async def count(self) -> None:
        """Count what has come. Raises StoreError."""
        end = Offset(self._store.high_watermark // SEGMENT * SEGMENT)
        while self._counted < end:
            look = self._store.removing.counted(self._counted, end)
            amounts, position = await self._look(look)
            await self._add(self._full, amounts)
            self._counted = position
        self._open = _Kept()
        amounts, _ = await self._store.removing.counted(end, Offset(end + SEGMENT))
        await self._add(self._open, amounts)

    async def _add(self, kept: _Kept, amounts: ByTopic) -> None:
        judged = await self._keeper.judge(amounts)
        for topic_id, amount in amounts.items():
            if topic_id in judged:
                rule = judged[topic_id].rule
                kept.add(rule, amount)
                if self._keeper.rules[rule].keep_last:
                    kept.topics[topic_id] += amount.messages

    def removed(self, rule: int | None, first: Offset, result: Removed) -> None:
        """Part of the segment that begins at `first` went. `rule` None: by hand."""
        if rule is None:
            # Of whichever rules: count anew.
            self._counted, self._full = BEFORE_ALL, _Kept()
            return
        kept = self._full if first < self._counted else self._open
        for topic_id, amount in result.topics.items():
            kept.add(rule, Amount(-amount.messages, -amount.bytes))
            if topic_id in kept.topics:
                kept.topics[topic_id] -= amount.messages


class _Kept:
    def __init__(self) -> None:
        self.rules: dict[int, Amount] = {}
        self.topics: Counter[int] = Counter()

    def add(self, rule: int, amount: Amount) -> None:
        messages, size = self.rules.get(rule, NOTHING)
        self.rules[rule] = Amount(messages + amount.messages, size + amount.bytes)
