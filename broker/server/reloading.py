"""Reloading: settings and certificates are read again while the broker runs.

What is wrong is told, and then all that was in force stays in force. No connection is lost: limits
of one connection, and certificates, count for those that come from now on.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
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
"""How often to look whether a file of certificates, or of keys of tokens, has changed. It counts
when it has not changed any more at the next look, as a certificate and its key are two files."""
AFTER_A_RESTART = (
    *("data_dir", "durability", "store", "store_replicas_min", "store_keep_bytes"),
    *("store_credentials", "store_ca", "store_cert", "store_key"),
    *("will_restart_grace_s", "append_bytes_max", "lazy_commit_ms", "sys_interval_s"),
    "scrub_bytes_per_s",
)
"""Settings that are looked at once. For all others, who needs them looks them up each time, or is
one of `Reloading.also`."""

Renewal = Callable[[Config], Awaitable[Callable[[], None]]]
"""Gets ready for the settings to come, and returns what puts them in force, which never fails.
Raises ConfigError, and has changed nothing then."""


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
        self.also: list[Renewal] = []
        self._source = source
        self._asked = asked
        self._config = config
        self._one_at_a_time = asyncio.Lock()
        self._wanted = False
        """Whether `try_reload` waits for its turn: what it reads then is new enough for others."""

    def of(self, listening: Listening, connections: Connections) -> None:
        """Before anything else: whose listeners and connections are concerned."""
        self._listening = listening
        self._connections = connections

    async def reload(self) -> Reloaded:
        """Raises ConfigError: nothing has changed."""
        async with self._one_at_a_time:
            with _nothing_changes("what was in force stays in force"):
                return await self._reload()

    async def try_reload(self) -> None:
        """The same, for whom nobody waits: the diagnostics tell."""
        if self._wanted:
            return
        self._wanted = True
        async with self._one_at_a_time:
            self._wanted = False
            with suppress(ConfigError), _nothing_changes("what was in force stays in force"):
                await self._reload()

    async def _reload(self) -> Reloaded:
        new = await asyncio.to_thread(self._source.read)
        names = [field.name for field in fields(Config)]
        different = [name for name in names if getattr(new, name) != getattr(self._asked, name)]
        changed = [name for name in different if name not in AFTER_A_RESTART]
        in_force = replace(self._asked, **{name: getattr(new, name) for name in changed})
        ready = [await prepare(in_force) for prepare in self.also]
        certified = await self._listening.certified(in_force.every_listener)
        await self._listening.open(certified)
        self._asked = in_force
        possible = connections_possible(in_force.connections_max)
        self._config.renew(replace(in_force, connections_max=possible))
        self._connections.unfinished.bytes_max = in_force.unfinished_bytes_max
        for put_in_force in ready:
            put_in_force()
        doubts = self._listening.renew(certified)
        await self._listening.end_revoked(certified)
        self._source.tell_from(in_force.log_level)
        restart = [name for name in different if name not in changed]
        said = f"settings are read again; in force now: {', '.join(changed) or 'nothing new'}"
        if restart:
            said += f"; only after a restart: {', '.join(restart)}"
        logger.info("%s", said)
        return Reloaded(changed, restart, doubts)

    async def watch_forever(self, clock: Clock) -> None:
        """Until cancelled: read certificates and keys again when their files have changed."""
        in_force = seen = await asyncio.to_thread(_looks, self._files())
        while True:
            await clock.sleep(LOOK_S)
            before, seen = seen, await asyncio.to_thread(_looks, self._files())
            if seen == before and seen != in_force:
                in_force = seen
                await self._certificates_changed()

    async def _certificates_changed(self) -> None:
        async with self._one_at_a_time:
            said = "certificates or keys have changed, and the old stay in force"
            with suppress(ConfigError), _nothing_changes(said):
                listeners = self._asked.every_listener
                ready = [await prepare(self._asked) for prepare in self.also]
                certified = await self._listening.certified(listeners)
                for put_in_force in ready:
                    put_in_force()
                self._listening.renew(certified)
                await self._listening.end_revoked(certified)
                logger.info("certificates or keys have changed and are read again")

    def _files(self) -> list[Path]:
        keys = [] if self._asked.jwt_keys is None else [self._asked.jwt_keys]
        return keys + [path for each in self._asked.every_listener for path in each.tls_files]


@contextmanager
def _nothing_changes(said: str) -> Iterator[None]:
    """What goes wrong is told, and raised as ConfigError. What nobody thought of, in a file that
    somebody has edited, does not end a broker either."""
    try:
        yield
    except ConfigError as error:
        logger.error("%s: %s", said, error)
        raise
    except Exception as error:
        logger.critical("%s", said, exc_info=error)
        why = f"{type(error).__name__}, see the broker's diagnostics"
        raise ConfigError("settings", str(error)[:200], why) from error


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
