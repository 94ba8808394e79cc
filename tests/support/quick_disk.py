"""A disk that counts as quick, whatever the machine: which thread commits is known then."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from unittest import mock

from broker.documents import Operation, Place
from broker.message import Message
from broker.store.sqlite.in_loop import InLoop, is_small
from broker.store.sqlite.store import SqliteStore


def _suits(
    in_loop: InLoop, batch: Sequence[Message], state: Sequence[Operation], *, durable: bool
) -> bool:
    return is_small(batch, state)


class AtOnce(SqliteStore):
    """Appends in the loop what it can: with `quick_disk`, all that is small."""

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        self._require_open()
        if not self.append_now(
            batch, state, durable=durable, places=places, committed=lambda: None
        ):
            await super().append(batch, state, durable=durable, places=places)


@contextmanager
def quick_disk() -> Iterator[None]:
    """SqliteStore commits in the loop whatever is small enough."""
    with mock.patch.object(InLoop, "suits", _suits):
        yield
