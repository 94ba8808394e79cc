"""Entrance: a listener at work, as the connections see it that came in there. Connections: who is
in by all of them."""

from __future__ import annotations

import logging
from ssl import SSLContext
from typing import TYPE_CHECKING

from broker.clients.faces import Peer, Transport
from broker.clients.services import Services
from broker.clock import Clock
from broker.message import Monotonic
from broker.net.http import HttpConnection, HttpProtocol, Welcome
from broker.net.turns import Turns
from broker.net.unfinished import Unfinished
from broker.settings.listeners import Listener

if TYPE_CHECKING:
    from broker.net.tcp import TcpConnection

logger = logging.getLogger(__name__)

TOO_MANY = "there are connections_max already"


def nobody(connection: HttpConnection) -> HttpProtocol:
    raise AssertionError("nobody administers here")


class Entrance:
    def __init__(
        self,
        services: Services,
        listener: Listener,
        context: SSLContext | None = None,
        welcome: Welcome = nobody,
    ) -> None:
        """`welcome` is for whoever administers here."""
        self._welcome = welcome
        self.renew(services, listener, context)
        self.count = 0
        """Connections that came in here and are still there."""
        self.strangers: dict[TcpConnection, None] = {}
        """Those of them whose client has not been identified yet; oldest first."""

    def renew(self, services: Services, listener: Listener, context: SSLContext | None) -> None:
        """`context` is what connections are secured with from now on; None: they are not."""
        self.services = services.at(listener)
        self.listener = listener
        self.context = context

    def http(self, socket: Transport, peer: Peer, now: Monotonic) -> HttpConnection:
        """Somebody comes to administer."""
        timeout_s = self.services.config.connect_timeout_s
        return HttpConnection(self._welcome, socket, peer, timeout_s, now)

    @property
    def is_full(self) -> bool:
        most = self.listener.connections_max
        return most is not None and self.count >= most


class Connections(set["TcpConnection"]):
    """All of one broker."""

    def __init__(self, clock: Clock, *, unfinished_bytes_max: int) -> None:
        self.strangers: dict[TcpConnection, None] = {}
        """Connections whose client has not been identified yet; oldest first."""
        self.unfinished = Unfinished(unfinished_bytes_max)
        self.turns = Turns(clock)

    def make_room_for(self, newcomer: TcpConnection) -> bool:
        """Whether there is room for one more, maybe as the oldest stranger had to go."""
        entrance = newcomer.entrance
        if entrance.is_full:
            strangers = entrance.strangers
        elif len(self) >= entrance.services.config.connections_max:
            strangers = self.strangers
        else:
            return True
        entrance.services.counters.refused_connects += 1
        for oldest in strangers:
            self.lose(oldest)
            oldest.abort()
            logger.warning("connection from %s cut off: %s", oldest.peer.address, TOO_MANY)
            return True
        logger.warning("connection from %s cut off: %s", newcomer.peer.address, TOO_MANY)
        return False

    def enter(self, connection: TcpConnection) -> None:
        self.add(connection)
        self.strangers[connection] = connection.entrance.strangers[connection] = None
        connection.entrance.count += 1

    def identified(self, connection: TcpConnection) -> None:
        """It is no stranger any more."""
        self.strangers.pop(connection, None)
        connection.entrance.strangers.pop(connection, None)

    def lose(self, connection: TcpConnection) -> None:
        if connection in self:
            self.remove(connection)
            connection.entrance.count -= 1
        self.identified(connection)
        self.unfinished.forget(connection)
        self.turns.forget(connection)


def peer_at(address: object) -> Peer:
    """The peer at an address as Python's sockets give it."""
    if not isinstance(address, tuple):
        return Peer(str(address))
    host, port = address[:2]
    return Peer(f"[{host}]:{port}" if ":" in host else f"{host}:{port}", host)
