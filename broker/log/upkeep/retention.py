"""Retention: what is too old, or too much, goes from the log, in small parts between its commits.

A pass looks at one rule after the other, at its oldest messages first. Which rule is for a topic,
and from which offset on somebody still wants its messages, is known above (`keeper.py`): here are
numbers of topics, offsets, amounts and marks of time (`marks.py`).

- By age, count and bytes go only messages that every durable subscriber has acknowledged. If that
  does not bring a rule below its bytes, the oldest go all the same, and are told to whoever wanted
  them (P5). Held messages (retained and the like) never go, nor do the newest `keep_last`.
- A part is so small, and the pause after it so long, that publishers wait little for it.
- A damaged segment stays as it is.
- The log start follows: it is the oldest message that is not only held.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from broker.clock import US, Clock
from broker.documents import BEFORE_ALL, MarkDocument, Operation
from broker.errors import StoreCorrupt, StoreError
from broker.log.log_time import LogTime
from broker.log.upkeep.amounts import Amounts
from broker.log.upkeep.keeper import Keeper
from broker.log.upkeep.marks import Marks
from broker.log.upkeep.sweep import ByHand, Sweep
from broker.message import Offset, ServedUs, WallUs
from broker.settings.retention import RetentionRule
from broker.store import Store
from broker.store.removing import SEGMENT, Amount, Cut, Order, Removed, Segment, updated

SWEEP_S = 3600.0
"""How often everything is looked at again: what was held may be so no more."""
ROWS_MIN, ROWS_FIRST, ROWS_MAX = 64, 256, SEGMENT
PART_S = 0.001
"""What one part is to take. A commit waits for the part under way."""
PAUSE, PAUSE_BEHIND = 15, 2
"""The pause after a part in parts, while messages come; if a rule is over its bytes by a tenth."""
PAUSE_LOOKING = 4
"""The same after a look for what may go, in looks."""
BREATH_S = 0.02
"""And so much more: to look for what may go takes the interpreter from the loop, too."""
QUIET_S = 1.0
"""No message came for so long: then nobody waits for a part."""
REST, REST_S_MAX = 20, 600.0
"""After a pass there is a pause of so many times what looking took, up to the maximum."""
MARK_INTERVAL_S_MAX = 600
MARKS_OF_OLD_MAX = 1000
"""For what an older program has logged."""

T = TypeVar("T")
logger = logging.getLogger(__name__)


class Retention:
    def __init__(
        self,
        store: Store,
        time: LogTime,
        clock: Clock,
        keeper: Keeper,
        commit: Callable[[Sequence[Operation]], object],
        *,
        interval_s: float,
    ) -> None:
        """`commit` stores operations when it can."""
        self.removed: Counter[str] = Counter()
        """Messages since the start, by reason."""
        self.bytes_removed = 0
        self.last_pass_at: WallUs | None = None
        self.last_pass_s = 0.0
        self.by_hand: Sweep | None = None
        """What the operator has removed just now."""
        self.damaged: set[Offset] = set()
        """Segments that stay, as they are damaged."""
        self._store = store
        self._time = time
        self._clock = clock
        self._keeper = keeper
        self._commit = commit
        self.interval_s = interval_s
        self._lock = asyncio.Lock()
        self._marks: Marks | None = None
        self._amounts = Amounts(store, keeper, self._look)
        self._from: dict[int, Offset] = {}
        """By rule, below which everything was looked at since the last sweep."""
        self._swept_at = clock.monotonic()
        self._rows = ROWS_FIRST
        self._newest = store.high_watermark, clock.monotonic()
        """The newest message, and when it was seen."""
        self._not_looking_s = 0.0
        """How long the last pass removed messages, or waited."""

    @property
    def kept(self) -> Amount:
        """Messages and bytes in the log, as of the last pass."""
        amounts = [self._amounts.of(rule) for rule in range(len(self._keeper.rules))]
        return Amount(sum(a.messages for a in amounts), sum(a.bytes for a in amounts))

    async def run_forever(self) -> None:
        """Pass after pass, until cancelled. Not at once: a broker that has just come up has other
        work."""
        await self._clock.sleep(self.interval_s)
        while True:
            try:
                await self.run_once()
            except StoreError as error:
                logger.warning("nothing more is removed by retention for now: %s", error)
            except Exception as error:
                logger.critical("a pass of retention failed", exc_info=error)
            look_s = self.last_pass_s - self._not_looking_s
            await self._clock.sleep(max(self.interval_s, min(REST * look_s, REST_S_MAX)))

    async def run_once(self) -> None:
        """One pass over all rules. Raises StoreError."""
        async with self._lock:
            began = self._clock.monotonic()
            self._not_looking_s = 0.0
            sweep = began >= self._swept_at + SWEEP_S
            if self._keeper.take_new_rules():
                sweep = True
                self._amounts, self._marks = Amounts(self._store, self._keeper, self._look), None
            await self._note_marks()
            if sweep:
                self._from.clear()
                self._swept_at = began
            through = await self._keeper.look()
            await self._amounts.count()
            before = self.removed.total()
            for number, rule in enumerate(self._keeper.rules):
                if rule.limits:
                    await self._apply(number, rule, through)
            if sweep or self.removed.total() > before:
                await self._tidy(forget_names=sweep or self.removed.total() - before > SEGMENT)
            self.last_pass_s = self._clock.monotonic() - began
            self.last_pass_at = self._clock.wall_us()

    async def _tidy(self, *, forget_names: bool) -> None:
        removing = self._store.removing
        await removing.advance()
        assert self._marks is not None
        if gone := self._marks.forget(self._store.log_start):
            self._commit(gone)
        await removing.forget_unread(self._keeper.unread_from)
        if forget_names:
            await removing.remove_released()
            await removing.forget_names()

    def now_us(self) -> ServedUs:
        return self._time.served_at(self._clock.monotonic())

    async def _note_marks(self) -> None:
        if self._marks is None:
            ages = [rule.age_s for rule in self._keeper.rules if rule.age_s is not None]
            interval_s = min([MARK_INTERVAL_S_MAX, *(max(1, age // 1000) for age in ages)])
            known = await self._store.scan(MarkDocument)
            marks = Marks(known, interval_s * US)
            if not known and ages and (old := await self._marks_of_old()):
                self._commit(marks.add(old))
            self._marks = marks
        if operations := self._marks.note(self._store.high_watermark, self.now_us()):
            self._commit(operations)

    async def _marks_of_old(self) -> list[MarkDocument]:
        """For messages that were there before there were marks: the latest time of publication so
        far. So a clock that was ahead makes them younger, and none makes them older."""
        marks: list[MarkDocument] = []
        position, latest_us, now_us = self._store.log_start, 0, self.now_us()
        while segments := await self._look(self._store.removing.segments(position)):
            for segment in segments:
                latest_us = max(latest_us, segment.newest_at_us)
                if 0 < latest_us <= now_us:
                    last = min(segment.last, self._store.high_watermark)
                    marks.append(MarkDocument(Offset(last), ServedUs(latest_us)))
            position = Offset(segments[-1].last + 1)
            if len(marks) > 2 * MARKS_OF_OLD_MAX:
                del marks[::2]
        return marks

    async def _apply(self, number: int, rule: RetentionRule, through: Offset) -> None:
        """One rule. First what nobody wants any more; then, for bytes alone, the oldest."""
        before = BEFORE_ALL
        if rule.age_s is not None:
            assert self._marks is not None
            before = self._marks.older_than(rule.age_s * US, self.now_us())
        sweep = Sweep(number, rule, Offset(min(before, through) + 1), through)
        sweep.over(self._amounts.of(number))
        await self._sweep(sweep)
        if sweep.over_bytes > 0:
            sweep.unread = True
            sweep.passed.clear()  # It begins anew.
            await self._sweep(sweep)

    async def _sweep(self, sweep: Sweep) -> None:
        """Walk over the log, oldest first, as far as something may go."""
        start = self._from.get(sweep.rule, BEFORE_ALL)
        if sweep.keep_last or sweep.unread or sweep.by_hand is not None:
            start = BEFORE_ALL
        position = Offset(max(start, self._store.log_start))
        left: Offset | None = None
        while segments := await self._look(self._store.removing.segments(position)):
            for segment in segments:
                position = segment.first
                if position > sweep.through or not sweep.wants(segment.first):
                    break
                more = await self._thin(sweep, segment)
                if (more or segment.last >= sweep.through) and left is None:
                    left = segment.first  # What is still to come into it is looked at, too.
                position = Offset(segment.last + 1)
            else:
                continue
            break
        if sweep.by_hand is None:
            self._from[sweep.rule] = position if left is None else left

    async def _thin(self, sweep: Sweep, segment: Segment) -> bool:
        """Remove what may go of one segment. Whether more of it may go later."""
        judged = await self._keeper.judge(segment.topics)
        cuts: dict[int, Cut] = {}
        left = False
        for topic_id, amount in segment.topics.items():
            found = judged.get(topic_id)
            if found is None or found.rule != sweep.rule:
                continue
            most = amount.messages
            if sweep.keep_last:
                rest = self._amounts.messages_of(topic_id) - sweep.passed[topic_id]
                most = min(most, rest - sweep.keep_last)
                sweep.passed[topic_id] += amount.messages
            if most <= 0:
                continue
            if found.unread_from <= segment.first and not sweep.takes_unread:
                left = True
                sweep.passes(amount.messages)
                continue
            cuts[topic_id] = Cut(sweep.before, found.unread_from, most)
        if cuts:
            last = Offset(min(segment.last, sweep.through))
            order = Order(segment.first, last, cuts, held=self._keeper.held)
            began = self._clock.monotonic()
            left |= await self._remove(sweep, order)
            self._not_looking_s += self._clock.monotonic() - began
        return left or (segment.last >= sweep.before and not sweep.is_over)

    async def _remove(self, sweep: Sweep, order: Order) -> bool:
        """Part after part. Whether something is left that may go later."""
        dry_run = sweep.by_hand is not None and sweep.by_hand.dry_run
        order.over_messages, order.over_bytes = sweep.over_messages, sweep.over_bytes
        order.unread = sweep.unread
        order.unread_below = sweep.by_hand is not None and sweep.by_hand.unread
        while True:
            rows_max = SEGMENT if dry_run else self._rows
            try:
                result = await self._store.removing.remove(order, rows_max, dry_run=dry_run)
            except StoreCorrupt:
                if order.first not in self.damaged:
                    self.damaged.add(order.first)
                    logger.error(
                        "the messages %d to %d stay in the log: some of them are damaged",
                        *(order.first, order.last),
                    )
                return False
            sweep.count(result)
            if not dry_run:
                self._count(sweep, order, result)
                await self._pause(result.took_s, behind=sweep.is_behind)
            if result.done:
                sweep.passes(result.left)
                return result.left > 0
            order = updated(order, result)

    def _count(self, sweep: Sweep, order: Order, result: Removed) -> None:
        self._amounts.removed(sweep.rule if sweep.by_hand is None else None, order.first, result)
        amount = result.amount
        self.bytes_removed += amount.bytes
        unread = len(result.unread)
        if sweep.by_hand is not None:
            self.removed["by hand"] += amount.messages - unread
        else:
            old = min(result.below, amount.messages - unread)
            self.removed["age"] += old
            self.removed[sweep.reason] += amount.messages - unread - old
        if result.unread:
            self.removed["unread"] += unread
            self._keeper.removed_unread(result.unread, result.topics)

    async def _pause(self, took_s: float, *, behind: bool) -> None:
        if took_s > 2 * PART_S:
            self._rows = max(ROWS_MIN, self._rows // 2)
        elif took_s < PART_S:
            self._rows = min(ROWS_MAX, self._rows * 2)
        if self._is_busy():
            pause = PAUSE_BEHIND if behind else PAUSE
            await self._clock.sleep(took_s * pause + BREATH_S)
        else:
            await self._clock.sleep(took_s)

    async def _look(self, look: Awaitable[T]) -> T:
        """What the look finds, and a pause after it."""
        began = self._clock.monotonic()
        found = await look
        ended = self._clock.monotonic()
        busy = self._is_busy()
        await self._clock.sleep((ended - began) * PAUSE_LOOKING + BREATH_S if busy else 0)
        self._not_looking_s += self._clock.monotonic() - ended
        return found

    def _is_busy(self) -> bool:
        """Whether messages come."""
        now, newest = self._clock.monotonic(), self._store.high_watermark
        if newest > self._newest[0]:
            self._newest = newest, now
        return now < self._newest[1] + QUIET_S

    async def trim(self, keeper: Keeper, wanted: ByHand) -> Sweep:
        """Remove by hand: what `keeper` gives the rule 0. Meanwhile `by_hand` tells how far it is.
        Raises StoreError."""
        async with self._lock:
            usual, self._keeper = self._keeper, keeper
            try:
                through = await keeper.look()
                before = Offset(min(wanted.before, through + 1))
                sweep = Sweep(0, RetentionRule(None), before, through, by_hand=wanted)
                self.by_hand = sweep
                await self._sweep(sweep)
            finally:
                self._keeper, self.by_hand = usual, None
            if not wanted.dry_run:
                await self._store.removing.advance()
            return sweep
