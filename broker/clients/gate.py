"""Gate: who a connection is, from its CONNECT or LOGIN on until it leaves."""

from __future__ import annotations

from collections.abc import Callable, Sized

from broker.clients.faces import Peer, Transport
from broker.clients.permitted import FORBIDDEN, NO_RIGHT, missing_right
from broker.clients.services import Services
from broker.documents import Author
from broker.errors import LoginRefused, NotAuthorized, QuotaExceeded
from broker.lines.connection import (
    LineConfirm,
    LineError,
    LineEvent,
    LineLogin,
    LinePublish,
    LineSubscribe,
)
from broker.mqtt.authentication import Methods
from broker.mqtt.packets import Connect
from broker.registry.access.logins import Applicant
from broker.registry.access.users import Guest
from broker.security.names import Login
from broker.security.rights import Rights
from broker.security.scram import METHOD as SCRAM
from broker.security.scram import ScramExchange


class Gate:
    """Of one connection. `login` is None until it has come in. It does not keep the `guest`, its
    client, which would then outlive the connection until the cycle collector comes."""

    __slots__ = ("_peer", "_publishing", "_services", "login")

    def __init__(self, services: Services, peer: Peer) -> None:
        self._services = services
        self._peer = peer
        self.login: Login | None = None
        self._publishing: Rights | None = None
        """Of its lines, once they are asked for."""

    async def enter(
        self, packet: Connect, guest: Guest, transport: Transport, later: Sized
    ) -> None:
        """Raises LoginRefused, QuotaExceeded. Waiting for it counts as no silence of the client. It
        ends when the client has left the `transport`, and no packets came `later`."""
        services, client_id, will = self._services, packet.client_id, packet.will
        size = 1000 if will is None else 1000 + len(will.payload) + len(will.properties)
        who = self._applicant(packet.username, packet.password, size)
        who.authenticated_user = packet.authenticated_user
        who.failed_proof_of = packet.failed_proof_of
        who.has_left = lambda: not later and transport.has_left()
        login = await services.logins.login(who)
        replaces_one = client_id in services.sessions.owners
        self._came_in(login, guest, replaces_one=replaces_one)
        if client_id:
            now = services.clock.monotonic()
            wait_s = services.quotas.flapping.wait_s(login.user, client_id, now)
            if wait_s:
                await services.clock.sleep(wait_s)

    def methods(self) -> Methods:
        """Of enhanced authentication."""
        methods = self._services.methods
        if self._services.users.exist:
            methods = {**methods, SCRAM: self._scram}
        return methods

    def _scram(self) -> ScramExchange:
        return self._services.logins.scram(self._peer.host, again=self.login is not None)

    async def log_in(self, line: LineLogin, guest: Guest, is_gone: Callable[[], bool]) -> None:
        """As `enter`; but a line client may end its side and still read. Who had come in as
        somebody else is this one now."""
        who = self._applicant(line.user, line.password)
        who.has_left = is_gone
        self._came_in(await self._services.logins.login(who), guest)

    def refusal(self, event: LineEvent, guest: Guest) -> str:
        """Why a line is not obeyed; empty: it is. Who has not logged in may be `anonymous`."""
        if self.login is None and not isinstance(event, LineLogin | LineConfirm | LineError):
            try:
                login = self._services.logins.at_once(self._applicant(None, None))
            except LoginRefused:
                return "log in first: LOGIN <user> <password>"
            assert login is not None
            try:
                self._came_in(login, guest)
            except QuotaExceeded as error:
                return error.reason
        if isinstance(event, LinePublish) and not self.may_publish(event.topic):
            self._services.counters.dropped[FORBIDDEN] += 1
            return NO_RIGHT
        if isinstance(event, LineSubscribe):
            missing = missing_right(self.rights(event.subscriber), event.filter)
            return f"the right to {missing} is missing" if missing else ""
        return ""

    def may_publish(self, topic: str) -> bool:
        """Whether a line may. Its publisher is only a word in it: no rule with a client identifier
        counts."""
        rights = self._of_lines()
        return not rights.limited or rights.may_publish(topic)

    @property
    def author(self) -> Author:
        """Who publishes by its lines."""
        return self._of_lines().author

    def _of_lines(self) -> Rights:
        if self._publishing is None:
            self._publishing = self.rights("")
        return self._publishing

    def _applicant(self, name: str | None, password: bytes | None, size: int = 1000) -> Applicant:
        allowed, peer = self._services.config.allow_anonymous, self._peer
        return Applicant(name, password, peer.host, allowed, peer.certificate_user, size)

    def _came_in(self, login: Login, guest: Guest, *, replaces_one: bool = False) -> None:
        """`replaces_one`: another connection ends for it. Raises QuotaExceeded."""
        self.leave(guest)
        if self._services.users.exist:
            self._services.quotas.came(login)
            self._services.quotas.refuse_connection(login.user, replaces_one=replaces_one)
        self.login, self._publishing = login, None
        self._services.logins.came(guest, login)

    @property
    def user(self) -> str:
        """Whose sessions it makes; "": while there are no users, nobody's."""
        return self.login.user if self.login is not None and self._services.users.exist else ""

    def rights(self, client_id: str) -> Rights:
        """Of its session with this client identifier. Raises NotAuthorized: it has ended while it
        waited."""
        if (login := self.login) is None:
            raise NotAuthorized("the connection has ended")
        return self._services.permissions.rights(login.user, login.roles, client_id)

    def disconnects(self, client_id: str) -> None:
        """It has sent DISCONNECT."""
        if self.login is not None:
            self._services.quotas.flapping.left(self.login.user, client_id)

    def leave(self, guest: Guest) -> None:
        if self.login is not None:
            self._services.logins.left(guest, self.login)
            self.login = None
