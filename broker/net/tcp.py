"""TCP and Unix sockets: moves bytes, keeps one timer a connection, obeys back-pressure.

Knows no packet. The first bytes tell the protocol: 0x10 begins an MQTT CONNECT, `GET ` an HTTP
request and so a WebSocket, other text is the line protocol. Anything else closes the connection.

A peer can make the broker keep only so much:

- A peer gets no more messages while `write_buffer_bytes_max` wait in its socket. If its answers
  make that grow to twice as much and a packet more, the broker stops reading from it: it asks and
  does not read.
- A connection whose client has not been identified yet counts as a stranger. At `connections_max`,
  of all or of its listener, a new connection takes the place of the oldest stranger, so that silent
  connections do not keep others out. If there is no stranger, the new connection is cut off.
- What it keeps of packets that are not whole, and of what was read and has to wait, is bounded for
  all peers together: `unfinished.py`.

The loop calls a connection through `guarded`: what is raised there is a mistake of ours, and cuts
off the connection that was served, and no other.
"""

from __future__ import annotations

import asyncio
import logging
import socket
from typing import cast

from broker.clients.client import Client
from broker.clients.faces import NOT_PAUSED, NetworkClient, Peer
from broker.clients.line_client import LineClient
from broker.clock import Timer
from broker.errors import PeerError
from broker.message import Monotonic
from broker.net import sockets
from broker.net.entrance import Connections, Entrance, peer_at
from broker.net.first_bytes import HTTP_GET, protocol_of, why_refused
from broker.net.guarded import guarded
from broker.net.proxied import NoHeader, header_of
from broker.net.turns import LITTLE_BYTES, LITTLE_MAX, TURN, Arrived
from broker.net.unfinished import STEP_BYTES, TOO_MUCH_UNFINISHED
from broker.net.websocket import WebSocket

logger = logging.getLogger(__name__)

FIRST_BYTE_TIMEOUT_S = 60.0
"""A person may type the first line; a CONNECT must be whole after `connect_timeout_s`."""
CLOSE_TIMEOUT_S = 5.0
"""How long a peer may take to read the last bytes before the connection is cut."""
UNREAD_RETRY_S = 0.1
"""A deadline that has come is looked at again after this, if it could not be judged."""


class TcpConnection(asyncio.Protocol):
    """One socket. It is also the `Transport` that its client writes to."""

    farewell_bytes = 2
    """Of a DISCONNECT; a PUBLISH, or a line, has more."""

    def __init__(self, entrance: Entrance, connections: Connections) -> None:
        self.entrance = entrance
        self._services = services = entrance.services
        self._connections = connections
        self._clock = services.clock
        self._transport: asyncio.Transport | None = None
        self._timer: Timer | None = None
        self._first_bytes = b""
        """The bytes so far, while they could still become `GET `."""
        self._full = False  # Whether `write_buffer_bytes_max` wait to be sent.
        self.reading_paused_by = NOT_PAUSED
        self._quick_ack = False
        self.arrived = Arrived(services.clock)
        self._counted = False  # Whether it is in `Connections.unfinished`.
        self.client: NetworkClient | None = None
        self.peer = Peer("")
        self._little_bytes = LITTLE_BYTES
        """Reads of at most so much do not wait for their turn."""
        self._first_byte_timeout_s = FIRST_BYTE_TIMEOUT_S
        self._header_due = entrance.listener.proxy_protocol
        """Whether the header of a proxy has still to come."""

    @guarded
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of it, though they have all of its methods.
        transport = cast(asyncio.Transport, transport)
        self._transport = transport
        # A peer on a Unix socket has no address: take our own.
        self.peer = peer_at(
            transport.get_extra_info("peername") or transport.get_extra_info("sockname")
        )
        family = transport.get_extra_info("socket").family
        self._quick_ack = family in (socket.AF_INET, socket.AF_INET6) and sockets.HAS_QUICK_ACK
        self._services.counters.connections += 1
        if not self._connections.make_room_for(self):
            transport.abort()
            return
        self._connections.enter(self)
        transport.set_write_buffer_limits(high=self._services.config.write_buffer_bytes_max)
        header_s = self._services.config.connect_timeout_s if self._header_due else None
        self._say_something_within(header_s or self._first_byte_timeout_s)

    def data_received(self, data: bytes) -> None:
        self._services.counters.bytes_in += len(data)
        turns = self._connections.turns
        if not (much := len(data) > self._little_bytes or self.arrived.size > 0):
            turns.little += 1
            much = not 1 < turns.little <= LITTLE_MAX and turns.is_too_many()
        if much:
            self.arrived.add(data)
            turns.work(self)
            if self.arrived.size and self.client is not None:
                self._account_for(self.client.kept_bytes, 0)
            return
        self.receive(data, self._clock.monotonic())
        if len(data) <= sockets.QUICK_ACK_BYTES_MAX and self._quick_ack:
            assert self._transport is not None
            sockets.acknowledge_at_once(self._transport)

    def receive(self, data: bytes, now: Monotonic) -> None:
        try:  # As `guarded`, without a call for each read.
            if self.client is None:
                data = self._first_bytes + data
                if self._header_due and not (data := self._after_header(data)):
                    return
                if len(data) < len(HTTP_GET) and HTTP_GET.startswith(data):
                    self._wait_for_more(data)
                    return
                protocol = protocol_of(data, self.entrance.listener)
                if not self._speaks(protocol):
                    self._refuse(why_refused(data, protocol))
                    return
                self.client = self._meet(protocol, now)
            kept = self.client.receive(data, now)
            if kept >= STEP_BYTES or self._counted or self.arrived.size:
                self._account_for(kept, len(data))
            if self._full:
                self._pause_reading_if_clogged()
        except Exception as error:
            self.failed(error)

    def _after_header(self, data: bytes) -> bytes:
        """What follows the header of the proxy; "": it is not whole, or was refused."""
        try:
            header = header_of(data)
        except NoHeader as error:
            self._refuse(str(error))
            return b""
        if header is None:
            self._first_bytes = data
            return b""
        self._header_due = False
        self._first_bytes = b""
        if header.source is not None:
            self.peer = peer_at(header.source)
        self._say_something_within(self._first_byte_timeout_s)
        return data[header.size :]

    def _speaks(self, protocol: str) -> bool:
        """Whether the peer may speak it."""
        return protocol in self.entrance.listener.protocols

    def _refuse(self, why: str) -> None:
        """What came makes no sense here."""
        self._services.counters.protocol_errors += 1
        logger.info("connection from %s closed: %s", self.peer.address, why)
        self.close()

    def _account_for(self, kept: int, new: int) -> None:
        """What waits for its turn alone is worked on soon. For the disk, or for a peer to read what
        we send, it may wait long."""
        if self.arrived.size and not self.reading_paused_by <= {TURN}:
            kept += self.arrived.size
        if kept >= STEP_BYTES or self._counted:
            self._counted = self._connections.unfinished.keeps(self, kept, new)

    def _wait_for_more(self, data: bytes) -> None:
        """No person sends less than a line, so the rest is due at once."""
        if not self._first_bytes:
            self._say_something_within(self._services.config.connect_timeout_s)
        self._first_bytes = data

    def _say_something_within(self, timeout_s: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.call_later(timeout_s, self._close_if_silent)

    def _meet(self, protocol: str, now: Monotonic) -> NetworkClient:
        transport, services = self._transport, self._services
        assert transport is not None
        assert self._timer is not None
        self._timer.cancel()
        client: NetworkClient
        if protocol == "mqtt":
            client = Client(services, self, self.peer, now)
        elif protocol == "websocket":
            client = WebSocket(services, self, self.peer, now)
        elif self.entrance.listener.administers:
            client = self.entrance.http(self, self.peer, now)
        else:
            # Zero: asyncio tells when the last byte is out. That counts as acknowledged here.
            transport.set_write_buffer_limits(high=0)
            client = LineClient(services, self, self.peer, now)
            if services.config.allow_anonymous or not services.users.exist:
                self._connections.identified(self)
            logger.info("line client at %s: connected", self.peer.address)
        self._set_timer(client.deadline())
        return client

    @guarded
    def eof_received(self) -> bool:
        """Whether to stay half open: a client may have said all that it has to say."""
        if self._connections.turns.puts_off(self._end_input):
            return True
        return self.client is not None and self.client.end_of_input()

    @guarded
    def _end_input(self) -> None:
        """As `eof_received`, later."""
        if self.client is None or not self.client.end_of_input():
            self.close()

    @guarded
    def pause_writing(self) -> None:
        self._full = True
        if self.client is not None:
            self.client.writable(yes=False)

    @guarded
    def resume_writing(self) -> None:
        self._full = False
        self.resume_reading("clogged")
        if self.client is not None:
            self.client.writable(yes=True)

    def _pause_reading_if_clogged(self) -> None:
        assert self._transport is not None
        config = self._services.config
        bound = 2 * config.write_buffer_bytes_max + config.packet_bytes_max
        if self._transport.get_write_buffer_size() > bound:
            self.pause_reading("clogged")

    def connection_lost(self, exc: Exception | None) -> None:
        self.pause_writing()  # Until it is let go.
        if not self._connections.turns.puts_off(self._let_go):
            self._let_go()

    @guarded
    def _let_go(self) -> None:
        self._connections.lose(self)
        if self._timer is not None:
            self._timer.cancel()
        if self.client is not None:
            self.client.lost()
        self.arrived.clear()
        if isinstance(self.client, LineClient):
            logger.info("line client at %s: disconnected", self.peer.address)
        # They know each other: the collector, which comes seldom, would have to find them.
        self.client = None

    def _set_timer(self, deadline: Monotonic | None) -> None:
        """One timer: when it fires too early, since packets came meanwhile, it is set anew."""
        if deadline is None:
            self._timer = self._clock.call_later(CLOSE_TIMEOUT_S, self._on_timer)
        else:
            delay_s = max(UNREAD_RETRY_S, deadline - self._clock.monotonic())
            self._timer = self._clock.call_later(delay_s, self._on_timer)

    @guarded
    def _on_timer(self) -> None:
        assert self.client is not None
        if self._transport is None or self._transport.is_closing():
            return
        if self._is_silent():
            self.client.expire(self._clock.monotonic())
        self._set_timer(self.client.deadline())

    @guarded
    def _close_if_silent(self) -> None:
        if self._is_silent():
            self.close()
        else:
            self._timer = self._clock.call_later(UNREAD_RETRY_S, self._close_if_silent)

    def _is_silent(self) -> bool:
        """Not if we have not read what the peer sent: the process was suspended (SIGSTOP, a
        laptop), or somebody kept us busy. But who does not read what we send is not read from."""
        assert self._transport is not None
        if "clogged" in self.reading_paused_by:
            return True
        return not self.arrived.size and not sockets.has_unread_bytes(self._transport)

    @guarded
    def shut_down(self, moves: PeerError | None = None) -> None:
        """The broker stops: its client is told, and where to go on if it `moves`."""
        if self.client is None:
            self.close()
        elif moves is not None:
            self.client.dismiss(moves)
        else:
            self.client.shut_down()

    @property
    def is_held_back(self) -> bool:
        """Whether we do not read it, for longer than a turn and by no fault of its own."""
        return not self.reading_paused_by <= {"clogged", TURN}

    @guarded
    def evict(self) -> None:
        """What it keeps of a packet has to make room for others'."""
        self._services.counters.evicted += 1
        logger.warning("connection from %s closed: %s", self.peer.address, TOO_MUCH_UNFINISHED)
        if self.client is None:
            self.abort()
        else:
            self.client.evict(TOO_MUCH_UNFINISHED)
        self.arrived.clear()

    def failed(self, error: Exception) -> None:
        """We made a mistake while this connection was served: it is cut off."""
        if self.client is None:
            logger.critical("connection from %s is cut off", self.peer.address, exc_info=error)
        else:
            self.client.failed(error)
        self.abort()

    # Transport

    def deadline_moved(self) -> None:
        """The CONNECT was accepted."""
        if self.client is None:
            return  # It has gone meanwhile.
        self._connections.identified(self)
        if self._timer is not None:
            self._timer.cancel()
        self._set_timer(self.client.deadline())

    def write(self, data: bytes) -> None:
        assert self._transport is not None
        self._services.counters.bytes_out += len(data)
        self._transport.write(data)

    def close(self) -> None:
        assert self._transport is not None
        self.arrived.clear()
        if not self._transport.is_closing():
            self._transport.close()
            self._clock.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def end_output(self) -> None:
        assert self._transport is not None
        if not self._transport.is_closing():
            try:
                self._transport.write_eof()
            except OSError:  # The peer has cut it off already.
                self._transport.abort()
                return
            self._clock.call_later(CLOSE_TIMEOUT_S, self._transport.abort)

    def abort(self) -> None:
        assert self._transport is not None
        self.arrived.clear()
        self._transport.abort()

    def watch_peer(self) -> bool:
        if sockets.TELLS_ARRIVAL and self._transport is not None:
            sockets.probe(self._transport)
        return sockets.TELLS_ARRIVAL

    def has_arrived(self) -> bool:
        return self._transport is not None and sockets.has_arrived(self._transport)

    def is_gone(self) -> bool:
        return self._transport is None or sockets.is_gone(self._transport)

    def has_left(self) -> bool:
        return self._transport is None or sockets.has_left(self._transport, self.farewell_bytes)

    def pause_reading(self, reason: str) -> None:
        self.reading_paused_by |= {reason}
        if (transport := self._transport) is not None and not transport.is_closing():
            transport.pause_reading()

    def resume_reading(self, reason: str) -> None:
        self.reading_paused_by = self.reading_paused_by - {reason} or NOT_PAUSED
        if self._counted and self.client is not None:
            self._account_for(self.client.kept_bytes, 0)
        if self.reading_paused_by:
            return
        if self.arrived.size:
            self._connections.turns.put_off(self)
        elif self._transport is not None and not self._transport.is_closing():
            self._transport.resume_reading()
