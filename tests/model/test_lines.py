"""The line protocol: any bytes, cut anywhere; and what is published comes back."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from broker.lines.connection import LineConnection, LineEvent, LinePublish
from broker.message import Monotonic

NOW = Monotonic(0.0)

WORDS = st.sampled_from(
    [
        b"PUBLISH",
        b"SUBSCRIBE",
        b"UNSUBSCRIBE",
        b" ",
        b" ",
        b" ",
        b"\n",
        b"\n",
        b"\r\n",
        b"a/b",
        b"+",
    ]
)
STREAMS = st.lists(WORDS | st.binary(max_size=6), max_size=40).map(b"".join)
IN_A_LINE = st.text(
    st.characters(exclude_categories=["Cs"], exclude_characters="\n\r\0"), max_size=30
)


def connection() -> LineConnection:
    return LineConnection(now=NOW, line_bytes_max=40, topic_bytes_max=20, topic_levels_max=3)


def whole(stream: bytes) -> list[LineEvent]:
    return connection().receive_data(stream, NOW)


@given(STREAMS, st.lists(st.integers(0, 200)))
def test_where_the_bytes_are_cut_does_not_matter(stream: bytes, cuts: list[int]) -> None:
    lines = connection()
    events: list[LineEvent] = []
    places = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    for start, end in pairwise(places):
        events += lines.receive_data(stream[start:end], NOW)
    assert events == whole(stream)


@given(STREAMS)
def test_a_line_gives_one_event_unless_it_is_empty(stream: bytes) -> None:
    *lines, rest = stream.split(b"\n")
    asking = [line for line in lines if len(line) > 40 or line.removesuffix(b"\r").strip(b" ")]
    assert len(whole(stream)) == len(asking) + (len(rest) > 40)


@given(IN_A_LINE)
@example("  two  spaces  ")
@example(r"\n")
def test_what_is_published_by_a_line_is_delivered_as_it_was(message: str) -> None:
    lines = LineConnection(now=NOW, line_bytes_max=999, topic_bytes_max=9, topic_levels_max=9)
    sent = b"t %b p" % message.encode()
    (event,) = lines.receive_data(b"PUBLISH %b\n" % sent, NOW)
    assert event == LinePublish("t", message.encode(), "p")
    lines.deliver(event.topic, event.payload, event.publisher, 0)
    assert lines.data_to_send() == b"DELIVER %b 1970-01-01 00:00:00\n" % sent


@given(st.text(), st.binary(), st.text())
def test_a_delivery_is_one_line_and_its_ends_are_tokens(
    topic: str, payload: bytes, publisher: str
) -> None:
    lines = connection()
    lines.deliver(topic, payload, publisher, 0)
    line = lines.data_to_send().decode()
    assert line.count("\n") == 1
    assert line.endswith("\n")
    assert not {"\r", "\0"} & set(line)
    topic_there, rest = line.removeprefix("DELIVER ").split(" ", 1)
    _, publisher_there, day, _ = rest.rsplit(" ", 3)
    assert day == "1970-01-01"
    for text, there in ((topic, topic_there), (publisher, publisher_there)):
        assert there == text or "\\" in there
