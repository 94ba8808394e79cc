"""A message as `--json` tells it."""

from __future__ import annotations

from broker.message import Message
from cli.log.record import record


def test_it_has_what_there_is() -> None:
    made = Message(
        "a", b"\xff", 1, False, "p", 1_741_948_200_000_000, 1_741_948_100_000_000, b"\3\0\4text"
    )
    assert record(made, age_us=200_000_000) == {
        "offset": 0,
        "published_at": "2025-03-14T10:30:00.000000Z",
        "publisher": "p",
        "qos": 1,
        "retain": False,
        "topic": "a",
        "payload_base64": "/w==",
        "content_type": "text",
        "expires_at": "2025-03-14T10:31:40.000000Z",
    }
