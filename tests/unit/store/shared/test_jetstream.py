"""What needs no node; the rest is in `tests/cluster`, and in the contract of a store."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.errors import StoreUnavailable
from broker.store.shared import jetstream
from broker.store.shared.jetstream import JetStreamLog, make_stream
from tests.support.patience import PATIENCE_S


def delivered(reply: str, data: bytes = b"", headers: dict[str, str] | None = None) -> Msg:
    return Msg(Client(), reply=reply, data=data, headers=headers)


@pytest.mark.parametrize(
    "reply",
    [
        "$JS.ACK.PUBSUB_t.consumer.1.77.5.1700000000000000000.9",
        "$JS.ACK.domain.account.PUBSUB_t.consumer.1.77.5.1700000000000000000.9",
    ],
)
def test_a_record_says_its_place_in_the_stream_and_at_the_consumer(reply: str) -> None:
    assert jetstream._numbers(delivered(reply)) == (77, 5)


def test_what_has_a_status_and_no_content_is_no_record() -> None:
    assert jetstream._status(delivered("", headers={"Status": "409"})) == "409"
    assert jetstream._status(delivered("", b"x", {"Status": "409"})) is None
    assert jetstream._status(delivered("", b"x")) is None


async def test_where_no_node_answers_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jetstream, "CONNECT_TIMEOUT_S", 0.3)
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
    monkeypatch.setattr(jetstream, "_close", close)
    monkeypatch.setattr(jetstream, "CONNECT_TIMEOUT_S", 0.05)
    with pytest.raises(StoreUnavailable, match="no node of the log answers"):
        await jetstream._connect(["nats://127.0.0.1:1"])
