"""Lanes: the read-only connections, and which of them a call goes to.

- Messages, topics and retained messages have a few connections, taken in turn. Each call there is
  a few ms: what takes longer is asked for in parts, so whoever asks for much and whoever asks for
  little take turns.
- Documents have a connection of their own: a CONNECT waits for no look at the messages.
- A call whose caller has gone before its turn does not run.
- What SQLite calls damaged may be a disk that cannot read: that is looked at before it is said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import cycle
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

from broker.errors import StoreCorrupt
from broker.message import Offset
from broker.store import Amount, Read, Stretch
from broker.store.sqlite.errors import store_error
from broker.store.sqlite.files import opening
from broker.store.sqlite.files.file import DatabaseFile
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.repair.damaged import Damage
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.searching.measuring import Measure
from broker.store.sqlite.thread import ConnectionThread

MESSAGE_READERS = 2

P = ParamSpec("P")
T = TypeVar("T")


class Lanes:
    def __init__(self, path: Path, damage: Damage) -> None:
        self._path = path
        self._damage = damage
        self._file: DatabaseFile
        self.readers: list[tuple[ConnectionThread, Reader]] = []
        """The one for documents first."""

    async def open(self, file: DatabaseFile) -> None:
        """Raises StoreError: then none is open."""
        self._file = file
        try:
            for _ in range(MESSAGE_READERS + 1):
                self.readers.append(await opening.open_reader(self._path, self._damage))
        except BaseException:
            await self.close()
            raise
        self._for_documents, *for_messages = self.readers
        self._for_messages = cycle(for_messages)

    async def close(self) -> None:
        while self.readers:
            thread, _ = self.readers.pop()
            await thread.close()

    async def messages(
        self, function: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Look at messages, topics or what is retained. Raises StoreError."""
        thread, reader = next(self._for_messages)
        async with self._reading():
            return await thread.run_if_wanted(function, reader, *args, **kwargs)

    async def documents(
        self, function: Callable[Concatenate[Reader, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Look at documents. Raises StoreError."""
        thread, reader = self._for_documents
        async with self._reading():
            return await thread.run_if_wanted(function, reader, *args, **kwargs)

    async def measure(
        self, stretches: Sequence[Stretch], start: Offset, end: Offset
    ) -> list[Amount]:
        """As `Store.measure`, of start..end; in parts. Raises StoreError."""
        measure = await self.messages(lambda _: Measure(stretches, start, end))
        while not measure.done:
            await self.messages(Reader.measure_part, measure)
        return measure.amounts

    async def confirmed(self, read: Read) -> Read:
        """Raises StoreUnavailable: it is the disk that cannot read, so nothing is known to be
        damaged. That is looked at once for each damaged block."""
        blocks = {part.start >> BLOCK_SHIFT for part in read.damaged}
        if not blocks <= self._damage.confirmed:
            unread = await asyncio.to_thread(self._file.cannot_be_read)
            if unread is not None:
                self._damage.forget(blocks)
                raise store_error(unread, self._path) from unread
            self._damage.confirmed |= blocks
        return read

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        try:
            yield
        except StoreCorrupt as error:
            raise await self._file.failure_behind(error) or error from error.__cause__
