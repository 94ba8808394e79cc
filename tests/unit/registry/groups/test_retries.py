"""Which retries are in memory: the next ones, and none is forgotten or had twice."""

from __future__ import annotations

import random

from broker.documents.queues import RetryDocument
from broker.message import Offset, ServedUs
from broker.registry.groups.retries import RETRIES_MAX, Retries, Retry
from broker.store import PART_MAX

G = "$share/g/t"


def retry(due: int, offset: int, holder: str = "") -> Retry:
    return Retry(ServedUs(due), Offset(offset), 1, holder)


def loaded() -> Retries:
    retries = Retries()
    retries.read_begins()
    retries.read([], complete=True)
    return retries


def test_they_are_taken_in_the_order_in_which_they_are_due() -> None:
    retries = loaded()
    for one in (retry(30, 1), retry(10, 2), retry(20, 3)):
        retries.add(one)
    assert retries.due_at_us() == 10
    assert retries.take_due(ServedUs(9), 10) == []
    assert [r.offset for r in retries.take_due(ServedUs(20), 1)] == [2]
    assert [r.offset for r in retries.take_due(ServedUs(20), 9)] == [3]
    assert len(retries) == 1


def test_what_is_over_is_not_taken() -> None:
    retries = loaded()
    retries.add(retry(10, 1))
    retries.remove(retry(10, 1))
    assert (len(retries), retries.due_at_us()) == (0, None)


def test_a_client_that_comes_back_takes_what_it_had() -> None:
    retries = loaded()
    for one in (retry(10, 1, "a"), retry(10, 2, "b"), retry(20, 3, "a")):
        retries.add(one)
    assert [r.offset for r in retries.held_by("a")] == [1, 3]
    assert len(retries) == 3
    assert [retries.take(retry(10, 1, "a")) for _ in range(2)] == [True, False]
    assert len(retries) == 2


def test_what_is_put_back_twice_is_there_once() -> None:
    retries = loaded()
    for _ in range(2):
        retries.add(retry(10, 1))
    assert len(retries) == 1


def test_before_anything_was_read_all_is_in_the_store_alone() -> None:
    retries = Retries()
    retries.add(retry(10, 1))
    assert (len(retries), retries.used_up) == (0, True)


def test_what_comes_and_goes_while_the_store_is_read_counts() -> None:
    retries = Retries()
    assert retries.read_begins() is None
    retries.add(retry(10, 1))
    retries.add(retry(20, 2))
    retries.remove(retry(20, 2))
    retries.read([retry(15, 3).document(G), retry(20, 2).document(G)], complete=True)
    assert [r.offset for r in retries.take_due(ServedUs(99), 9)] == [1, 3]


def test_none_is_forgotten_or_had_twice_however_many_there_are() -> None:
    """Beside a store that has every row until it is over: somebody has what was taken, also out of
    its turn, for some time, and puts some back."""
    rng = random.Random(5)
    store: set[Retry] = set()
    had: dict[tuple[int, int], Retry] = {}
    retries = Retries()

    def read() -> None:
        after = retries.read_begins()
        rows = sorted(r for r in store if not after or r.place > after)
        part: list[RetryDocument] = [r.document(G) for r in rows[:PART_MAX]]
        retries.read(part, complete=len(rows) < PART_MAX, taken=had)

    for number in range(400):
        for offset in range(100 * number, 100 * number + rng.randrange(40)):
            holder = rng.choice(("", "", "", "a"))
            one = retry(rng.randrange(100_000), offset, holder)
            store.add(one)
            retries.add(one)
        if retries.used_up:
            read()
        taken = retries.take_due(ServedUs(100_000), rng.randrange(30))
        taken += [one for one in retries.held_by("a")[-2:] if retries.take(one)]
        for one in taken:
            assert one.place not in had
            assert one in store
            had[one.place] = one
        for one in rng.sample([*had.values()], min(len(had), rng.randrange(25))):
            del had[one.place]
            if rng.random() < 0.2:
                retries.add(one)
            else:
                store.remove(one)
                retries.remove(one)
        assert len(retries) <= RETRIES_MAX
    while len(retries) or retries.used_up:
        if retries.used_up:
            read()
        for one in retries.take_due(ServedUs(100_000), 500):
            assert one.place not in had
            had[one.place] = one
    assert {*had.values()} == store
