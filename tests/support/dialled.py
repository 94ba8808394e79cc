"""A whole broker in this process, and one connection to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from broker.clock import Clock
from broker.config import Config
from broker.server.server import Server


@asynccontextmanager
async def dialled(
    config: Config, *, clock: Clock | None = None
) -> AsyncIterator[tuple[Server, asyncio.StreamReader, asyncio.StreamWriter]]:
    """By its Unix socket, if it has one. Both end with the block."""
    server = Server(config, clock=clock)
    await server.start()
    try:
        if config.unix_socket is not None:
            reader, writer = await asyncio.open_unix_connection(config.unix_socket)
        else:
            reader, writer = await asyncio.open_connection(*server.address)
        try:
            yield server, reader, writer
        finally:
            writer.close()
    finally:
        await server.stop()
