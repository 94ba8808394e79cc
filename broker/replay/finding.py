"""Finding: the offset that the start of a replay, or of a seek, means in a log."""

from __future__ import annotations

from collections.abc import Sequence

from broker.message import Offset
from broker.replay.spec import AtOffset, AtTime, Earliest, Last, Latest, Resume, Start
from broker.store import Store


async def begin_after(
    store: Store, start: Start, filters: Sequence[str], *, here: Offset, cursor: Offset
) -> Offset:
    """The offset after which it begins: at most `here`, which is `latest`. `cursor` is `resume`;
    `-N` counts messages that match any of `filters`. Raises StoreError."""
    match start:
        case Earliest():
            first = store.log_start
        case Latest():
            return here
        case Resume():
            return cursor
        case AtOffset(offset):
            first = offset
        case Last(count):
            first = await store.nth_last(filters, count)
        case AtTime(time_us):
            first = await store.offset_at(time_us)
    return Offset(min(max(first - 1, 0), here))
