"""Server: builds the broker from a Config; start, drain, stop.

What runs: one task commits (log), one routes (delivery), one does what is due (alarm), and a reader
for each session that is behind. If the log fails the broker stops, and acknowledges nothing more.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import IO

from broker import __version__
from broker.clients.services import Services
from broker.clients.subscriptions import Subscriptions
from broker.clock import Alarm, Clock, SystemClock
from broker.config import ADMIN_SOCKET, DATABASE, LOCK, Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.errors import ConfigError, StoreError
from broker.log.log import Log
from broker.mqtt.authentication import Methods
from broker.mqtt.limits import Limits
from broker.net.tcp import Connections, connections_possible, listen, listen_unix
from broker.observe.sys_tree import SysTree
from broker.registry.groups import Groups
from broker.registry.sessions import Sessions
from broker.registry.wills import Wills
from broker.store.sqlite.schema import sync_directory
from broker.store.sqlite.store import SqliteStore
from broker.web.admin import AdminServer, create_app

logger = logging.getLogger(__name__)

SWITCH_INTERVAL_S = 0.0005
"""How long the loop keeps the interpreter while the store's thread wants it. With Python's 5 ms a
busy loop holds up a commit that is through by as much; `make bench`: 5 % more throughput."""
GC_THRESHOLDS = (50_000, 20, 20)
"""After this many new objects the cycle collector runs. Messages make no cycles. With Python's 700
it ran several times a batch; `make bench`, qos0: 10 % less CPU."""


class Server:
    """Call `start`, then `wait_stopped`, then `stop`; once each.

    `methods` of enhanced authentication are for a program that has the broker in its own process: a
    client that names one of them in CONNECT has to pass it. A client that names none is let in.
    `clock` stands in for the system's: no other time is read then, and no other timer set.
    `accept_loss`: start also without what an unclean stop left damaged.
    """

    def __init__(
        self,
        config: Config,
        *,
        methods: Methods | None = None,
        clock: Clock | None = None,
        accept_loss: bool = False,
    ) -> None:
        possible = connections_possible(config.connections_max)
        self.config = replace(config, connections_max=possible)
        self.counters = Counters()
        self._methods = methods or {}
        self._given_clock = clock
        self._accept_loss = accept_loss
        self._connections = Connections()
        self._listener: asyncio.Server | None = None
        self._unix_listener: asyncio.Server | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._stop_requested = asyncio.Event()
        self._failure: BaseException | None = None

    async def start(self) -> None:
        """Open the log and accept connections. Raises ConfigError, StoreError."""
        config = self.config
        self._clock = self._given_clock or SystemClock()
        self._started_at = self._clock.monotonic()
        self._alarm = Alarm(self._clock)
        self._lock = _lock_data_dir(config.data_dir)
        try:
            self._store = SqliteStore(
                config.data_dir / DATABASE,
                durability=config.durability,
                accept_loss=self._accept_loss,
            )
            await self._store.open()
            try:
                await self._start_on_store()
            except BaseException:
                self._alarm.stop()
                await self._cancel_tasks()
                await self._store.close()
                raise
        except BaseException:
            self._lock.close()
            raise

    async def _start_on_store(self) -> None:
        config, clock, alarm = self.config, self._clock, self._alarm
        self._log = Log(self._store, self.counters, clock, append_bytes_max=config.append_bytes_max)
        self._delivery = Delivery(self._log, self.counters, config, clock)
        wills = Wills(self._log, alarm.deadline_moved)
        self._sessions = Sessions(self._log, self._delivery, wills, config, alarm.deadline_moved)
        alarm.watch(wills, self._sessions)
        groups = Groups(self._log, self._delivery, self._sessions, self.counters, config, clock)
        sys_tree = SysTree(
            self._log, self._delivery, self._sessions, groups, self.counters, clock.monotonic()
        )
        services = Services(
            config,
            clock,
            self._log,
            self._delivery,
            self._sessions,
            groups,
            Subscriptions(self._log, self._delivery, groups, sys_tree, config, clock),
            wills,
            sys_tree,
            self.counters,
            Limits.of(config),
            self._methods,
        )
        await self._sessions.start(clock.now())
        await wills.start(self._sessions.has_durable, clock.now())
        self._spawn(self._log.commit_forever())
        self._spawn(self._delivery.deliver_forever())
        self._spawn(alarm.expire_forever())
        if config.sys_interval_s:
            self._spawn(sys_tree.publish_forever(clock, config.sys_interval_s))
        app = create_app(self.status, self.request_stop)
        self._admin = AdminServer(app, config.data_dir / ADMIN_SOCKET)
        try:
            if config.unix_socket is not None:
                self._unix_listener = await listen_unix(
                    services, self._connections, config.unix_socket
                )
            await self._admin.start()
            # Last, so that a client that can connect finds everything else ready.
            self._listener = await listen(services, self._connections, config)
        except BaseException:
            await self._stop_listening()
            raise

    async def _stop_listening(self) -> None:
        if self._listener is not None:
            self._listener.close()
        if self._unix_listener is not None and self.config.unix_socket is not None:
            self._unix_listener.close()
            self.config.unix_socket.unlink(missing_ok=True)
        await self._admin.stop()

    @property
    def address(self) -> tuple[str, int]:
        """Where it listens; the port is the real one also if the Config said 0."""
        assert self._listener is not None
        host, port = self._listener.sockets[0].getsockname()[:2]
        return host, port

    def request_stop(self) -> None:
        """Let `wait_stopped` return."""
        self._stop_requested.set()

    async def wait_stopped(self) -> None:
        """Return when somebody asked to stop, or the log failed."""
        await self._stop_requested.wait()

    async def stop(self) -> None:
        """Acknowledge what was received, keep every session's state, close.

        Raises the StoreError with which the log failed, if it did.
        """
        await self._stop_listening()
        for connection in self._connections:
            connection.pause_reading()
        try:
            if self._failure is None:
                async with asyncio.timeout(self.config.drain_timeout_s):
                    await self._log.flushed()
            self._alarm.stop()
            for connection in list(self._connections):
                if connection.client is None:
                    connection.close()
                else:
                    connection.client.shut_down()
            if self._failure is None:
                async with asyncio.timeout(self.config.drain_timeout_s):
                    await self._log.flushed()
        except TimeoutError:
            logger.error("the log did not take everything in %s s", self.config.drain_timeout_s)
        finally:
            await self._cancel_tasks()
            await self._store.close()
            self._lock.close()
        if self._failure is not None:
            raise self._failure

    def status(self) -> dict[str, object]:
        """A snapshot for people and monitoring."""
        host, port = self.address
        counters = self.counters
        return {
            "version": __version__,
            "pid": os.getpid(),
            "address": f"{host}:{port}",
            "uptime_s": round(self._clock.monotonic() - self._started_at, 1),
            "data_dir": str(self.config.data_dir.absolute()),
            "durability": self.config.durability,
            "sqlite_version": self._store.sqlite_version,
            "high_watermark": self._log.high_watermark,
            "log_start": self._store.log_start,
            "connections": len(self._connections),
            "connections_max": self.config.connections_max,
            "sessions_connected": self._sessions.connected_count,
            "sessions_durable": self._sessions.durable_count,
            "messages_in": counters.messages_in,
            "messages_out": counters.messages_out,
            "redeliveries": counters.redeliveries,
            "commits": counters.commits,
            "append_failures": counters.append_failures,
            "protocol_errors": counters.protocol_errors,
            "line_errors_left_out": counters.line_errors_left_out,
            "refused_connects": counters.refused_connects,
            "dropped": dict(counters.dropped),
        }

    def _spawn(self, coroutine: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(coroutine)
        task.add_done_callback(self._task_done)
        self._tasks.append(task)

    def _task_done(self, task: asyncio.Task[None]) -> None:
        """One of the broker's own tasks ended. Unless we are stopping, it should not have."""
        if task.cancelled() or (error := task.exception()) is None:
            return
        logger.critical("the broker stops: %s", error, exc_info=_unexpected(error))
        if self._failure is None:
            self._failure = error
        self.request_stop()

    async def _cancel_tasks(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _unexpected(error: BaseException) -> BaseException | None:
    return None if isinstance(error, StoreError) else error


def _lock_data_dir(path: Path) -> IO[str]:
    """Make the directory ours while the file is open. Raises ConfigError."""
    try:
        _make_directory(path)
        lock = (path / LOCK).open("a+")
    except OSError as error:
        raise ConfigError("data_dir", str(path), f"cannot be written: {error.strerror}") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        lock.seek(0)
        pid = lock.read().strip() or "unknown"
        lock.close()
        raise ConfigError(
            "data_dir",
            str(path),
            f"is in use by another broker (pid {pid}); stop it with `pubsub broker stop`"
            " or choose another with --data-dir",
        ) from error
    lock.truncate(0)
    lock.write(f"{os.getpid()}\n")
    lock.flush()
    return lock


def _make_directory(path: Path) -> None:
    """Make it, and what is above it, so that it outlives a power cut."""
    if path.is_dir():
        return
    if not path.parent.is_dir():
        _make_directory(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


def run(
    config: Config,
    announce: Callable[[Server], None],
    hang_up: Callable[[], bool],
    *,
    accept_loss: bool = False,
) -> None:
    """Serve until SIGTERM, SIGINT or `stop`; `announce` is called when connections are accepted.

    `hang_up` is called at SIGHUP, unless that is ignored (nohup): False stops the broker.
    `accept_loss`: start also without what an unclean stop left damaged.

    Raises ConfigError, StoreError.
    """
    loop_factory = None
    if find_spec("uvloop") is not None:
        import uvloop

        loop_factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_serve(config, announce, hang_up, accept_loss))


async def _serve(
    config: Config,
    announce: Callable[[Server], None],
    hang_up: Callable[[], bool],
    accept_loss: bool,
) -> None:
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    server = Server(config, accept_loss=accept_loss)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        with contextlib.suppress(NotImplementedError):
            loop.add_signal_handler(number, server.request_stop)

    def on_hang_up() -> None:
        if not hang_up():
            server.request_stop()

    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        loop.add_signal_handler(signal.SIGHUP, on_hang_up)
    await server.start()
    # What exists now lives as long as the broker: the collector need not look at it again.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    announce(server)
    await server.wait_stopped()
    await server.stop()
