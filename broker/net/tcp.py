"""TCP: moves bytes, keeps one timer a connection, obeys backpressure. Knows no packet.

The first byte tells who is there: 0x10 begins an MQTT CONNECT, anything else is the line protocol.
"""

from __future__ import annotations

import asyncio
import errno
from typing import Protocol, cast

from broker.client import Client, Services
from broker.config import Config
from broker.errors import ConfigError
from broker.line_client import LineClient

MQTT_CONNECT = 0x10
FIRST_BYTE_TIMEOUT_S = 60.0
"""A person may type the first line; a CONNECT must be whole after `connect_timeout_s`."""
CLOSE_TIMEOUT_S = 5.0
"""How long a peer may take to read the last bytes before the connection is cut."""


class NetworkClient(Protocol):
    """What the rim needs of a client, whatever it speaks."""

    def receive(self, data: bytes, now: float) -> None: ...

    def deadline(self) -> float | None: ...

    def expire(self, now: float) -> None: ...

    def writable(self, *, yes: bool) -> None: ...

    def lost(self) -> None: ...

    def shut_down(self) -> None: ...


class TcpConnection(asyncio.Protocol):
    """One socket. It is also the `Transport` that its client writes to."""

    def __init__(self, services: Services, connections: set[TcpConnection]) -> None:
        self._services = services
        self._connections = connections
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self.client: NetworkClient | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it, though they have all of its methods.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        self._services.counters.connections += 1
        if len(self._connections) >= self._services.config.connections_max:
            self._services.counters.dropped["connection over connections_max"] += 1
            transport.abort()
            return
        self._connections.add(self)
        transport.set_write_buffer_limits(high=self._services.config.write_buffer_bytes_max)
        self._timer = self._loop.call_later(FIRST_BYTE_TIMEOUT_S, self.close)

    def data_received(self, data: bytes) -> None:
        now = self._loop.time()
        if self.client is None:
            self.client = self._meet(data[0], now)
        self.client.receive(data, now)

    def _meet(self, first_byte: int, now: float) -> NetworkClient:
        assert self._transport is not None
        assert self._timer is not None
        self._timer.cancel()
        peer = str(self._transport.get_extra_info("peername"))
        client: NetworkClient
        if first_byte == MQTT_CONNECT:
            client = Client(self._services, self, peer, now)
        else:
            # Zero: we hear when the last byte is out, which is what counts as acknowledged there.
            self._transport.set_write_buffer_limits(high=0)
            client = LineClient(self._services, self, peer, now)
        self._set_timer(client.deadline())
        return client

    def eof_received(self) -> bool:
        """Whether to stay half open: a line client may have sent all its commands."""
        return isinstance(self.client, LineClient) and self.client.end_of_input()

    def pause_writing(self) -> None:
        if self.client is not None:
            self.client.writable(yes=False)

    def resume_writing(self) -> None:
        if self.client is not None:
            self.client.writable(yes=True)

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        if self.client is not None:
            self.client.lost()

    def _set_timer(self, deadline: float | None) -> None:
        """One timer: when it fires too early, since packets came meanwhile, it is set anew."""
        if deadline is None:
            self._timer = self._loop.call_later(CLOSE_TIMEOUT_S, self._on_timer)
        else:
            soonest = self._loop.time() + 0.1
            self._timer = self._loop.call_at(max(deadline, soonest), self._on_timer)

    def _on_timer(self) -> None:
        assert self.client is not None
        assert self._transport is not None
        if self._transport.is_closing():
            return
        self.client.expire(self._loop.time())
        self._set_timer(self.client.deadline())

    # Transport

    def deadline_moved(self) -> None:
        assert self.client is not None
        if self._timer is not None:
            self._timer.cancel()
        self._set_timer(self.client.deadline())

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def close(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            self._transport.close()
            self._loop.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def pause_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.pause_reading()

    def resume_reading(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()


async def listen(
    services: Services, connections: set[TcpConnection], config: Config
) -> asyncio.Server:
    """Accept connections. Raises ConfigError: the address cannot be listened on."""
    try:
        return await asyncio.get_running_loop().create_server(
            lambda: TcpConnection(services, connections), config.host, config.port, backlog=1024
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
