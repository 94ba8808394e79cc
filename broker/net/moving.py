"""Moving: a broker that is about to end lets its clients go on at another one. [MQTT 5, 4.11]

An MQTT 5 client is told where (Server Reference); the connection of any other is closed, and it is
up to that, or to its list of brokers, where it connects again. Its session goes along when it does.
No will is published because of that, unless the client comes nowhere.
"""

from __future__ import annotations

import logging

from broker.clients.services import Services
from broker.errors import CommandRefused, ServerMoved, StoreFenced, UseAnotherServer
from broker.net.entrance import Connections
from broker.plural import counted

MOVED_AT_ONCE_MAX = 100
"""Clients that are told before the log has taken what they leave behind."""
WHY = "this broker is stopped: go on at another one"

logger = logging.getLogger(__name__)


class Moving:
    def __init__(self, services: Services, connections: Connections) -> None:
        self._services = services
        self._references = services.references
        self._connections = connections
        self.ends_by = float("inf")
        """When the log is to have taken all, by the loop's time, if clients are let go before."""
        self._error: type[UseAnotherServer] = UseAnotherServer
        self._references.connections = lambda: len(connections)
        self._references.sessions = lambda: services.sessions.kept.client_count

    def require_others(self) -> None:
        """Raises CommandRefused: there is nobody to go on at."""
        if not self._references.others():
            raise CommandRefused(
                "no other broker is known to serve the same log", "stop it without --drain"
            )

    async def move(self, *, for_good: bool) -> None:
        """Let all clients go. Raises StoreError."""
        services, moved = self._services, 0
        self._references.ending = True
        self._error = ServerMoved if for_good else UseAnotherServer
        there = [*self._connections]
        for begin in range(0, len(there), MOVED_AT_ONCE_MAX):
            while wills := services.wills.clients_move(services.clock.now()):
                await services.log.commit_now(wills, keep_if_full=False)
            for connection in there[begin : begin + MOVED_AT_ONCE_MAX]:
                if connection in self._connections:
                    connection.shut_down(self._error(WHY, self._references.next()))
                    moved += 1
            await services.log.flushed()
        clients = counted(moved, "client is", "clients are")
        logger.info("%s told to go on at another broker", clients)

    def goodbye(self, failure: BaseException | None) -> UseAnotherServer | None:
        """What to tell a client that is still here at the end; None: only that this broker stops.
        `failure`: why that is."""
        fenced = isinstance(failure, StoreFenced) and self._references.others()
        moves = self._references.ending or fenced  # Or `move` had no time to tell it.
        return self._error(WHY, self._references.next()) if moves else None
