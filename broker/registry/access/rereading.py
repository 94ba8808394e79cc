"""Rereading: reads again what other brokers that share the log have changed."""

from __future__ import annotations

from collections.abc import Callable, Iterable

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


async def newest_of(
    store: Store, kind: type[D], names: Iterable[str], changes: Callable[[], int]
) -> dict[str, D | None]:
    """The same of those with these names, in the order of the names. None: there is none."""
    ordered = sorted(names)
    while True:
        count = changes()
        documents = {name: await store.get(kind, (name,)) for name in ordered}
        if changes() == count:
            return documents
