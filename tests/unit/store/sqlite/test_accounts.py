"""Which offsets should have a message: all from the log start on, but those in gaps."""

from __future__ import annotations

import sqlite3

import pytest

from broker.store.removing import as_ranges
from broker.store.sqlite.accounts import Accounts, Unsound
from broker.store.sqlite.rows import BLOCK_SHIFT
from broker.store.sqlite.store import SqliteStore
from tests.support.messages import numbered

BLOCK = 1 << BLOCK_SHIFT


@pytest.fixture
async def database(sqlite: SqliteStore) -> sqlite3.Connection:
    await sqlite.append(numbered(BLOCK + 200))
    return sqlite._thread.database


@pytest.fixture
def accounts(database: sqlite3.Connection) -> Accounts:
    database.execute("INSERT INTO gaps VALUES (10, 19)")
    return Accounts(database)


def test_gaps_have_no_messages(accounts: Accounts) -> None:
    assert accounts.expected(1, 30) == 20
    assert accounts.expected(12, 15) == 0
    assert accounts.expected(15, 25) == 6
    assert accounts.expected(30, 29) == 0
    assert accounts.claimed([9, 10, 19, 20, BLOCK + 201]) == [9, 20]
    assert accounts.missing(1, 25, {*range(1, 24)}) == [24, 25]


def test_what_is_missing_is_found_in_its_block(accounts: Accounts) -> None:
    there = [*range(1, 10), *range(20, BLOCK + 101)]
    accounts.all_there(there, 1, BLOCK + 101)
    accounts.all_there([9, 20], 9, 21)
    for lost in (1, 9, 20, 500, BLOCK - 1, BLOCK, BLOCK + 100):
        with pytest.raises(Unsound) as caught:
            accounts.all_there([offset for offset in there if offset != lost], 1, BLOCK + 101)
        assert caught.value.block == lost >> BLOCK_SHIFT


def test_nothing_is_claimed_below_the_log_start_or_of_an_older_program(
    database: sqlite3.Connection,
) -> None:
    database.execute("UPDATE log SET start = 40, accounted_from = 50")
    accounts = Accounts(database)
    assert accounts.first(1) == 50
    accounts.all_there([3, 45], 1, 50)
    database.execute("UPDATE log SET start = 60")
    assert accounts.first(1) == 60


def test_figures_that_do_not_add_up_are_noticed_once_checked_blocks_are_not_read_again(
    database: sqlite3.Connection,
) -> None:
    accounts = Accounts(database)
    assert accounts.check_index(0, 1, BLOCK + 200) == 1
    accounts.check_figures(0)
    database.execute("UPDATE topic_blocks SET messages = 3 WHERE block = 0")
    accounts.check_index(0, 1, BLOCK + 200)
    for check in (
        lambda: accounts.check_figures(0),
        lambda: Accounts(database).check_index(0, 0, 9),
    ):
        with pytest.raises(Unsound):
            check()


def test_a_row_that_the_open_block_lost_is_noticed_each_time(database: sqlite3.Connection) -> None:
    accounts = Accounts(database)
    accounts.check_index(1, 1, BLOCK + 200)
    database.execute("DELETE FROM messages WHERE offset = ?", (BLOCK + 5,))
    with pytest.raises(Unsound):
        accounts.check_index(1, 1, BLOCK + 200)
    accounts.check_index(1, 1, BLOCK + 4)


def test_offsets_as_ranges() -> None:
    assert as_ranges([1, 2, 3, 5, 7, 8]) == [range(1, 4), range(5, 6), range(7, 9)]
    assert as_ranges([]) == []
