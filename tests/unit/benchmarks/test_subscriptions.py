"""Many filters are what they are said to be, and what a neighbour waits for is counted."""

from __future__ import annotations

import pytest

from benchmarks.subscriptions import LEVELS, Neighbour, SessionClient, topic, topic_filter
from broker.topics import TopicTree, is_literal, validate_filter
from cli.bench.connection import Loop
from cli.bench.packets import packet, text
from cli.net.address import Address

COUNT = 20_000


def test_filters_have_five_levels_and_wildcards_and_match_no_topic() -> None:
    tree: TopicTree[int, str] = TopicTree()
    filters = [topic_filter(number) for number in range(COUNT)]
    for number, topic_filter_ in enumerate(filters):
        validate_filter(topic_filter_)
        tree.add(topic_filter_, number, topic_filter_)
    assert {topic_filter_.count("/") + 1 for topic_filter_ in filters} == {LEVELS}
    assert sum(map(is_literal, filters)) == COUNT - COUNT // LEVELS
    topics = [topic(number) for number in range(COUNT)]
    assert len(set(topics)) == COUNT
    assert not any(tree.match(name) for name in topics)
    # One character more, and they match.
    assert tree.match(next(filter(is_literal, filters)))
    assert tree.match(topic(5) + "x0")


class Unsent(Neighbour):
    """Of no broker."""

    written = b""

    def connect(self, *, clean: bool = True, resume: bool = False) -> None:
        self._unsent = bytearray()

    def _ask(self, request: bytes, answer_bytes: int) -> bytes:
        return b"\x90\x03\0\1\0"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += bytes(data)


def test_a_neighbour_waits_for_both_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("benchmarks.subscriptions.time.perf_counter", lambda: now[0])
    neighbour = Unsent(Loop(), Address(), "n")
    neighbour.look()
    neighbour.look()
    message = packet(0x30, text("$neighbour/n"))
    assert neighbour.written == message + packet(0xC0, b"")
    now[0] += 0.25
    assert neighbour.received(bytearray(b"\xd0\0" + message), 3) == 2
    assert neighbour.waits
    now[0] += 0.5
    assert neighbour.received(bytearray(message), len(message)) == len(message)
    assert not neighbour.waits
    assert (neighbour.longest_ping_s, neighbour.longest_message_s) == (0.25, 0.75)
    neighbour.look()
    assert neighbour.waits


def test_a_session_counts_whole_packets_by_type() -> None:
    session = SessionClient(Loop(), Address(), "s")
    session.came = [0] * 16
    data = bytearray(b"\x20\x02\0\0\x90\x03\0\1\0\x90\x03\0\1")
    assert session.received(data, len(data)) == 9
    assert (session.came[2], session.came[9]) == (1, 1)
