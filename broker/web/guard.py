"""Guard: who comes by the network to administer, and what is asked of each request.

- It logs in by HTTP Basic, with a name and a password or a token, or by its client certificate, as
  an MQTT client does (`registry/logins.py`): failures are counted, told, and cost time. Nothing of
  a body is read before.
- Administration takes a user: while there is none, nobody comes in, and `anonymous` never does.
- A browser sends the password that it remembers also for pages of others, so what a page asks for
  is refused.
- What the user may administer is looked up once the body is whole, in the turn in which the request
  is obeyed.
"""

from __future__ import annotations

import binascii
import logging
from base64 import b64decode

import uvicorn
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from broker.clock import Clock
from broker.errors import LoginRefused, TooManyLogins
from broker.net.http import HttpConnection
from broker.registry.access.logins import Applicant, Logins
from broker.registry.access.permissions import Permissions
from broker.registry.access.users import Users
from broker.security.names import ANONYMOUS, Login
from broker.web import permitted
from broker.web.answers import refusal

BODY_BYTES_MAX = 1 << 20
"""Ten times an import of 1,000 users. Decoded in about 10 ms."""
NO_USERS = "there are no users yet, and administration by the network takes one"
CLOSE = {"connection": "close"}
WHO = CLOSE | {"www-authenticate": 'Basic realm="pubsub", charset="UTF-8"'}

logger = logging.getLogger(__name__)


class Guard:
    """One for all connections: `app` is what it guards."""

    def __init__(
        self,
        app: ASGIApp,
        users: Users,
        logins: Logins,
        permissions: Permissions,
        clock: Clock,
    ) -> None:
        self._app = app
        self._users = users
        self._logins = logins
        self._permissions = permissions
        self._clock = clock

    async def serve(
        self, connection: HttpConnection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        """One request."""
        connection.works()
        try:
            await self._serve(connection, scope, receive, send)
        finally:
            connection.answered()

    async def _serve(
        self, connection: HttpConnection, scope: Scope, receive: Receive, send: Send
    ) -> None:
        headers = dict(reversed(scope["headers"]))
        if b"origin" in headers:
            logger.warning("%s: refused to administer: a web page asks", connection.peer.address)
            await refusal(403, "no web page may administer", headers=CLOSE)(scope, receive, send)
            return
        try:
            login = await self._login(connection, headers.get(b"authorization", b""))
        except TooManyLogins as error:
            await refusal(429, error.reason, headers=CLOSE)(scope, receive, send)
            return
        except LoginRefused as error:
            await refusal(401, error.reason, headers=WHO)(scope, receive, send)
            return
        connection.goes_on(self._clock.monotonic())
        connection.is_known()
        body = await _whole(receive)
        connection.works()
        if body is None:
            said = f"a request has at most {BODY_BYTES_MAX} bytes"
            await refusal(413, said, headers=CLOSE)(scope, receive, send)
        elif not self._users.exist:  # They were removed meanwhile.
            await refusal(401, NO_USERS, headers=WHO)(scope, receive, send)
        else:
            permitted.give(scope, self._permissions.rights(login.user, login.roles, ""))
            scope["client"] = (f"{login.user} ({connection.peer.address})", 0)
            await self._app(scope, _then(body, receive), send)

    async def _login(self, connection: HttpConnection, authorization: bytes) -> Login:
        """Raises LoginRefused."""
        if not self._users.exist:
            raise LoginRefused(NO_USERS)
        name, password = credentials(authorization)
        peer = connection.peer
        who = Applicant(name, password, peer.host, False, peer.certificate_user)
        who.has_left = connection.has_left
        login = await self._logins.login(who)
        if login.user == ANONYMOUS:
            raise LoginRefused(f"{ANONYMOUS} administers nothing by the network")
        return login


def credentials(authorization: bytes) -> tuple[str | None, bytes | None]:
    """Of the header of this name: user and password; None: it has none that can be read."""
    scheme, _, encoded = authorization.partition(b" ")
    if scheme.lower() != b"basic":
        return None, None
    try:
        name, colon, password = b64decode(encoded, validate=True).partition(b":")
        return (name.decode(), password) if colon else (None, None)
    except (binascii.Error, UnicodeDecodeError):
        return None, None


async def _whole(receive: Receive) -> bytes | None:
    """The body; None: it is too large. Of who has left it is what came."""
    body = bytearray()
    more = True
    while more and len(body) <= BODY_BYTES_MAX:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)
    return bytes(body) if len(body) <= BODY_BYTES_MAX else None


def _then(body: bytes, receive: Receive) -> Receive:
    """Gives the body first."""
    first: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def next_message() -> Message:
        return first.pop() if first else await receive()

    return next_message


class GuardedProtocol(H11Protocol):
    """uvicorn's protocol on a connection of ours."""

    def __init__(
        self, config: uvicorn.Config, state: ServerState, guard: Guard, connection: HttpConnection
    ) -> None:
        super().__init__(config, state, {})

        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            await guard.serve(connection, scope, receive, send)

        self.app = app
