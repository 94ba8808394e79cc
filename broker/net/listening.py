"""Listening: the sockets on which connections are accepted."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from broker.clients.services import Services
from broker.errors import ConfigError
from broker.listeners import Listener
from broker.net import unix
from broker.net.entrance import Connections, Entrance
from broker.net.tcp import TcpConnection
from broker.net.tls import TlsConnection
from broker.security.tls import context_of, doubts

BACKLOG = 1024

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certified:
    """A listener, and what its files of TLS were made to."""

    listener: Listener
    context: SSLContext | None
    doubt: str
    """Why a careful client would not trust its certificate; "": nothing is known against it."""


class Listening:
    """All listeners of a broker."""

    def __init__(self, services: Services, connections: Connections) -> None:
        self._services = services
        self._connections = connections
        self._open: list[tuple[Entrance, asyncio.Server]] = []

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Accept connections. Raises ConfigError, and then accepts none: where one listener cannot
        listen."""
        try:
            for certified in await self.certified(listeners):
                entrance = Entrance(self._services, certified.listener, certified.context)
                self._open.append((entrance, await self._listen(entrance)))
                _tell(certified)
        except BaseException:
            self.stop()
            raise

    async def certified(self, listeners: Sequence[Listener]) -> list[Certified]:
        """With what the files of their TLS say now. Raises ConfigError: they cannot be used."""
        return await asyncio.to_thread(lambda: [_certified(listener) for listener in listeners])

    def renew(self, listeners: Sequence[Certified]) -> list[str]:
        """Let these hold for the connections to come, each where it listens already. Returns why
        their certificates are doubtful."""
        by_place = {each.listener.place: each for each in listeners}
        for entrance, _ in self._open:
            renewed = by_place[entrance.listener.place]
            entrance.renew(self._services, renewed.listener, renewed.context)
        return [doubt for each in listeners if (doubt := _tell(each))]

    async def _listen(self, entrance: Entrance) -> asyncio.Server:
        listener = entrance.listener
        if listener.unix_socket is not None:
            return await self._listen_unix(entrance, listener.unix_socket)
        try:
            return await asyncio.get_running_loop().create_server(
                lambda: self._connection(entrance),
                listener.host,
                listener.port,
                backlog=BACKLOG,
            )
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise ConfigError(
                    "port",
                    listener.port,
                    "is in use, maybe by a broker that runs already (`pubsub broker status`);"
                    " choose another with --port",
                ) from error
            raise ConfigError("host", listener.host, f"cannot be listened on: {error}") from error

    async def _listen_unix(self, entrance: Entrance, path: Path) -> asyncio.Server:
        """A socket file that an earlier broker left at `path` is replaced. Raises ConfigError:
        `path` is something else, another process listens there, or the socket cannot be made."""
        _expect_no_listener(path)
        listener = unix.listen(path, setting="unix_socket")
        return await asyncio.get_running_loop().create_unix_server(
            lambda: self._connection(entrance), sock=listener, backlog=BACKLOG
        )

    def _connection(self, entrance: Entrance) -> TcpConnection:
        if entrance.context is None:
            return TcpConnection(entrance, self._connections)
        return TlsConnection(entrance, self._connections, entrance.context)

    def stop(self) -> None:
        """Accept no more connections."""
        for entrance, server in self._open:
            server.close()
            if entrance.listener.unix_socket is not None:
                unix.remove(entrance.listener.unix_socket)
        self._open.clear()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first listener that has them; the port is the real one also if 0
        was asked for. Of a broker that listens on Unix sockets only: the path of one, and 0."""
        for _, server in self._open:
            name = server.sockets[0].getsockname()
            if isinstance(name, tuple):
                host, port = name[:2]
                return host, port
        return str(self._open[0][0].listener.unix_socket), 0


def _certified(listener: Listener) -> Certified:
    context = context_of(listener)
    return Certified(listener, context, "" if context is None else doubts(listener, context))


def _tell(certified: Certified) -> str:
    """What is doubtful about a certificate, told to the operator."""
    if not certified.doubt:
        return ""
    doubt = f"{certified.listener.tls_certificate}: {certified.doubt}"
    logger.warning("careful clients will not connect: %s", doubt)
    return doubt


def _expect_no_listener(path: Path) -> None:
    """Raises ConfigError unless nothing is at `path`, or a socket that nobody listens on."""
    if not path.exists():
        return
    if not path.is_socket():
        raise ConfigError("unix_socket", str(path), "is there already and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)
        try:
            probe.connect(unix.reachable(path, setting="unix_socket"))
        except ConnectionRefusedError:
            return
        except OSError as error:
            raise ConfigError("unix_socket", str(path), f"cannot be used: {error}") from error
    raise ConfigError("unix_socket", str(path), "is in use, maybe by a broker that runs already")
