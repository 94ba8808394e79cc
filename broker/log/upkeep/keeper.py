"""Keeper: what retention asks of those who know topics, filters and subscribers."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from broker.message import Offset
from broker.settings.retention import RetentionRule


@dataclass(slots=True, frozen=True)
class Judged:
    """Of one topic: its rule, and the offset from which on somebody wants its messages."""

    rule: int
    unread_from: Offset


class Keeper(Protocol):
    """What is known of topics and subscribers."""

    @property
    def rules(self) -> Sequence[RetentionRule]: ...

    def take_new_rules(self) -> bool:
        """A pass begins: whether the rules are others from here on."""
        ...

    async def look(self) -> Offset:
        """A pass begins: see who wants what. Returns the offset up to which messages were
        delivered to whoever is there: nothing above it may go. Raises StoreError."""
        ...

    async def judge(self, topic_ids: Collection[int]) -> Mapping[int, Judged]:
        """As of the last `look`. What is not in it is unknown, and stays. Raises StoreError."""
        ...

    @property
    def held(self) -> Collection[Offset]:
        """Single offsets that must stay, as of the last `look`."""
        ...

    @property
    def unread_from(self) -> Offset:
        """Below this nobody has anything to read, as of the last `look`."""
        ...

    def removed_unread(self, offsets: Sequence[Offset], topic_ids: Collection[int]) -> None:
        """These went although somebody wants them: tell it."""
        ...
