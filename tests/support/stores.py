"""Short ways to write messages into a store, and to read all that it has."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from broker.message import Message, Offset
from broker.store import Skipped, Store
from tests.support.patience import PATIENCE_S

END = Offset(1 << 62)
"""Above every offset."""


def payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]


async def read_all(store: Store, filters: Sequence[str] | None = None) -> list[Message]:
    """Every message there is, as a reader that resumes would get them."""
    found: list[Message] = []
    position = Offset(1)
    while position <= store.high_watermark:
        read = await store.read(position, store.high_watermark, filters, limit=700)
        assert read.next > position or position < store.log_start
        found += read.messages
        position = read.next
    return found


async def retained(store: Store, filters: Sequence[str]) -> list[Message]:
    return (await store.fetch(await store.retained(filters))).messages


async def tail_until(store: Store, start: int, last: int) -> list[Message | Skipped]:
    """What `tail` yields from `start` on, flat, until it came to offset `last`."""
    found: list[Message | Skipped] = []
    async with asyncio.timeout(PATIENCE_S):
        async for batch in store.tail(Offset(start)):
            if isinstance(batch, Skipped):
                found.append(batch)
                reached = batch.last
            else:
                found += batch
                reached = batch[-1].offset
            if reached >= last:
                return found
    return found
