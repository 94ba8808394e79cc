"""Reloading: settings and certificates are read again while the broker runs.

What is wrong is told, and then all that was in force stays in force. No connection is lost: limits
of one connection, and certificates, count for those that come from now on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from pathlib import Path

from broker.clock import Clock
from broker.config import Config
from broker.errors import ConfigError
from broker.net.entrance import Connections
from broker.net.listening import Listening
from broker.net.open_files import connections_possible

logger = logging.getLogger(__name__)

LOOK_S = 10.0
"""How often to look whether a certificate's file has changed. It counts when it has not changed any
more at the next look, as a certificate and its key are two files."""
LIVE = frozenset(
    {
        *("websocket_origins", "allow_anonymous", "packet_bytes_max", "unfinished_bytes_max"),
        *("connect_timeout_s", "keep_alive_max_s", "response_information", "connections_max"),
        *("topic_bytes_max", "topic_levels_max", "properties_per_packet_max"),
        *("filters_per_packet_max", "subscriptions_per_session_max", "session_expiry_default_s"),
        *("session_expiry_max_s", "sessions_max", "groups_max", "groups_per_session_max"),
        *("wildcard_patterns_per_session_max", "subscribers_per_connection_max"),
        *("group_linger_s", "receive_max", "inflight_max", "topic_alias_max"),
        *("outbox_messages_max", "outbox_bytes_max", "write_buffer_bytes_max"),
        *("drain_timeout_s", "log_level"),
    }
)
"""Settings that can change while the broker runs: who needs them looks them up each time."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where the settings are from."""

    read: Callable[[], Config]
    """They as they are there now. May take as long as its disk; raises ConfigError."""
    tell_from: Callable[[str], None] = lambda level: None
    """Sets the level of diagnostics, which are not the broker's."""


@dataclass(frozen=True, slots=True)
class Reloaded:
    """Names of settings, and sentences."""

    changed: list[str]
    """In force from now on."""
    restart: list[str]
    """Changed in the file, and in force only after a restart."""
    doubts: list[str]
    """Why careful clients would not trust a certificate."""


class Reloading:
    def __init__(self, source: Source, asked: Config, config: Config) -> None:
        """`asked` is what the source gave at the start, and `config` what the broker made of it."""
        self.also: list[Callable[[], Awaitable[None]]] = []
        """What else is read again; each raises ConfigError, and has changed nothing then."""
        self._source = source
        self._asked = asked
        self._config = config
        self._one_at_a_time = asyncio.Lock()

    def of(self, listening: Listening, connections: Connections) -> None:
        """Before anything else: whose listeners and connections are concerned."""
        self._listening = listening
        self._connections = connections

    async def reload(self) -> Reloaded:
        """Raises ConfigError: nothing has changed."""
        async with self._one_at_a_time:
            try:
                return await self._reload()
            except ConfigError as error:
                logger.error("what was in force stays in force: %s", error)
                raise

    async def try_reload(self) -> None:
        """The same, for whom nobody waits: the diagnostics tell."""
        with suppress(ConfigError):
            await self.reload()

    async def _reload(self) -> Reloaded:
        new = await asyncio.to_thread(self._source.read)
        names = [field.name for field in fields(Config)]
        different = [name for name in names if getattr(new, name) != getattr(self._asked, name)]
        changed = [name for name in different if name in LIVE]
        same_places = _places(new) == _places(self._asked)
        if "listeners" in different and same_places:
            changed.append("listeners")
        in_force = replace(self._asked, **{name: getattr(new, name) for name in changed})
        certified = await self._listening.certified(in_force.every_listener)
        for read_again in self.also:
            await read_again()
        self._asked = in_force
        possible = connections_possible(in_force.connections_max)
        self._config.renew(replace(in_force, connections_max=possible))
        self._connections.unfinished.bytes_max = in_force.unfinished_bytes_max
        doubts = self._listening.renew(certified)
        self._source.tell_from(in_force.log_level)
        restart = [name for name in different if name not in changed]
        said = f"settings are read again; in force now: {', '.join(changed) or 'nothing new'}"
        if restart:
            said += f"; only after a restart: {', '.join(restart)}"
        logger.info("%s", said)
        return Reloaded(changed, restart, doubts)

    async def watch_forever(self, clock: Clock) -> None:
        """Until cancelled: read certificates again when their files have changed."""
        in_force = seen = await asyncio.to_thread(_looks, self._files())
        while True:
            await clock.sleep(LOOK_S)
            before, seen = seen, await asyncio.to_thread(_looks, self._files())
            if seen == before and seen != in_force:
                in_force = seen
                await self._certificates_changed()

    async def _certificates_changed(self) -> None:
        async with self._one_at_a_time:
            try:
                listeners = self._asked.every_listener
                self._listening.renew(await self._listening.certified(listeners))
                logger.info("certificates have changed and are read again")
            except ConfigError as error:
                logger.error("certificates have changed, and the old stay in force: %s", error)

    def _files(self) -> list[Path]:
        return [path for each in self._asked.every_listener for path in each.tls_files]


def _places(config: Config) -> set[tuple[object, ...]]:
    return {listener.place for listener in config.every_listener}


def _looks(paths: Sequence[Path]) -> list[tuple[int, ...]]:
    """What tells a changed file from the one that was there before."""
    looks: list[tuple[int, ...]] = []
    for path in paths:
        try:
            status = path.stat()
        except OSError:
            looks.append(())
        else:
            looks.append((status.st_mtime_ns, status.st_size, status.st_ino))
    return looks
