"""A Keeper for tests of retention, and messages that are all of one size."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from broker.log.upkeep.keeper import Judged
from broker.message import Message, Offset
from broker.settings.retention import RetentionRule
from broker.store import Store
from broker.store.removing import OVERHEAD_BYTES
from tests.support.messages import message
from tests.support.stores import END

SIZE = OVERHEAD_BYTES + 4
"""Of a message with four bytes of payload."""


def four(count: int, topic: str = "t") -> list[Message]:
    return [message("1234", topic) for _ in range(count)]


class Rules:
    """A Keeper: a rule by the first letter of a topic, or the last rule."""

    def __init__(self, store: Store, *rules: RetentionRule) -> None:
        self.rules: Sequence[RetentionRule] = rules
        self.held: set[Offset] = set()
        self.unread_from = END
        self.wanted: dict[str, int] = {}
        """By topic, from which offset on."""
        self.told: list[Offset] = []
        self._store = store

    def take_new_rules(self) -> bool:
        return False

    async def look(self) -> Offset:
        return self._store.high_watermark

    async def judge(self, topic_ids: Collection[int]) -> Mapping[int, Judged]:
        names = await self._store.removing.topic_names(topic_ids)
        letters = [rule.filter for rule in self.rules]
        return {
            number: Judged(
                letters.index(name[0]) if name[0] in letters else len(self.rules) - 1,
                Offset(self.wanted.get(name, END)),
            )
            for number, name in names.items()
        }

    def removed_unread(self, offsets: Sequence[Offset], topic_ids: Collection[int]) -> None:
        self.told += offsets
