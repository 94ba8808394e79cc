"""Hashes beside the loop: so many at a time, in turns, and no more than so many wait."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import pytest

from broker.errors import LoginRefused, TooManyLogins
from broker.registry.access import hashing as module
from broker.registry.access.hashing import Hashing
from tests.support.patience import PATIENCE_S


class Held:
    """A call that ends when it may."""

    def __init__(self) -> None:
        self.may_end = threading.Event()
        self.has_begun = threading.Event()
        self.order: list[str] = []

    def __call__(self, name: str = "") -> str:
        self.has_begun.set()
        assert self.may_end.wait(60)
        self.order.append(name)
        return name


@pytest.fixture
def held() -> Iterator[Held]:
    held = Held()
    yield held
    held.may_end.set()


@pytest.fixture
def hashing(held: Held) -> Iterator[Hashing]:
    hashing = Hashing(1)
    yield hashing
    held.may_end.set()
    hashing.stop()


async def turns() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


def begin(hashing: Hashing, held: Held, *addresses: str, size: int = 1) -> list[asyncio.Task[str]]:
    return [
        asyncio.create_task(hashing.run(address, size, lambda n=address: held(n)))  # type: ignore[misc]
        for address in addresses
    ]


async def test_addresses_have_turns(hashing: Hashing, held: Held) -> None:
    tasks = begin(hashing, held, "a", "a", "a", "a", "b")
    await turns()
    assert hashing.waiting_count == 4
    held.may_end.set()
    assert await asyncio.gather(*tasks) == ["a", "a", "a", "a", "b"]
    assert held.order == ["a", "a", "b", "a", "a"]
    assert hashing.waiting_count == 0


async def test_no_more_than_so_many_wait(
    hashing: Hashing, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_MAX", 4)
    tasks = begin(hashing, held, "a", "a", "a")
    await turns()
    with pytest.raises(TooManyLogins):  # Half of them is for others.
        await hashing.run("a", 1, held)
    tasks += begin(hashing, held, "b", "c")
    await turns()
    with pytest.raises(TooManyLogins):
        await hashing.run("d", 1, held)
    held.may_end.set()
    await asyncio.gather(*tasks)
    assert await hashing.run("d", 1, lambda: "in") == "in"


async def test_what_waits_is_bounded_in_bytes(
    hashing: Hashing, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "WAITING_BYTES_MAX", 100)
    tasks = begin(hashing, held, "a", "b", size=60)
    await turns()
    with pytest.raises(TooManyLogins):
        await hashing.run("c", 60, held)
    held.may_end.set()
    await asyncio.gather(*tasks)


async def test_who_gives_up_leaves_the_queue_to_others(hashing: Hashing, held: Held) -> None:
    first, gone, last = begin(hashing, held, "a", "b", "c")
    await turns()
    gone.cancel()
    await turns()
    held.may_end.set()
    assert (await first, await last) == ("a", "c")
    assert await hashing.run("d", 1, lambda: "in") == "in"


async def test_who_gives_up_in_its_turn_leaves_that_to_others(
    hashing: Hashing, held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, gone, last = begin(hashing, held, "a", "b", "c")
    await turns()
    turn = hashing._next

    def given_and_not_taken() -> None:
        monkeypatch.undo()
        turn()
        gone.cancel()

    monkeypatch.setattr(hashing, "_next", given_and_not_taken)
    held.may_end.set()
    assert (await first, await asyncio.wait_for(last, PATIENCE_S)) == ("a", "c")
    assert gone.cancelled()


async def test_what_fails_makes_room(hashing: Hashing) -> None:
    def fail() -> None:
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await hashing.run("a", 1, fail)


async def test_who_waits_when_the_broker_stops_is_refused(hashing: Hashing, held: Held) -> None:
    first, second = begin(hashing, held, "a", "b")
    await turns()
    assert await asyncio.to_thread(held.has_begun.wait, 60)
    hashing.stop()
    with pytest.raises(TooManyLogins, match="stops"):
        await second
    with pytest.raises(TooManyLogins, match="stops"):
        await hashing.run("c", 1, held)
    held.may_end.set()
    assert await first == "a"


async def test_who_has_left_by_its_turn_costs_none(hashing: Hashing, held: Held) -> None:
    (first,) = begin(hashing, held, "a")
    await turns()
    gone = [
        asyncio.create_task(hashing.run("a", 1, lambda: held("gone"), lambda: True))
        for _ in range(3)
    ]
    (last,) = begin(hashing, held, "a")
    await turns()
    assert hashing.waiting_count == 4
    held.may_end.set()
    assert await last == "a"
    assert await first == "a"
    for task in gone:
        with pytest.raises(LoginRefused):
            await task
    assert held.order == ["a", "a"]
    assert hashing.waiting_count == 0
