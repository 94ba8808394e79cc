"""Any bytes to the line protocol: events, whatever the chunks, and lines that read as they were."""

from __future__ import annotations

from datetime import datetime

from broker.lines.connection import (
    LineConfirm,
    LineConnection,
    LineError,
    LineEvent,
    LineLogin,
    LinePublish,
    LineSubscribe,
)
from broker.message import Monotonic
from tests.support.wire import chunks

NOW = Monotonic(0.0)

LINE_BYTES_MAX = 60


def check(data: bytes) -> None:
    if not data:
        return
    size, stream = 1 + data[0] % 32, data[1:]
    events = received([stream])
    assert received(list(chunks(stream, size))) == events
    assert len(events) <= stream.count(b"\n") + 1
    for event in events:
        if isinstance(event, LineError):
            check_answer(event)
        else:
            assert received([command(event)], line_bytes_max=1000) == [event]
        if isinstance(event, LinePublish):
            check_delivery(event)


def connection(line_bytes_max: int = LINE_BYTES_MAX) -> LineConnection:
    return LineConnection(
        now=NOW, line_bytes_max=line_bytes_max, topic_bytes_max=20, topic_levels_max=4
    )


def received(parts: list[bytes], *, line_bytes_max: int = LINE_BYTES_MAX) -> list[LineEvent]:
    lines = connection(line_bytes_max)
    return [event for part in parts for event in lines.receive_data(part, NOW)]


def command(event: LineEvent) -> bytes:
    """A line that asks for it; the last blank keeps a carriage return from being its end."""
    assert not isinstance(event, LineError)
    if isinstance(event, LineConfirm):
        return b"CONFIRM \n"
    if isinstance(event, LinePublish):
        ends = event.topic.encode(), event.payload, event.publisher.encode()
        return b"PUBLISH %b %b %b \n" % ends
    if isinstance(event, LineLogin):
        return b"LOGIN %b %b\r\n" % (event.user.encode(), event.password)
    verb = "SUBSCRIBE" if isinstance(event, LineSubscribe) else "UNSUBSCRIBE"
    return f"{verb} {event.filter} {event.subscriber} \n".encode()


def check_answer(error: LineError) -> None:
    lines = connection()
    lines.error(error.reason)
    written = lines.data_to_send()
    assert written.startswith(b"ERROR ")
    assert written.find(b"\n") == len(written) - 1


def check_delivery(publish: LinePublish) -> None:
    """What a line could say comes out as it went in; any bytes give one line."""
    lines = connection()
    lines.deliver(publish.topic, publish.payload, publish.publisher, 0)
    epoch = str(datetime.fromtimestamp(0)).encode()
    words = publish.topic.encode(), publish.payload, publish.publisher.encode()
    if b"\r" not in b"".join(words):
        assert lines.data_to_send() == b"DELIVER %b %b %b %b\n" % (*words, epoch)
    else:
        written = lines.data_to_send()
        assert written.find(b"\n") == len(written) - 1
        assert b"\r" not in written
