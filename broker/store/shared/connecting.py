"""Connecting: a client of NATS that is connected to one of the nodes of a log."""

from __future__ import annotations

import asyncio
import logging
import ssl
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress

import nats.errors
import nats.js.errors
from nats.aio.client import Client

from broker import tasks
from broker.errors import StoreUnavailable
from broker.store.shared.access import Access

CONNECT_TIMEOUT_S = 10.0
RETRY_S = 0.2
PENDING_BYTES_MAX = 64 << 20
TOLD_MAX = 1000
CLOSE_TIMEOUT_S = 2.0
"""For bytes that a node does not take any more."""
GONE = (nats.errors.Error, nats.js.errors.Error, OSError)
"""What ends with a connection that is lost. (TimeoutError is an OSError.)"""

logger = logging.getLogger(__name__)


def _is_news(record: logging.LogRecord) -> bool:
    """Not what asyncio says of each TLS connection of the client that ends."""
    return "eof_received() has no effect" not in record.getMessage()


logging.getLogger("asyncio").addFilter(_is_news)


async def connect(servers: Sequence[str], access: Access) -> Client:
    """Raises StoreUnavailable: no server is there, or none lets us in; ConfigError."""
    options = access.options()
    deadline = time.monotonic() + CONNECT_TIMEOUT_S
    why: list[Exception] = []
    while (left_s := deadline - time.monotonic()) > 0:
        client = Client()
        connecting = client.connect(
            [*servers],
            allow_reconnect=True,
            max_reconnect_attempts=-1,
            reconnect_time_wait=RETRY_S,  # type: ignore[arg-type]  # It may be a part.
            connect_timeout=2,
            ping_interval=2,
            max_outstanding_pings=2,
            pending_size=PENDING_BYTES_MAX,
            error_cb=_noted_in(why),
            **options,
        )
        # A task, as the client may swallow a cancellation, and go on for ever.
        attempt = tasks.start(connecting, why.append)
        try:
            await asyncio.wait([attempt], timeout=left_s)
        except BaseException:
            attempt.cancel()
            await close(client)
            raise
        if client.is_connected:
            return client
        attempt.cancel()
        await close(client)
        await asyncio.sleep(RETRY_S)
    raise StoreUnavailable(f"no node of the log answers at {', '.join(servers)}{_reason(why)}")


def _noted_in(why: list[Exception]) -> Callable[[Exception], Awaitable[None]]:
    """What the client would print a traceback of: a node that is down."""

    async def note(error: Exception) -> None:
        if len(why) < TOLD_MAX:
            why.append(error)
        logger.debug("a node of the shared log: %r", error)

    return note


def _reason(why: Sequence[Exception]) -> str:
    """Why no node lets us in, where it is not that nobody is there."""
    for error in why:
        if isinstance(error, ssl.SSLError):
            return f": {error}"
        if "Authorization Violation" in str(error):
            return ": they know no such user and password (store_credentials)"
    return ""


async def close(client: Client) -> None:
    """Whatever became of the node that it was connected to."""
    with suppress(*GONE):
        async with asyncio.timeout(CLOSE_TIMEOUT_S):
            await client.close()
