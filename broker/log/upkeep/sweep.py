"""Sweep: one walk of retention over the log, oldest first: what it may take, and what it took."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from broker.message import Offset
from broker.settings.retention import RetentionRule
from broker.store.removing import Amount, Removed


@dataclass(slots=True)
class ByHand:
    """What the operator wants gone: of topics whose `Judged.rule` is 0, what lies below `before`;
    `unread`: also what a subscriber has not acknowledged."""

    before: Offset
    unread: bool
    dry_run: bool


class Sweep:
    """One walk over the log for one rule."""

    def __init__(
        self,
        rule: int,
        limits: RetentionRule,
        before: Offset,
        through: Offset,
        by_hand: ByHand | None = None,
    ) -> None:
        """What lies below `before` may go, and nothing above `through`."""
        self.rule = rule
        self.keep_last = limits.keep_last
        self.before = before
        self.through = through
        self.by_hand = by_hand
        self.over_messages = self.over_bytes = 0
        """What is too much."""
        self.unread = False
        """Whether what is unread may go because there is too much."""
        self.passed: Counter[int] = Counter()
        """Messages of each topic that were met and stay, where the newest are to be kept."""
        self.removed = Amount(0, 0)
        self.unread_removed = 0
        self.left = 0
        """Messages that stay since somebody wants them."""
        self._limits = limits

    def over(self, kept: Amount) -> None:
        limits = self._limits
        if limits.count is not None:
            self.over_messages = max(0, kept.messages - limits.count)
        if limits.bytes is not None:
            self.over_bytes = max(0, kept.bytes - limits.bytes)

    @property
    def is_over(self) -> bool:
        """Whether there is still too much: then all that may go of what was looked at went."""
        return self.over_messages > 0 or self.over_bytes > 0

    @property
    def is_behind(self) -> bool:
        return self._limits.bytes is not None and self.over_bytes > self._limits.bytes // 10

    @property
    def takes_unread(self) -> bool:
        return self.unread or (self.by_hand is not None and self.by_hand.unread)

    @property
    def reason(self) -> str:
        """Of what goes, but for its age."""
        return "count" if self._limits.bytes is None else "bytes"

    def wants(self, first: Offset) -> bool:
        """Whether something from this offset on may go."""
        if self.unread:
            return self.over_bytes > 0
        return first < self.before or self.over_messages > 0 or self.over_bytes > 0

    def passes(self, messages: int) -> None:
        """So many stay since somebody wants them. They are the oldest ones: by count nothing newer
        goes for them, or fewer than the newest that a rule keeps would be left."""
        self.left += messages
        self.over_messages -= messages

    def count(self, result: Removed) -> None:
        amount = result.amount
        self.over_messages -= amount.messages
        self.over_bytes -= amount.bytes
        if self.keep_last:
            self.passed.subtract({t: gone.messages for t, gone in result.topics.items()})
        self.unread_removed += len(result.unread)
        messages, size = self.removed
        self.removed = Amount(messages + amount.messages, size + amount.bytes)
