"""Administration over HTTP: reads snapshots, no sessions.

It is on a Unix socket in the data directory. Whoever may open that may administer: it is created
with mode 0600. By the network it is on listeners for that, if an operator wants any, for users with
the right to (`guard.py`, `permitted.py`). What changes something is told in the diagnostics
(`audit.py`).

- GET /status   what the broker is doing now, as JSON
- GET /healthz  200 while the broker runs, to whoever has come in
- POST /stop    asks the broker to stop, and answers before it does
- /subscribers, /groups, /users ...: see the other modules
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.net import unix
from broker.net.http import HttpConnection, HttpProtocol
from broker.web.answers import answering
from broker.web.audit import Audited, NamesPeer
from broker.web.guard import Guard, GuardedProtocol
from broker.web.permitted import trusted

logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
"""What strangers send is nothing to warn of, nor what it would take to speak WebSocket here."""


def create_app(
    status: Callable[[], Mapping[str, object]],
    request_stop: Callable[[], None],
    more: Sequence[Route] = (),
) -> Starlette:
    """The administration as an ASGI application; `request_stop` must return at once. `more`: routes
    of other modules."""

    async def get_status(_: Request) -> JSONResponse:
        return JSONResponse(dict(status()))

    async def get_health(_: Request) -> JSONResponse:
        return JSONResponse({"status": "ok"})

    async def post_stop(_: Request) -> JSONResponse:
        request_stop()
        return JSONResponse({"status": "stopping"}, status_code=202)

    return Starlette(
        routes=[
            Route("/status", answering(get_status), methods=["GET"]),
            Route("/healthz", get_health, methods=["GET"]),
            Route("/stop", answering(post_stop), methods=["POST"]),
            *more,
        ],
        middleware=[Middleware(Audited)],
    )


class AdminServer:
    """uvicorn inside the running event loop: no signal handlers, no logging, no timer of its own.

    Its documented `serve` would take the signals, so this uses what `serve` is made of: `load`,
    `lifespan`, `startup`, `servers`, `server_state` and `shutdown`. A test names the versions that
    were tried with it.

    The owner of the data directory calls `start`, so a socket file that is there already was left
    behind by a broker that is gone, and is replaced.
    """

    def __init__(self, app: Starlette, socket_path: Path, guard: Guard | None = None) -> None:
        """`guard` is for who comes by the network."""
        self._path = socket_path
        self._guard = guard
        self._listener: socket.socket | None = None
        self._server = uvicorn.Server(
            uvicorn.Config(
                trusted(app),
                http=NamesPeer,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                date_header=False,
                timeout_graceful_shutdown=1,
            )
        )

    async def start(self) -> None:
        """Raises ConfigError: the path is too long for a Unix socket, or cannot be created."""
        listener = unix.listen(self._path)
        self._server.config.load()
        self._server.lifespan = self._server.config.lifespan_class(self._server.config)
        await self._server.startup(sockets=[listener])
        self._listener = listener

    def welcome(self, connection: HttpConnection) -> HttpProtocol:
        """For a connection to a listener of administration."""
        assert self._guard is not None
        state = self._server.server_state
        return GuardedProtocol(self._server.config, state, self._guard, connection)

    async def stop(self) -> None:
        """Answers what was asked, closes, and removes the socket file; nothing if not started."""
        if self._listener is None:
            return
        if self._server.server_state.connections:
            await self._server.shutdown(sockets=[self._listener])
        else:  # `shutdown` sleeps for 0.1 s before it looks whether anybody is there.
            for server in self._server.servers:
                server.close()
            self._listener.close()
        unix.remove(self._path)
