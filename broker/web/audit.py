"""Who administered what: one line in the diagnostics for each request that changes something.

    ann (uid 1000) administers: subscribers rm id=sub1: done
    root (uid 0) administers: users add name=bob: refused (409)
    bob (192.0.2.1:50000) administers: users rm name=ann: refused (403)

The kernel says who opened the Unix socket; who came by the network has logged in. Of a request its
path, the parameters of its query and `TOLD` of its JSON are told, and nothing else of its body:
what is secret goes there.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pwd
import socket
import struct
from urllib.parse import parse_qsl

from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from broker.web.trimming import PATH as TRIM

READING = ("GET", "HEAD", "OPTIONS")
DRY_RUN = "dry_run"
DRY = {"/subscribers/seek": "true", TRIM: "1"}
"""Paths to which a POST only looks if DRY_RUN is this. All others do what they say."""
TOLD = ("name", "user", "role", "roles", "kind", "effect", "action", "filter", "rule")
"""Of a JSON object."""
BODY_BYTES_MAX = 64 * 1024
"""Of what is larger, nothing is told."""
NOBODY_KNOWN = "somebody"
"""Where the system does not tell who it is."""
PEER = struct.Struct("3i")
"""Process, user and group of the other end; see unix(7)."""

logger = logging.getLogger(__name__)


class NamesPeer(H11Protocol):
    """A connection of uvicorn whose `client` is the user at the other end of the Unix socket."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as there
        super().connection_made(transport)
        self.client = (_peer(transport), 0)


def _peer(transport: asyncio.Transport) -> str:
    if not hasattr(socket, "SO_PEERCRED"):
        return NOBODY_KNOWN
    connected = transport.get_extra_info("socket")
    _, uid, _ = PEER.unpack(connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, PEER.size))
    try:
        return f"{pwd.getpwuid(uid).pw_name} (uid {uid})"
    except KeyError:
        return f"uid {uid}"


class Audited:
    """`app`, with each request that changes something told once it is answered."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in READING or _only_looks(scope):
            await self._app(scope, receive, send)
            return
        outcome, body = "failed", bytearray()

        async def heard() -> Message:
            message = await receive()
            body.extend(message.get("body", b"")[: BODY_BYTES_MAX + 1 - len(body)])
            return message

        async def told(message: Message) -> None:
            nonlocal outcome
            if message["type"] == "http.response.start":
                status: int = message["status"]
                outcome = "done" if status < 400 else f"refused ({status})"
            await send(message)

        try:
            await self._app(scope, heard, told)
            if not body:  # It was refused without a look at it.
                await heard()
        finally:
            client = scope.get("client") or (NOBODY_KNOWN, 0)
            logger.info("%s administers: %s: %s", client[0], _command(scope, body), outcome)


def _asked(scope: Scope) -> list[tuple[str, str]]:
    return parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True)


def _only_looks(scope: Scope) -> bool:
    """Of several values the last one counts, as for who obeys."""
    said = dict(_asked(scope)).get(DRY_RUN)
    return scope["method"] == "POST" and said is not None and said == DRY.get(scope["path"])


def _named(body: bytearray) -> list[tuple[str, object]]:
    if len(body) > BODY_BYTES_MAX:
        return []
    try:
        asked = json.loads(body)
    except (ValueError, RecursionError):
        return []
    return (
        [(name, asked[name]) for name in TOLD if name in asked] if isinstance(asked, dict) else []
    )


def _command(scope: Scope, body: bytearray) -> str:
    """As the command line has it, more or less. `DELETE` is what the path alone would not say."""
    words = [] if scope["method"] == "POST" else [scope["method"].lower()]
    words += scope["path"].strip("/").split("/")
    return " ".join(
        [*words, *(f"{name}={value}" for name, value in [*_asked(scope), *_named(body)])]
    )
