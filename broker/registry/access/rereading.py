"""Rereading: reads again what other brokers that share the log have changed."""

from __future__ import annotations

from collections.abc import Callable

from broker.documents import D
from broker.store import Store


async def newest(store: Store, kind: type[D], changes: Callable[[], int]) -> list[D]:
    """All documents of a kind, as nobody here has changed them since: `changes` counts how often
    somebody has. What was read before such a change would undo it in memory. Raises StoreError."""
    while True:
        count = changes()
        documents = await store.scan(kind)
        if changes() == count:
            return documents
