"""Removing: what a store does for retention, beside the rest of its contract.

- **S11** `remove` removes messages of one segment, a part of an order at a time, each part whole or
  not at all. A message that is held (retained, or pointed at by something else) stays. What is
  removed is missing to nobody, unless the order says that it was unread: then `Store.read` names it
  (`Read.removed`), as far as its topic matches, until `forget_unread`. Offsets are not given again.
- `advance` moves the log start over what is gone and over what is only held.

Topics have numbers here, for as long as one of their messages is there. A segment is what is looked
at at once: 1024 offsets.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

from broker.message import Offset

OVERHEAD_BYTES = 64
"""What a message takes in the log beside payload and properties, about. Wherever retention counts
bytes this is in them."""

SEGMENT = 1024
"""Offsets of a segment; the first is a multiple of it."""
ROWS_AT_ONCE = 2048
"""Topics of segments that one look returns, about: 3 ms of Python, which others wait for."""
PART_BYTES_MAX = 4 << 20
"""Payload that one part of an order removes: 5 ms, as each of its pages is looked at."""


class Amount(NamedTuple):
    messages: int
    bytes: int


ByTopic = dict[int, Amount]
"""By the number of the topic."""


@dataclass(slots=True)
class Segment:
    """The messages first..last, by topic. `newest_at_us`: the latest time of publication, by the
    wall clock; 0: not known."""

    first: Offset
    last: Offset
    topics: ByTopic
    newest_at_us: int = 0


@dataclass(slots=True)
class Cut:
    """What may go of one topic: of its messages in the segment, the oldest `most`; and of those
    what lies below `before`, whatever else. From `unread_from` on somebody still wants it."""

    before: Offset
    unread_from: Offset
    most: int = SEGMENT


@dataclass(slots=True)
class Order:
    """What to remove of a segment. What lies above the `before` of its topic goes only while there
    is too much: `over_messages` or `over_bytes`. What is unread goes only with `unread`, and only
    while there are too many bytes, or below `before` with `unread_below`. `held` never goes. What
    stays for that is one of `over_messages` all the same: no newer message goes in its place."""

    first: Offset
    last: Offset
    cuts: Mapping[int, Cut]
    over_messages: int = 0
    over_bytes: int = 0
    unread: bool = False
    unread_below: bool = False
    held: Collection[Offset] = ()


@dataclass(slots=True)
class Removed:
    """What one part of an order removed. `done`: there is no more to it.

    `left`: messages that stay only because they are unread or in `held`, when it is done.
    """

    topics: ByTopic = field(default_factory=dict)
    unread: list[Offset] = field(default_factory=list)
    left: int = 0
    done: bool = True
    below: int = 0
    """Messages below the `before` of their topic."""
    took_s: float = 0.0
    """How long a commit had to wait for it, if one did."""

    @property
    def amount(self) -> Amount:
        counts = self.topics.values()
        return Amount(sum([each.messages for each in counts]), sum([each.bytes for each in counts]))


class Row(NamedTuple):
    """A message of the segment. `held`: by the store."""

    offset: Offset
    topic_id: int
    bytes: int
    held: bool


class Owed(NamedTuple):
    """A subscription of a durable session: what matches `filter`, from the offset `start` on, is
    not acknowledged. `lists`: its session lists messages that are in flight."""

    client_id: str
    filter: str
    start: Offset
    lists: bool


class Removing(Protocol):
    """See the module. Every call may raise StoreError."""

    @property
    def keeps_all(self) -> bool:
        """Whether the log was there before there was retention."""
        ...

    @property
    def has_unread(self) -> bool:
        """Whether something was removed unread, and there may still be somebody to be told."""
        ...

    async def segments(self, start: Offset) -> list[Segment]:
        """The next segments that hold messages, from that of `start` on, in their order; none:
        there are no more. The messages below the log start do not count."""
        ...

    async def counted(self, start: Offset, end: Offset) -> tuple[ByTopic, Offset]:
        """How much there is of each topic in the next segments, from that of `start` on and before
        that of `end`; and where to go on, if that is below `end`."""
        ...

    async def topic_names(self, topic_ids: Collection[int]) -> dict[int, str]: ...

    async def remove(self, order: Order, rows_max: int, *, dry_run: bool = False) -> Removed:
        """A part of the order, at most `rows_max` messages. Give the order again, brought up to
        date (`updated`), until it is `done`. `dry_run`: say it, and remove nothing.

        Raises StoreCorrupt: the segment is damaged, and stays.
        """
        ...

    async def advance(self) -> None:
        """Move the log start up to the first message that is not only held."""
        ...

    async def remove_released(self) -> int:
        """Remove messages below the log start that nothing holds any more; how many."""
        ...

    async def forget_unread(self, before: Offset) -> None:
        """Nobody will read below this any more."""
        ...

    async def forget_names(self) -> int:
        """Forget topics and publishers without messages; how many."""
        ...

    async def keep_spare(self) -> None:
        """Take up some room on the disk, to be used for removing where it is full."""
        ...

    async def free_bytes(self) -> int:
        """What is free in the store's own files, for messages that come."""
        ...

    async def owed(self, after: tuple[str, str]) -> tuple[list[Owed], tuple[str, str] | None]:
        """A part of the subscriptions of durable sessions, those behind the client and filter
        `after`, and the last of them; None: there are no more."""
        ...


@dataclass(slots=True)
class Picked:
    """Rows that a part of an order takes, and those of them that are unread."""

    rows: list[Row] = field(default_factory=list)
    unread: set[int] = field(default_factory=set)
    left: int = 0
    done: bool = True
    below: int = 0


def pick(
    rows: Iterable[Row], order: Order, rows_max: int, bytes_max: int = PART_BYTES_MAX
) -> Picked:
    """Which of the segment's messages, in their order, the next part takes."""
    picked = Picked()
    seen: Counter[int] = Counter()
    over_messages, over_bytes = order.over_messages, order.over_bytes
    size = 0
    for row in rows:
        cut = order.cuts.get(row.topic_id)
        if cut is None:
            continue
        seen[row.topic_id] += 1
        if row.held or seen[row.topic_id] > cut.most:
            continue
        below = row.offset < cut.before
        if not (below or over_messages > 0 or over_bytes > 0):
            continue
        unread = row.offset >= cut.unread_from
        may_go = (order.unread and over_bytes > 0) or (order.unread_below and below)
        if row.offset in order.held or (unread and not may_go):
            picked.left += 1
            over_messages -= 1
            continue
        if len(picked.rows) >= rows_max or (picked.rows and size + row.bytes > bytes_max):
            picked.done = False
            break
        size += row.bytes
        over_messages -= 1
        over_bytes -= row.bytes
        picked.rows.append(row)
        picked.below += below
        if unread:
            picked.unread.add(row.offset)
    return picked


def part_bytes(dry_run: bool) -> int:
    """How many bytes a part may take."""
    return sys.maxsize if dry_run else PART_BYTES_MAX


def amounts(rows: Sequence[Row]) -> ByTopic:
    found: ByTopic = {}
    for row in rows:
        messages, size = found.get(row.topic_id, (0, 0))
        found[row.topic_id] = Amount(messages + 1, size + row.bytes)
    return found


def updated(order: Order, removed: Removed) -> Order:
    """The order after this part of it."""
    cuts = {
        topic_id: Cut(cut.before, cut.unread_from, cut.most - removed.topics[topic_id].messages)
        if topic_id in removed.topics
        else cut
        for topic_id, cut in order.cuts.items()
    }
    amount = removed.amount
    return Order(
        order.first,
        order.last,
        cuts,
        order.over_messages - amount.messages,
        order.over_bytes - amount.bytes,
        order.unread,
        order.unread_below,
        order.held,
    )


def as_ranges(offsets: Iterable[int]) -> list[range]:
    """Rising offsets as ranges."""
    ranges: list[range] = []
    for offset in offsets:
        if ranges and offset == ranges[-1].stop:
            ranges[-1] = range(ranges[-1].start, offset + 1)
        else:
            ranges.append(range(offset, offset + 1))
    return ranges
