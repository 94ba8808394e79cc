"""How much is unread, by the figures of blocks; `test_contract.py` has what the answers are."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

import pytest

from broker.message import Offset
from broker.store import Amount, Stretch
from broker.store.sqlite.reader import Reader
from broker.store.sqlite.searching.filters import Topics
from broker.store.sqlite.searching.measuring import ROWS_PER_PART, Measure
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import message, numbered
from tests.support.sqlite import change

LAST = Offset(40_000)


async def fill(sqlite: SqliteStore, topic: Callable[[int], str] = lambda n: f"t/{n % 3}") -> None:
    for first in range(1, LAST, 10_000):
        await sqlite.append(numbered(10_000, topic, first=first))


def of(*filters: str, after: int = 0) -> Stretch:
    return Stretch(filters, Offset(after))


async def messages(sqlite: SqliteStore, *stretches: Stretch) -> list[int]:
    return [amount.messages for amount in await sqlite.measure(stretches, LAST)]


@pytest.fixture
def looked_at(sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> list[Measure]:
    """The parts that were asked for."""
    parts: list[Measure] = []
    measure_part = Reader.measure_part

    def counted(reader: Reader, measure: Measure) -> None:
        parts.append(measure)
        measure_part(reader, measure)

    monkeypatch.setattr(Reader, "measure_part", counted)
    return parts


async def test_who_has_read_nearly_all_costs_one_look(
    sqlite: SqliteStore, looked_at: list[Measure]
) -> None:
    await fill(sqlite)
    stretches = [of("t/1", after=LAST - 900 + n % 5) for n in range(50)]
    assert {*await messages(sqlite, *stretches)} == {299, 300}
    assert len(looked_at) <= 2


async def test_a_look_is_short_however_many_topics_and_cursors_there_are(
    sqlite: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one pass become as many as there are subscribers."""
    await fill(sqlite, lambda n: f"t/{n % 5000}")
    rows = 0
    longest = 0

    def profile(statement: str) -> None:
        nonlocal rows
        rows += 1

    measure = Measure([of(f"t/{n}", after=n * 30) for n in range(1000)], 1, LAST)
    topics = Topics(connection := sqlite3.connect(sqlite.path))
    connection.set_trace_callback(profile)
    parts = 0
    while not measure.done:
        before = rows
        measure.part(connection, topics)
        longest = max(longest, rows - before)
        parts += 1
    connection.close()
    assert parts < 60
    assert longest < ROWS_PER_PART
    assert [a.messages for a in measure.amounts[:3]] == [8, 7, 7]


async def test_a_few_topics_are_sought_and_all_others_passed_over(sqlite: SqliteStore) -> None:
    await fill(sqlite, lambda n: "rare" if n % 4000 == 7 else f"t/{n % 700}")
    statements: list[str] = []
    connection = sqlite3.connect(sqlite.path)
    topics = Topics(connection)
    connection.set_trace_callback(statements.append)
    measure = Measure([of("rare", "rarer/#", after=3)], 1, LAST)
    while not measure.done:
        measure.part(connection, topics)
    connection.close()
    assert measure.amounts[0].messages == 10
    assert any("looked_at" in statement for statement in statements)
    assert not any("GROUP BY topic_id\n" in statement for statement in statements[8:])


async def test_all_topics_are_counted_by_the_figures_over_all(sqlite: SqliteStore) -> None:
    await fill(sqlite, lambda n: f"t/{n % 1000}")
    statements: list[str] = []
    connection = sqlite3.connect(sqlite.path)
    connection.set_trace_callback(statements.append)
    measure = Measure([of("#", after=1500)], 1, LAST)
    while not measure.done:
        measure.part(connection, Topics(connection))
    connection.close()
    assert measure.amounts[0].messages == LAST - 1500
    assert not any("topic_blocks" in statement for statement in statements)


async def test_blocks_without_figures_are_counted_by_their_rows(sqlite: SqliteStore) -> None:
    await fill(sqlite)
    await sqlite.close()
    change(sqlite.path, "UPDATE topic_blocks SET messages = NULL WHERE block % 7 = 3")
    change(sqlite.path, "UPDATE blocks SET messages = -1 WHERE block % 11 = 5")
    await sqlite.open()
    assert await messages(sqlite, of("t/1"), of("t/+"), of("#"), of("t/1", after=3000)) == [
        13_334,
        LAST,
        LAST,
        12_334,
    ]


async def test_an_older_log_without_any_figures_is_counted(sqlite: SqliteStore) -> None:
    await fill(sqlite)
    await sqlite.close()
    change(
        sqlite.path,
        "UPDATE topic_blocks SET messages = NULL, bytes = NULL",
        "DELETE FROM blocks",
        f"UPDATE log SET accounted_from = {LAST + 1}",
    )
    await sqlite.open()
    assert await messages(sqlite, of("t/1"), of("#", after=100)) == [13_334, LAST - 100]


async def test_what_comes_meanwhile_is_not_counted(sqlite: SqliteStore) -> None:
    await fill(sqlite)
    measure = Measure([of("#"), of("t/1")], 1, LAST)
    await sqlite.append([message(topic="t/1")] * 1)
    await sqlite.append(numbered(3000, "t/1"))
    connection = sqlite3.connect(sqlite.path)
    while not measure.done:
        measure.part(connection, Topics(connection))
    connection.close()
    assert [a.messages for a in measure.amounts] == [LAST, 13_334]


async def test_nothing_is_asked_of_an_empty_log(sqlite: SqliteStore) -> None:
    assert await sqlite.measure([of("#"), of()], Offset(10)) == [Amount(), Amount()]
