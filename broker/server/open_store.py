"""The store that the settings ask for: SQLite, or a log that several brokers share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import NamedTuple

from broker import tasks
from broker.clients.services import Services
from broker.clock import Clock
from broker.config import DATABASE, SQLITE, Config
from broker.errors import ConfigError, StoreUnavailable
from broker.registry.brokers import Brokers
from broker.registry.elsewhere import Accounts, Elsewhere
from broker.registry.ownership import Alone, Ownership, Shared
from broker.store import Store
from broker.store.shared.access import Access
from broker.store.shared.address import parse
from broker.store.shared.cluster import ClusterStore
from broker.store.sqlite.store import SqliteStore

TELL_INTERVAL_S = 5.0
"""How often it is told how far the copy of a shared log has come."""
LEAVE_TIMEOUT_S = 0.4
"""A stop takes no longer for that. Others find out in any case."""

logger = logging.getLogger(__name__)


Forever = Callable[[], Coroutine[None, None, None]]


class Opened(NamedTuple):
    """`database`: the log itself, or the copy of the log that is `shared`."""

    store: Store
    database: SqliteStore
    shared: ClusterStore | None = None

    def ownership(self, clock: Clock) -> Ownership:
        return Alone(self.store) if self.shared is None else Shared(self.shared, clock)

    def with_others(self, services: Services) -> list[Forever]:
        """What is to run beside other brokers. Call it before the parts start, so that nothing
        changes elsewhere between what they read and what they are told."""
        if self.shared is None:
            return []
        groups, sessions, asking = services.groups, services.sessions, services.asking
        elsewhere = Elsewhere(
            *(self.shared, services.log, sessions, groups, asking.dedup),
            Accounts(services.users, services.permissions, services.quotas),
            services.clock,
        )
        brokers = Brokers(
            self.shared, services.clock, sessions, asking.delayed, groups, services.references
        )
        services.sys_tree.beside.append(brokers.values)
        return [brokers.watch_forever, brokers.trim_forever, elsewhere.read_accounts_forever]

    async def leave(self, clock: Clock) -> None:
        """Tell others that nothing more is stored here, and so when nobody does that any more."""
        if self.shared is None:
            return
        leaving = tasks.start(self.shared.leave(), _not_left)
        timer = clock.call_later(LEAVE_TIMEOUT_S, leaving.cancel)
        await asyncio.wait([leaving])
        timer.cancel()
        if leaving.cancelled():
            _not_left(StoreUnavailable("the shared log does not answer"))

    def status(self) -> dict[str, object]:
        """For people and monitoring."""
        found: dict[str, object] = {
            "sqlite_version": self.database.sqlite_version,
            "damaged_offsets": self.database.damaged_offsets,
        }
        if self.shared is not None:
            found["shared_log"] = self.shared.status()
        return found


async def open_store(config: Config, clock: Clock, *, accept_loss: bool) -> Opened:
    """Raises ConfigError, StoreError."""
    path = config.data_dir / DATABASE
    if config.store == SQLITE:
        database = SqliteStore(path, durability=config.durability, accept_loss=accept_loss)
        await database.open()
        return Opened(database, database)
    servers, name = parse(config.store)
    try:
        from broker.store.shared.jetstream import JetStreamLog
    except ImportError as error:
        raise ConfigError(
            "store", config.store, "needs more: pip install 'pubsub-broker[cluster]'"
        ) from error
    access = Access(config.store_credentials, config.store_ca, config.store_cert, config.store_key)
    log = JetStreamLog(servers, name, replicas_min=config.store_replicas_min, access=access)
    copy = SqliteStore(path, is_copy=True, accept_loss=accept_loss)
    shared = ClusterStore(log, copy, keep_bytes=config.store_keep_bytes)
    telling = tasks.start(_tell(shared, clock), _not_told)
    try:
        await shared.open()
    finally:
        telling.cancel()
        await asyncio.wait([telling])
    logger.info("broker %s has all of the shared log %s", shared.broker_id, name)
    return Opened(shared, copy, shared)


async def _tell(shared: ClusterStore, clock: Clock) -> None:
    while True:
        await clock.sleep(TELL_INTERVAL_S)
        if (progress := shared.progress) is not None:
            logger.info("the copy of the shared log has come to %d of %d records", *progress)


def _not_left(error: Exception) -> None:
    logger.warning("the other brokers have to find out that this one stops: %s", error)


def _not_told(error: Exception) -> None:
    logger.error("nobody is told how far the copy has come: %r", error)
