"""A message of the log as one that was received."""

from __future__ import annotations

from broker.message import Message
from cli.log.logged import as_received


def test_it_has_the_properties_of_the_message() -> None:
    properties = (
        b"\x01\x01\x03\x00\x04text\x08\x00\x01r\x09\x00\x02\xff\x00"
        b"\x26\x00\x01a\x00\x01b\x26\x00\x01a\x00\x01c"
    )
    received = as_received(Message("ü", b"x", 2, True, "p", 1, properties=properties))
    assert (received.topic, received.payload, received.qos, received.retain) == ("ü", b"x", 2, True)
    assert received.properties is not None
    assert (
        vars(received.properties).items()
        >= {
            "PayloadFormatIndicator": 1,
            "ContentType": "text",
            "ResponseTopic": "r",
            "CorrelationData": b"\xff\x00",
            "UserProperty": [("a", "b"), ("a", "c")],
        }.items()
    )


def test_one_without_properties_has_none() -> None:
    assert as_received(Message("a", b"x", 1, False, "p", 1)).properties is None
