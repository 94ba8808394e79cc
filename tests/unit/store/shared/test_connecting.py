from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from nats.aio.client import Client

from broker.errors import StoreUnavailable
from broker.store.shared import connecting
from broker.store.shared.access import ANYBODY
from broker.store.shared.jetstream import JetStreamLog, make_stream
from tests.support.patience import PATIENCE_S


async def test_where_no_node_answers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.3)
    server = await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        for opening in (
            JetStreamLog([f"nats://127.0.0.1:{port}"], "t").open(),
            make_stream([f"nats://127.0.0.1:{port}"], "t", replicas=3),
        ):
            with pytest.raises(StoreUnavailable, match=f"no node of the log answers.*{port}"):
                await opening
    finally:
        server.close()
        await server.wait_closed()


async def test_a_client_that_swallows_its_cancellation_is_not_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def connect(*_: object, **__: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.sleep(PATIENCE_S)
        raise OSError("refused")

    async def close(_: Client) -> None:
        pass

    monkeypatch.setattr(Client, "connect", connect)
    monkeypatch.setattr(connecting, "close", close)
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.05)
    with pytest.raises(StoreUnavailable, match="no node of the log answers"):
        await connecting.connect(["nats://127.0.0.1:1"], ANYBODY)
