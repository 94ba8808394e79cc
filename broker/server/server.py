"""Server: builds the broker from a Config; start, drain, stop.

What runs: one task commits (log), one routes (delivery), one does what is due (alarm), and a reader
for each session that is behind. If the log fails the broker stops, and acknowledges nothing more.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from dataclasses import asdict, replace

from broker import __version__, tasks
from broker.clients.asking import asking_of
from broker.clients.services import Services
from broker.clients.subscriptions import Subscriptions
from broker.clock import Alarm, Clock, SystemClock
from broker.config import ADMIN_SOCKET, Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.errors import StoreError, StoreUnavailable
from broker.log.log import Log
from broker.mqtt.authentication import Methods
from broker.mqtt.limits import Limits
from broker.net.entrance import Connections
from broker.net.listening import Listening
from broker.net.moving import Moving
from broker.net.open_files import connections_possible
from broker.observe.sys_tree import SysTree
from broker.plural import counted
from broker.registry.access.logins import Logins
from broker.registry.access.permissions import Permissions
from broker.registry.access.quotas import Quotas
from broker.registry.access.users import Users, expect_users, renewal_of
from broker.registry.groups.groups import Groups
from broker.registry.groups.leased_again import LeasedAgain
from broker.registry.groups.queues import Queues
from broker.registry.references import References
from broker.registry.sessions import Sessions
from broker.registry.upkeep.care import Care
from broker.registry.wills import Wills
from broker.server.open_store import open_store
from broker.server.reloading import Reloading, Source
from broker.store.directory import lock_data_dir
from broker.web import acl, draining, queues, reload, subscribers, trimming
from broker.web import quotas as web_quotas
from broker.web import users as web_users
from broker.web.admin import AdminServer, create_app
from broker.web.guard import Guard

logger = logging.getLogger(__name__)
STOP_TIMEOUT_S = 5.0
"""What a stop may take beside `drain_timeout_s`. Of that ..."""
ADMIN_TIMEOUT_S = 1.5
"""... for answers that administration is still due ..."""
CLOSE_TIMEOUT_S = 3.0
"""... and for the store, whose threads are then left to a disk that does not answer."""


class Server:
    """Call `start`, then `wait_stopped`, then `stop`; once each.
    `methods` of enhanced authentication are for a program that has the broker in its own process: a
    client that names one of them in CONNECT has to pass it. A client that names none is let in.
    `clock` stands in for the system's: no other time is read then, and no other timer set.
    `accept_loss`: start also without what an unclean stop left damaged. `source`: of `config`, if
    that can be read again.
    """

    def __init__(
        self,
        config: Config,
        *,
        methods: Methods | None = None,
        clock: Clock | None = None,
        accept_loss: bool = False,
        source: Source | None = None,
    ) -> None:
        possible = connections_possible(config.connections_max)
        self.config = replace(config, connections_max=possible)
        self.reloading = Reloading(source or Source(lambda: config), config, self.config)
        self.counters = Counters()
        self._methods = methods or {}
        self._given_clock = clock
        self._accept_loss = accept_loss
        self._tasks: set[asyncio.Task[None]] = set()
        self._stop_requested = asyncio.Event()
        self._failure: BaseException | None = None

    async def start(self) -> None:
        """Open the log and accept connections. Raises ConfigError, StoreError."""
        config = self.config
        clock = self._given_clock or SystemClock()
        self._started_at = clock.monotonic()
        self._alarm = Alarm(clock)
        self._connections = Connections(clock, unfinished_bytes_max=config.unfinished_bytes_max)
        self._lock = lock_data_dir(config.data_dir)
        try:
            self._opened = await open_store(config, clock, accept_loss=self._accept_loss)
            try:
                await self._start_on_store(clock)
            except BaseException:
                self._alarm.stop()
                await self._cancel_tasks()
                await self._opened.store.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    async def _start_on_store(self, clock: Clock) -> None:
        config, alarm = self.config, self._alarm
        self._log = Log(
            *(self._opened.store, self.counters, clock),
            append_bytes_max=config.append_bytes_max,
            lazy_commit_s=config.lazy_commit_ms / 1000,
        )
        delivery = Delivery(self._log, self.counters, config, clock)
        grace_s, moved = config.will_restart_grace_s, alarm.deadline_moved
        wills = Wills(self._log, self.counters, clock, moved, restart_grace_s=grace_s)
        ownership = self._opened.ownership(clock)
        sessions = Sessions(self._log, delivery, wills, config, moved, ownership)
        asking = asking_of(config, self._log, clock, self.counters, moved)
        groups = Groups(self._log, delivery, sessions, self.counters, config, clock, moved)
        self._care = care = Care(config, self._log, delivery, self.counters, clock)
        sys_tree = SysTree(self._log, delivery, sessions, groups, self.counters, clock.monotonic())
        self._services = services = Services(
            config,
            clock,
            self._log,
            delivery,
            sessions,
            groups,
            Subscriptions(self._log, delivery, groups, sys_tree, config, clock),
            wills,
            asking,
            sys_tree,
            self.counters,
            Limits.of(config),
            self._methods,
            users := Users(self._log),
            permissions := Permissions(self._log, users),
            logins := Logins(users, clock, config, moved),
            quotas := Quotas(self._log, users, moved),
            references := References(config),
        )
        alarm.watch(wills, sessions.expiry, groups.times, asking.delayed, asking.dedup)
        alarm.watch(logins, quotas.slowing)
        sessions.kept.full = references.full
        sessions.kept.quota_of = services.subscriptions.allowance.quota_of = quotas.of
        wills.may_publish = asking.delayed.may_publish = permissions.may_publish
        wills.retained = asking.delayed.retained = quotas.retained
        sys_tree.more += [care.retaining.values, logins.values]
        beside_others = self._opened.with_others(services)
        for part in (self._log, users, quotas, groups):
            await part.start()
        await permissions.start(delivery, LeasedAgain(groups))
        await expect_users(users, config)
        await sessions.start(clock.now())
        await wills.start(ownership)
        await asking.start()
        dead = groups.dead_letters
        for forever in (
            *(self._log.commit_forever(), self._log.time.note_forever(self._log.append)),
            *(delivery.deliver_forever(), alarm.expire_forever(), wills.publish_forever()),
            *(asking.delayed.publish_forever(), dead.tell_forever(), dead.forget_old_forever()),
            *[run() for run in beside_others],
        ):
            self._spawn(forever)
        care.begin(self._spawn)
        if config.sys_interval_s:
            self._spawn(sys_tree.publish_forever(clock, config.sys_interval_s))
        more = subscribers.routes_of(self._log, delivery, sessions, groups, self.counters, clock)
        more += queues.routes(Queues(self._log, groups, clock), config.data_dir)
        more += web_quotas.routes(quotas) + reload.routes(self.reloading.reload)
        more += [*acl.routes_of(permissions, users), *web_users.routes_of(users, clock)]
        more += draining.routes(self.drain) + trimming.routes(care.retaining.trims)
        app = create_app(self.status, self.request_stop, more)
        guard = Guard(app, users, logins, permissions, clock)
        self._admin = AdminServer(app, config.data_dir / ADMIN_SOCKET, guard)
        self._listening = Listening(services, self._connections, self._admin.welcome)
        self._moving = Moving(services, self._connections)
        self.reloading.of(self._listening, self._connections)
        self.reloading.also += [renewal_of(users), logins.renewal, care.renewal, asking.renewal]
        try:
            await self._admin.start()
            # Last, so that a client that can connect finds everything else ready.
            await self._listening.start(config.every_listener)
        except BaseException:
            await self._admin.stop()
            raise
        self._spawn(self.reloading.watch_forever(clock))
        self._spawn(self._listening.doubt_forever())
        wills.listening(sessions.has_durable, clock.now())

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens: see `Listening`."""
        return self._listening.address

    def request_stop(self) -> None:
        """Let `wait_stopped` return."""
        self._stop_requested.set()

    def drain(self, *, for_good: bool) -> None:
        """Let all clients go on at other brokers, for good or not, and then `wait_stopped` return.
        Raises CommandRefused: there is none."""
        self._moving.require_others()
        self._moving.ends_by = asyncio.get_running_loop().time() + self.config.drain_timeout_s
        self._spawn(self._move_and_stop(for_good=for_good))

    async def _move_and_stop(self, *, for_good: bool) -> None:
        self._listening.stop()
        try:
            async with asyncio.timeout(self.config.drain_timeout_s / 2):  # The rest is for `stop`.
                await self._moving.move(for_good=for_good)
        except TimeoutError:
            logger.warning("not all clients were told where to go on: the log takes too long")
        self.request_stop()

    def reload(self) -> None:
        """Read settings and certificates again; the diagnostics tell what came of it."""
        self._spawn(self.reloading.try_reload())

    async def wait_stopped(self) -> None:
        """Return when somebody asked to stop, or the log failed."""
        await self._stop_requested.wait()

    async def stop(self) -> None:
        """Acknowledge what was received, keep every session's state, close.

        Ends within `drain_timeout_s` + 5 s, whatever the disk does; of `drain`, if that was first.
        Raises the error with which the log failed, if it did; StoreUnavailable: the disk does not
        answer, or takes nothing.
        """
        closed = counted(len(self._connections), "connection is", "connections are")
        logger.info("stopping: %s closed", closed)
        self._listening.stop()
        for connection in self._connections:
            connection.pause_reading("stop")
        ends_by = asyncio.get_running_loop().time() + self.config.drain_timeout_s
        try:
            async with asyncio.timeout_at(min(ends_by, self._moving.ends_by)):
                await self._drain()
        except TimeoutError:
            most_s, log = self.config.drain_timeout_s, self._log
            self._failed(log.outage.not_taken(log.waiting(), most_s))
        except Exception as error:
            self._failed(error)
        await self._stop_tasks()
        if self._failure is None:
            await self._opened.leave(self._services.clock)
        try:
            async with asyncio.timeout(CLOSE_TIMEOUT_S):
                await self._opened.store.close()
        except TimeoutError:
            raise StoreUnavailable(
                f"the disk under {self.config.data_dir} does not answer: the log was not closed"
            ) from self._failure
        except Exception as error:
            self._failed(error)
        finally:
            self._lock.close()
        if self._failure is not None:
            raise self._failure

    async def _drain(self) -> None:
        """Let the log take what was received, take leave of the clients, and let the log take what
        that has changed."""
        try:
            if self._failure is None:
                await self._log.flushed()
        finally:
            self._alarm.stop()
            self._services.sessions.wills.broker_stops()
            self._services.sessions.absent_groups.stopping = True
            goodbye = self._moving.goodbye(self._failure)
            for connection in list(self._connections):
                connection.shut_down(goodbye)
        if self._failure is None:
            await self._services.sessions.wills.publish_due()
            await self._log.end()

    async def _stop_tasks(self) -> None:
        try:
            async with asyncio.timeout(ADMIN_TIMEOUT_S):
                await self._admin.stop()
        except TimeoutError:
            logger.warning("administration had no time to answer")
        self._services.logins.stop()
        await self._cancel_tasks()

    def status(self) -> dict[str, object]:
        """A snapshot for people and monitoring."""
        host, port = self.address
        return {
            "version": __version__,
            "pid": os.getpid(),
            "address": f"{host}:{port}" if host else "not listening yet",
            **self._listening.status(),
            "uptime_s": round(self._services.clock.monotonic() - self._started_at, 1),
            "data_dir": str(self.config.data_dir.absolute()),
            "durability": self.config.durability,
            "high_watermark": self._log.high_watermark,
            "waiting": asdict(self._log.waiting()),
            "log_start": self._opened.store.log_start,
            **self._opened.status(),
            **self._care.status(),
            **self._services.logins.status(),
            "connections": len(self._connections),
            "connections_max": self.config.connections_max,
            "sessions_connected": self._services.sessions.connected_count,
            "sessions_durable": self._services.sessions.kept.client_count,
            "groups": self._services.sessions.kept.group_count,
            "delayed_messages": len(self._services.asking.delayed),
            "delayed_bytes": self._services.asking.delayed.bytes,
            "dedup_keys": len(self._services.asking.dedup),
            **self._services.sys_tree.rates(),
            **self.counters.told(),
        }

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = tasks.start(coroutine, self._task_failed)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _task_failed(self, error: Exception) -> None:
        """Without one of its own tasks the broker cannot go on."""
        unexpected = None if isinstance(error, StoreError) else error
        logger.critical("the broker stops: %s", error, exc_info=unexpected)
        self._failed(error)
        self.request_stop()

    def _failed(self, error: BaseException) -> None:
        if self._failure is None:
            self._failure = error

    async def _cancel_tasks(self) -> None:
        for task in (ending := [*self._tasks]):
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
