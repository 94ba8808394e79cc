"""Before: the place in the log before which messages are to be removed by hand."""

from __future__ import annotations

from collections.abc import Sequence

from broker.errors import ReplaySpecInvalid
from broker.message import Offset, WallUs
from broker.replay.spec import AtOffset, AtTime, Earliest, Last, Latest, Resume, parse
from broker.store import Store


async def first_kept(store: Store, spec: str, filters: Sequence[str], now_us: WallUs) -> Offset:
    """The offset before which everything is meant by `--before SPEC`. With -N the last N messages
    that match are behind it. Raises ReplaySpecInvalid: it is no single place; StoreError."""
    span = parse(spec, now_us)
    if span.end is not None:
        raise ReplaySpecInvalid(f"{spec} is a range: name the place before which messages may go")
    match span.start:
        case Earliest():
            return store.log_start
        case Latest():
            return Offset(store.high_watermark + 1)
        case Resume():
            raise ReplaySpecInvalid("resume is a subscriber's own place: there is none here")
        case AtOffset(offset):
            return offset
        case Last(count):
            return await store.nth_last([*filters] or None, count)
        case AtTime(time_us):
            return await store.offset_at(time_us)
