"""Listening: the sockets on which connections are accepted."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from ssl import SSLContext

from broker.clients.services import Services
from broker.errors import ConfigError, NotAuthorized
from broker.net import unix
from broker.net.entrance import Connections, Entrance, nobody
from broker.net.http import Welcome
from broker.net.tcp import TcpConnection
from broker.net.tls import TlsConnection
from broker.security.tls import Revocations, Trust, context_of, trust
from broker.settings.listeners import Listener, no_such_host

BACKLOG = 1024
DOUBTED_EVERY_S = 86_400.0
ENDED_AT_ONCE_MAX = 50
"""Connections that one turn of the loop ends: about 5 ms."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Certified:
    """A listener, and what its files of TLS were made to."""

    listener: Listener
    context: SSLContext | None
    revocations: Revocations
    trust: Trust
    """What a careful client makes of its certificate."""


class Listening:
    """All listeners of a broker."""

    def __init__(
        self, services: Services, connections: Connections, welcome: Welcome = nobody
    ) -> None:
        """`welcome`: see `Entrance`."""
        self._services = services
        self._welcome = welcome
        self._connections = connections
        self._open: list[tuple[Entrance, asyncio.Server]] = []
        self._stopped = False
        self._known = "", 0
        self._certified: list[Certified] = []

    async def start(self, listeners: Sequence[Listener]) -> None:
        """Accept connections. Raises ConfigError, and then accepts none: where one listener cannot
        listen."""
        certified = await self.certified(listeners)
        await self.open(certified)
        self._certified = certified
        self.doubts()

    async def certified(self, listeners: Sequence[Listener]) -> list[Certified]:
        """With what the files of their TLS say now. Raises ConfigError: they cannot be used."""
        return await asyncio.to_thread(lambda: [_certified(listener) for listener in listeners])

    async def open(self, listeners: Sequence[Certified]) -> None:
        """Listen where nobody listens yet; who comes there waits for `renew`, at other places
        nothing changes. Raises ConfigError: one cannot listen, and then none of them does."""
        if self._stopped:
            return  # While a reload read its files.
        wanted = [each.listener for each in listeners]
        there = {entrance.listener.place for entrance, _ in self._open}
        new = [each for each in listeners if each.listener.place not in there]
        ports = {each.listener.port for each in new} - {None, 0}
        places = {listener.place for listener in wanted}
        in_the_way = [
            number
            for number, (entrance, _) in enumerate(self._open)
            if entrance.listener.port in ports and entrance.listener.place not in places
        ]
        opened: list[tuple[Entrance, asyncio.Server]] = []
        try:
            for number in in_the_way:
                await _close(self._open[number][1])
            for each in new:
                entrance = Entrance(self._services, each.listener, each.context, self._welcome)
                opened.append((entrance, await self._listen(entrance)))
        except BaseException:
            for entrance, server in opened:
                await _close(server)
                _remove_socket(entrance)
            for number in in_the_way:
                entrance = self._open[number][0]
                self._open[number] = entrance, await self._listen(entrance)
            raise
        self._open += opened

    def renew(self, listeners: Sequence[Certified]) -> list[str]:
        """Let these hold for the connections to come, once they are open, and listen nowhere else.
        Connections that came in elsewhere stay. Returns why certificates are doubtful."""
        by_place = {each.listener.place: each for each in listeners}
        for entrance, server in [*self._open]:
            renewed = by_place.get(entrance.listener.place)
            if renewed is None:
                server.close()
                _remove_socket(entrance)
                self._open.remove((entrance, server))
            else:
                entrance.renew(self._services, renewed.listener, renewed.context)
        self._certified = [*listeners]
        return self.doubts()

    def doubts(self) -> list[str]:
        """Why certificates are doubtful now, told to the operator, too."""
        now_s = self._services.clock.wall_us() / 1_000_000
        return [doubt for each in self._certified if (doubt := _tell(each, now_s))]

    async def doubt_forever(self) -> None:
        """Until cancelled: tell once a day what is doubtful then."""
        while True:
            await self._services.clock.sleep(DOUBTED_EVERY_S)
            self.doubts()

    def status(self) -> dict[str, object]:
        """For people and monitoring: where it listens, and what is wrong with certificates."""
        now_s = self._services.clock.wall_us() / 1_000_000
        said = {
            str(each.listener.tls_certificate): each.trust.at(now_s) for each in self._certified
        }
        return {
            "listeners": [
                _address(server) + (" (administration)" if entrance.listener.administers else "")
                for entrance, server in self._open
                if server.sockets
            ],
            "certificates": {file: doubt for file, doubt in said.items() if doubt},
        }

    async def end_revoked(self, listeners: Sequence[Certified]) -> None:
        """End connections whose client certificate was revoked, a few in each turn of the loop."""
        for each in listeners:
            shown = [
                (connection, connection.peer.certificate)
                for connection in self._connections
                if isinstance(connection, TlsConnection)
                and connection.entrance.listener == each.listener
                and connection.peer.certificate is not None
            ]
            certificates = {certificate for _, certificate in shown}
            revoked = await asyncio.to_thread(each.revocations.among, certificates)
            gone = [connection for connection, certificate in shown if certificate in revoked]
            for number, connection in enumerate(gone, 1):
                connection.dismiss(NotAuthorized("its certificate was revoked"))
                if number % ENDED_AT_ONCE_MAX == 0:
                    await asyncio.sleep(0)

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
        except (socket.gaierror, UnicodeError) as error:
            raise no_such_host("host", listener.host, error) from error
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
        """Accept no more connections, for good."""
        self._known = self.address
        self._stopped = True
        for entrance, server in self._open:
            server.close()
            _remove_socket(entrance)
        self._open.clear()

    @property
    def address(self) -> tuple[str, int]:
        """Host and port of the first listener that has them, for clients; the port is the real one
        also if 0 was asked for. Of a broker that listens on Unix sockets only: the path of one, and
        0.

        An operator may ask at any time: before `start` it is "" and 0, after `stop` and while a
        reload moves listeners what it was.
        """
        if self._open and all(server.sockets for _, server in self._open):
            self._known = self._first()
        return self._known

    def _first(self) -> tuple[str, int]:
        by_use = sorted(self._open, key=lambda each: each[0].listener.administers)
        for _, server in by_use:
            name = server.sockets[0].getsockname()
            if isinstance(name, tuple):
                return name[0], name[1]
        return str(by_use[0][0].listener.unix_socket), 0


def _address(server: asyncio.Server) -> str:
    name = server.sockets[0].getsockname()
    if not isinstance(name, tuple):
        return os.path.abspath(str(name))  # It is bound by the shorter path, maybe from here.
    return f"[{name[0]}]:{name[1]}" if ":" in name[0] else f"{name[0]}:{name[1]}"


async def _close(server: asyncio.Server) -> None:
    """So that another may listen there."""
    server.close()
    await asyncio.sleep(0)  # uvloop closes its sockets in the next turn.


def _remove_socket(entrance: Entrance) -> None:
    if entrance.listener.unix_socket is not None:
        unix.remove(entrance.listener.unix_socket)


def _certified(listener: Listener) -> Certified:
    context = context_of(listener)
    trusted = Trust("", None) if context is None else trust(listener, context)
    return Certified(listener, context, Revocations(listener), trusted)


def _tell(certified: Certified, now_s: float) -> str:
    """What is doubtful about a certificate, told to the operator."""
    if not (said := certified.trust.at(now_s)):
        return ""
    doubt = f"{certified.listener.tls_certificate}: {said}"
    if said.startswith("expires"):
        logger.warning("clients will soon not connect any more: %s", doubt)
        return doubt
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
