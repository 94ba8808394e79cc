"""Messages, made in few words."""

from __future__ import annotations

from collections.abc import Callable

from broker.message import Message, Offset


def message(
    payload: bytes | str = b"",
    topic: str = "t",
    *,
    qos: int = 1,
    offset: int = 0,
    publisher: str = "pub1",
    retain: bool = False,
    at: int = 1_700_000_000_000_000,
    expires_at_us: int | None = None,
    properties: bytes = b"",
) -> Message:
    payload = payload.encode() if isinstance(payload, str) else payload
    return Message(
        topic, payload, qos, retain, publisher, at, expires_at_us, properties, Offset(offset)
    )


def numbered(
    count: int,
    topic: str | Callable[[int], str] = "t",
    *,
    first: int = 1,
    qos: int = 1,
) -> list[Message]:
    """Messages whose payloads are `texts(count, first=first)`; a topic may depend on the number."""
    topic_of = topic if callable(topic) else lambda n: topic
    return [message(str(n), topic_of(n), qos=qos) for n in range(first, first + count)]


def texts(count: int, *, first: int = 1) -> list[bytes]:
    return [str(n).encode() for n in range(first, first + count)]
