"""Listening: the sockets on which connections are accepted."""

from __future__ import annotations

import asyncio
import errno
import socket
from pathlib import Path

from broker.clients.services import Services
from broker.config import Config
from broker.errors import ConfigError
from broker.net import unix
from broker.net.tcp import Connections, TcpConnection

BACKLOG = 1024


async def listen(services: Services, connections: Connections, config: Config) -> asyncio.Server:
    """Accept connections. Raises ConfigError: the address cannot be listened on."""
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: TcpConnection(services, connections), config.host, config.port, backlog=BACKLOG
        )
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ConfigError(
                "port",
                config.port,
                "is in use, maybe by a broker that runs already (`pubsub broker status`);"
                " choose another with --port",
            ) from error
        raise ConfigError("host", config.host, f"cannot be listened on: {error}") from error


async def listen_unix(services: Services, connections: Connections, path: Path) -> asyncio.Server:
    """Accept connections of our own user on a Unix socket, which the caller removes in the end.

    A socket file that an earlier broker left at `path` is replaced. Raises ConfigError: `path` is
    something else, another process listens there, or the socket cannot be made.
    """
    _expect_no_listener(path)
    listener = unix.listen(path, setting="unix_socket")
    return await asyncio.get_running_loop().create_unix_server(
        lambda: TcpConnection(services, connections), sock=listener, backlog=BACKLOG
    )


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
