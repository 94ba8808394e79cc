"""Gate: who a connection is, from its CONNECT or LOGIN on until it leaves."""

from __future__ import annotations

from broker.clients.faces import Peer
from broker.clients.services import Services
from broker.errors import LoginRefused
from broker.lines.connection import LineConfirm, LineError, LineEvent, LineLogin
from broker.mqtt.packets import Connect
from broker.registry.logins import Applicant
from broker.registry.users import Guest
from broker.security.names import Login
from broker.security.rights import Rights


class Gate:
    """Of one connection. `login` is None until it has come in."""

    __slots__ = ("_guest", "_peer", "_services", "login")

    def __init__(self, services: Services, peer: Peer, guest: Guest) -> None:
        self._services = services
        self._peer = peer
        self._guest = guest
        self.login: Login | None = None

    async def enter(self, packet: Connect) -> Login:
        """Raises LoginRefused. Waiting for it counts as no silence of the client."""
        will = packet.will
        size = 1000 if will is None else 1000 + len(will.payload) + len(will.properties)
        return await self.log_in(packet.username, packet.password, size)

    async def log_in(self, name: str | None, password: bytes | None, size: int = 1000) -> Login:
        """As `enter`. Who had come in as somebody else is this one now."""
        login = await self._services.logins.login(self._applicant(name, password, size))
        self._came_in(login)
        return login

    def refusal(self, event: LineEvent) -> str:
        """Why a line is not obeyed; empty: it is. Who has not logged in may be `anonymous`."""
        if self.login is None and not isinstance(event, LineLogin | LineConfirm | LineError):
            try:
                login = self._services.logins.at_once(self._applicant(None, None, 0))
            except LoginRefused:
                return "log in first: LOGIN <user> <password>"
            assert login is not None
            self._came_in(login)
        return ""

    def _applicant(self, name: str | None, password: bytes | None, size: int) -> Applicant:
        allowed, peer = self._services.config.allow_anonymous, self._peer
        return Applicant(name, password, peer.host, allowed, peer.certificate_user, size)

    def _came_in(self, login: Login) -> None:
        self.leave()
        self.login = login
        self._services.users.enter(self._guest, login)

    @property
    def user(self) -> str:
        """Whose sessions it makes; "": while there are no users, nobody's."""
        return self.login.user if self.login is not None and self._services.users.exist else ""

    def rights(self, client_id: str) -> Rights:
        """Of its session with this client identifier."""
        assert self.login is not None
        login = self.login
        return self._services.permissions.rights(login.user, login.roles, client_id)

    def leave(self) -> None:
        if self.login is not None:
            self._services.users.leave(self._guest, self.login)
            self._services.logins.left(self.login)
            self.login = None
