from __future__ import annotations

import asyncio
from functools import partial
from itertools import pairwise

import pytest

from broker.message import Monotonic
from broker.net.turns import (
    LITTLE_MAX,
    PIECE_BYTES_FIRST,
    PIECE_BYTES_MAX,
    PIECE_BYTES_MIN,
    PIECE_S,
    TURN,
    TURN_S,
    Arrived,
    Turns,
)
from tests.support.clock import FakeClock


class Reading:
    """Each byte takes `byte_s` of the clock."""

    def __init__(self, clock: FakeClock, byte_s: float) -> None:
        self.arrived = Arrived(clock)
        self.clock = clock
        self.byte_s = byte_s
        self.received = b""
        self.pieces: list[int] = []
        self.reading_paused_by: frozenset[str] = frozenset()

    def receive(self, piece: bytes, now: Monotonic) -> None:
        self.received += piece
        self.pieces.append(len(piece))
        self.clock.advance(len(piece) * self.byte_s)

    def pause_reading(self, reason: str) -> None:
        self.reading_paused_by |= {reason}

    def resume_reading(self, reason: str) -> None:
        self.reading_paused_by -= {reason}


DATA = bytes(range(256)) * 1024
SLOW = TURN_S / PIECE_BYTES_FIRST
"""Seconds a byte: a first piece takes a turn."""


def test_pieces_become_so_large_that_they_take_little_time() -> None:
    slow, quick = Reading(FakeClock(), SLOW), Reading(FakeClock(), 1e-9)
    for connection in (slow, quick):
        for _ in range(20):
            connection.arrived.clear()
            connection.arrived.add(DATA)
            connection.arrived.work(connection.receive, connection.clock.monotonic())
    assert slow.pieces[0] == PIECE_BYTES_FIRST
    assert slow.pieces[-1] == PIECE_BYTES_MIN
    assert quick.pieces[-1] == PIECE_BYTES_MAX
    middle = Reading(FakeClock(), PIECE_S / 50_000)
    middle.arrived.add(DATA * 20)
    for _ in range(20):
        middle.arrived.work(middle.receive, middle.clock.monotonic())
    assert PIECE_S / 2 <= middle.pieces[-1] * middle.byte_s <= PIECE_S * 1.01


def test_bytes_are_handed_on_once_and_in_order() -> None:
    connection = Reading(FakeClock(), SLOW)
    connection.arrived.add(DATA)
    for more in (b"a", b"b" * 10_000, b"c"):
        connection.arrived.work(connection.receive, connection.clock.monotonic())
        connection.arrived.add(more)
    while connection.arrived.size:
        connection.arrived.work(connection.receive, connection.clock.monotonic())
    assert connection.received == DATA + b"a" + b"b" * 10_000 + b"c"


async def test_what_takes_little_time_is_done_at_once() -> None:
    clock = FakeClock()
    turns, connection = Turns(clock), Reading(clock, 1e-9)
    connection.arrived.add(DATA)
    turns.work(connection)
    assert connection.received == DATA
    assert connection.reading_paused_by == set()


async def test_in_a_turn_all_together_have_so_much_time_and_each_its_piece() -> None:
    clock = FakeClock()
    turns, many = Turns(clock), [Reading(clock, SLOW) for _ in range(50)]
    began = clock.monotonic()
    for connection in many:
        connection.arrived.add(DATA)
        turns.work(connection)
    assert clock.monotonic() - began <= 2 * TURN_S
    assert all(connection.reading_paused_by == {TURN} for connection in many)
    longest = 0.0
    rounds = 0
    while any(connection.arrived.size for connection in many):
        began = clock.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, clock.monotonic() - began)
        rounds += 1
        pieces = [len(connection.pieces) for connection in many[1:]]
        assert max(pieces) - min(pieces) <= 1
    assert longest <= 2 * TURN_S
    assert [connection.received for connection in many] == [DATA] * 50
    assert all(connection.reading_paused_by == set() for connection in many)


async def test_the_next_turn_has_its_own_time() -> None:
    clock = FakeClock()
    turns, connection = Turns(clock), Reading(clock, TURN_S / 1000)
    for _ in range(3):
        connection.arrived.add(bytes(1001))
        turns.work(connection)
        assert not connection.arrived.size
        await asyncio.sleep(0)


async def test_who_is_held_back_keeps_the_rest_until_it_may_go_on() -> None:
    clock = FakeClock()
    turns, connection = Turns(clock), Reading(clock, SLOW)
    connection.arrived.add(DATA)
    turns.work(connection)
    worked = len(connection.received)
    connection.pause_reading("log")
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(connection.received) == worked
    assert connection.reading_paused_by == {"log"}
    connection.resume_reading("log")
    turns.put_off(connection)
    assert len(connection.received) == worked, "not while somebody else lets it go on"
    for _ in range(len(DATA) // PIECE_BYTES_MIN + 1):
        await asyncio.sleep(0)
    assert connection.received == DATA


async def test_who_is_gone_is_forgotten() -> None:
    clock = FakeClock()
    turns, connection = Turns(clock), Reading(clock, SLOW)
    connection.arrived.add(DATA)
    turns.work(connection)
    worked = len(connection.received)
    turns.forget(connection)
    for _ in range(5):
        await asyncio.sleep(0)
    assert len(connection.received) == worked


async def test_little_is_put_off_for_its_number_and_not_for_what_others_take() -> None:
    clock = FakeClock()
    turns, done = Turns(clock), list[int]()
    clock.advance(TURN_S * 10)
    assert not any(turns.puts_off(partial(done.append, n)) for n in range(LITTLE_MAX))
    assert turns.puts_off(partial(done.append, 1))
    await asyncio.sleep(0)
    assert done == [1]
    assert not turns.puts_off(partial(done.append, 2))


async def test_much_that_is_little_is_done_in_several_turns_and_in_order(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("broker.net.turns.LITTLE_MAX", 20)
    clock = FakeClock()
    turns, done = Turns(clock), list[int]()

    def work(number: int) -> None:
        done.append(number)
        clock.advance(TURN_S / 10)

    for number in range(100):
        if not turns.puts_off(partial(work, number)):
            work(number)
    after = [len(done)]
    while after[-1] < 100:
        await asyncio.sleep(0)
        after.append(len(done))
    assert max(later - before for before, later in pairwise([0, *after])) <= 20
    assert done == [*range(100)]


async def test_little_that_was_put_off_is_done_beside_a_flood() -> None:
    clock = FakeClock()
    turns, flood, done = Turns(clock), Reading(clock, SLOW), list[int]()
    flood.arrived.add(DATA)
    turns.work(flood)

    def work(number: int) -> None:
        done.append(number)
        clock.advance(PIECE_S / 10)

    for number in range(2 * LITTLE_MAX):
        if not turns.puts_off(partial(work, number)):
            work(number)
    longest = 0.0
    for _ in range(LITTLE_MAX // 10):
        flood.arrived.add(DATA)
        began = clock.monotonic()
        await asyncio.sleep(0)
        longest = max(longest, clock.monotonic() - began)
    assert done == [*range(2 * LITTLE_MAX)]
    assert longest <= 2 * TURN_S
