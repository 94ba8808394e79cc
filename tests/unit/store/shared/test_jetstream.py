"""What needs no node; the rest is in `tests/cluster`, and in the contract of a store."""

from __future__ import annotations

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from broker.store.shared import jetstream


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
