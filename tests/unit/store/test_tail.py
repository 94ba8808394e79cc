"""The queue of one reader of `tail`: what it holds, in which order, and how much at most."""

from __future__ import annotations

import pytest

from broker.message import Message, Offset
from broker.store.sqlite.store import SqliteStore
from broker.store.tail import TAIL_QUEUE_BYTES_MAX, Tail
from tests.support.messages import message


async def test_a_slow_reader_of_tail_holds_a_bounded_queue(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("broker.store.tail.TAIL_QUEUE_BYTES_MAX", 100_000)
    batches = sqlite.tail(Offset(1))
    await sqlite.append([message("first")])
    seen: list[Message] = []
    while sqlite.high_watermark < 100 or len(seen) < sqlite.high_watermark:
        batch = await anext(batches)
        assert isinstance(batch, list)
        seen += batch
        if sqlite.high_watermark < 100:
            for _ in range(33):
                await sqlite.append([message(bytes(5_000), properties=bytes(5_000))])
        (tail,) = sqlite._tails
        assert tail._size <= 100_000
        assert sum(m.size for _, batch, _ in tail._batches for m in batch) <= 100_000
    assert [m.offset for m in seen] == [*range(1, 101)]


def batch(first: int, last: int) -> list[Message]:
    return [message(str(n), offset=n) for n in range(first, last + 1)]


def test_batches_are_taken_in_their_order_while_the_reader_keeps_up() -> None:
    tail, one, two = Tail(), batch(1, 2), batch(3, 3)
    tail.add(Offset(0), one, 10)
    tail.add(Offset(2), two, 10)
    assert tail.take(Offset(1)) is one
    assert tail.take(Offset(3)) is two
    assert tail.take(Offset(4)) is None


def test_a_reader_that_lacks_what_came_before_a_batch_reads_for_itself() -> None:
    tail = Tail()
    tail.add(Offset(2), batch(3, 4), 10)
    assert tail.take(Offset(1)) is None
    assert tail.take(Offset(3)) is not None, "the batch is still there"


def test_a_batch_that_is_larger_than_the_queue_is_taken_all_the_same() -> None:
    tail, large = Tail(), batch(2, 3)
    tail.add(Offset(0), batch(1, 1), 10)
    tail.add(Offset(1), large, TAIL_QUEUE_BYTES_MAX + 1)
    assert tail.take(Offset(1)) is None, "the queue was emptied for it"
    assert tail.take(Offset(2)) is large


def test_what_the_reader_read_for_itself_is_not_taken_again() -> None:
    tail = Tail()
    tail.add(Offset(0), batch(1, 2), 10)
    tail.add(Offset(2), batch(3, 5), 10)
    taken = tail.take(Offset(4))
    assert taken is not None
    assert [m.offset for m in taken] == [4, 5]
