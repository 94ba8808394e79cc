"""At rest: what an operator does to the subscribers and queues of a log that no broker runs on.

The same code does it as in a broker, with nobody connected: the log is opened and closed as a
broker would, which is a run of it like any other. Who only looks writes nothing.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from broker import tasks
from broker.clock import Alarm, Clock, SystemClock
from broker.config import DATABASE, Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import Document, SessionDocument, UserDocument
from broker.documents.quotas import QuotaDocument
from broker.log.log import Log
from broker.message import Offset
from broker.registry.access.accounts import Account, Accounts, account_of
from broker.registry.access.acl import Acl
from broker.registry.access.permissions import Permissions
from broker.registry.access.quotas import Quotas
from broker.registry.access.users import Users
from broker.registry.administration import Administration
from broker.registry.groups.groups import Groups
from broker.registry.groups.queues import Queues
from broker.registry.overview import Overview, Source
from broker.registry.sessions import Sessions
from broker.registry.wills import Wills
from broker.store import Amount, Stretch
from broker.store.directory import lock_data_dir
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.searching.measuring import Measure
from broker.store.sqlite.store import SqliteStore
from broker.store.sqlite.tables import SELECTED_AT_ONCE_MAX, key_of


@asynccontextmanager
async def administration(data_dir: Path) -> AsyncIterator[Administration]:
    """Raises ConfigError: a broker has the data directory; StoreError."""
    async with _registry(data_dir) as (administration, _):
        yield administration


@asynccontextmanager
async def queues(data_dir: Path) -> AsyncIterator[Queues]:
    """As `administration`, of groups and dead letters."""
    async with _registry(data_dir) as (_, queues):
        yield queues


@asynccontextmanager
async def _registry(data_dir: Path) -> AsyncIterator[tuple[Administration, Queues]]:
    config, clock, counters = Config(data_dir=data_dir), SystemClock(), Counters()
    async with _log(config, clock, counters) as log:
        delivery = Delivery(log, counters, config, clock)
        moved = Alarm(clock).deadline_moved
        wills = Wills(log, counters, clock, moved, restart_grace_s=0)
        sessions = Sessions(log, delivery, wills, config, moved)
        groups = Groups(log, delivery, sessions, counters, config, clock)
        await groups.start()
        await sessions.start(clock.now())
        await wills.start()
        administration = Administration(log, delivery, sessions, groups, counters, clock)
        yield administration, Queues(log, groups, clock)
        await wills.publish_due()


@asynccontextmanager
async def accounts(data_dir: Path) -> AsyncIterator[Accounts]:
    """As `administration`, of users. The directory and its log are made if there are none."""
    clock = SystemClock()
    async with _log(Config(data_dir=data_dir), clock, Counters()) as log:
        users = Users(log)
        await users.start()
        yield Accounts(users, clock)


@asynccontextmanager
async def acl(data_dir: Path) -> AsyncIterator[Acl]:
    """As `accounts`, of rules."""
    clock = SystemClock()
    async with _log(Config(data_dir=data_dir), clock, Counters()) as log:
        users = Users(log)
        permissions = Permissions(log, users)
        await users.start()
        await permissions.start()
        yield Acl(permissions, users)


@asynccontextmanager
async def quotas(data_dir: Path) -> AsyncIterator[Quotas]:
    """As `accounts`, of quotas."""
    async with _log(Config(data_dir=data_dir), SystemClock(), Counters()) as log:
        quotas = Quotas(log, Users(log), lambda: None)
        await quotas.start()
        yield quotas


@asynccontextmanager
async def _log(config: Config, clock: Clock, counters: Counters) -> AsyncIterator[Log]:
    with lock_data_dir(config.data_dir):
        store = SqliteStore(config.data_dir / DATABASE)
        await store.open()
        try:
            log = Log(store, counters, clock, append_bytes_max=config.append_bytes_max)
            await log.start()
            committing = tasks.start(log.commit_forever(), _ended)
            try:
                yield log
                await log.end()
            finally:
                committing.cancel()
                await asyncio.wait([committing])
        finally:
            await store.close()


def _ended(error: Exception) -> None:
    """Whoever waits for the log is told."""


def accounts_of(connection: sqlite3.Connection) -> list[Account]:
    """Of the log that is open here, to be read only."""
    found = Reader(connection).documents([UserDocument], (), None)
    return [account_of(user) for user in found if isinstance(user, UserDocument)]


def quotas_of(connection: sqlite3.Connection) -> list[QuotaDocument]:
    """Of the log that is open here, to be read only."""
    found = Reader(connection).documents([QuotaDocument], (), None)
    return [quota for quota in found if isinstance(quota, QuotaDocument)]


def overview(connection: sqlite3.Connection) -> Overview:
    """Of the log that is open here, to be read only."""
    return Overview(_Reading(connection))


class _Reading(Source):
    """A log at rest: nothing comes, and nobody waits, so nothing is awaited either."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._reader = Reader(connection)
        self._log_start, self._high_watermark = connection.execute(
            "SELECT start, (SELECT ifnull(max(offset), 0) FROM messages) FROM log"
        ).fetchone()

    @property
    def high_watermark(self) -> Offset:
        return Offset(self._high_watermark)

    async def scan(self, kind: type[SessionDocument]) -> list[SessionDocument]:
        documents: list[Any] = await self.scan_together([kind], ())
        return documents

    async def scan_together(
        self, kinds: Sequence[type[Document]], key: tuple[str, ...]
    ) -> list[Document]:
        documents: list[Document] = []
        after = None
        while True:
            part = self._reader.documents(kinds, key, after)
            documents += part
            if len(part) < SELECTED_AT_ONCE_MAX:
                return documents
            kinds = kinds[kinds.index(type(part[-1])) :]
            after = key_of(part[-1])

    async def measure(self, stretches: Sequence[Stretch], through: Offset) -> list[Amount]:
        measure = Measure(stretches, self._log_start, min(through, self._high_watermark))
        while not measure.done:
            self._reader.measure_part(measure)
        return measure.amounts

    async def amount(self, offsets: Sequence[Offset]) -> Amount:
        return self._reader.amount(offsets)
