"""Making a database, bringing it up to date, and refusing what is not ours to touch."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.errors import SchemaMismatch
from broker.store.sqlite.files import schema
from broker.store.sqlite.files.schema import Migration, migrate, migrations
from tests.support import old_schemas
from tests.support.messages import message
from tests.support.sqlite import opened, problems
from tests.support.stores import read_all

FIRST = Migration(1, "0001_initial.sql", "CREATE TABLE things (a INTEGER) STRICT;\n")
SECOND = Migration(2, "0002_more.sql", "ALTER TABLE things ADD COLUMN b INTEGER;\n")
REWRITES = Migration(2, "0002_twice.sql", "-- rewrites\nUPDATE things SET a = 2 * a;\n")
BROKEN = Migration(2, "0002_broken.sql", "DELETE FROM things;\nSELECT nothing;\n")
VERSIONS = Migration(
    1,
    FIRST.name,
    FIRST.sql + "CREATE TABLE schema_migrations (version INTEGER PRIMARY KEY, name TEXT NOT NULL,"
    " sha256 TEXT NOT NULL, applied_at_us INTEGER NOT NULL) STRICT;\n",
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "pubsub.db"


@pytest.fixture
def connection(path: Path) -> Iterator[sqlite3.Connection]:
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        yield connection


def version(connection: sqlite3.Connection) -> int:
    value: int = connection.execute("PRAGMA user_version").fetchone()[0]
    return value


def test_the_files_of_the_package_make_a_database(
    connection: sqlite3.Connection, path: Path
) -> None:
    known = migrations()
    assert [migration.version for migration in known] == [*range(1, len(known) + 1)]
    migrate(connection, path, known)
    assert version(connection) == len(known)
    assert connection.execute("PRAGMA application_id").fetchone() == (schema.APPLICATION_ID,)
    rows = connection.execute("SELECT version, name, sha256 FROM schema_migrations").fetchall()
    assert rows == [(m.version, m.name, m.sha256) for m in known]
    for (view,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'view'"):
        connection.execute(f"SELECT * FROM {view}").fetchall()
    not_strict = (
        "SELECT name FROM pragma_table_list"
        " WHERE type = 'table' AND NOT strict AND name NOT LIKE 'sqlite_%'"
    )
    assert connection.execute(not_strict).fetchall() == []


def test_a_second_start_changes_nothing_and_tells_nothing(
    connection: sqlite3.Connection, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    migrate(connection, path, migrations())
    before = connection.execute("SELECT * FROM schema_migrations").fetchall()
    migrate(connection, path, migrations())
    assert connection.execute("SELECT * FROM schema_migrations").fetchall() == before
    assert [*path.parent.iterdir()] == [path]
    assert caplog.messages == []


def test_what_only_adds_needs_no_second_copy_of_the_log(
    connection: sqlite3.Connection, path: Path
) -> None:
    migrate(connection, path, [VERSIONS])
    connection.execute("INSERT INTO things VALUES (7)")
    migrate(connection, path, [VERSIONS, SECOND])
    assert connection.execute("SELECT a, b FROM things").fetchall() == [(7, None)]
    assert version(connection) == 2
    assert [*path.parent.iterdir()] == [path]


def test_a_database_is_copied_before_it_is_rewritten(
    connection: sqlite3.Connection, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    migrate(connection, path, [VERSIONS])
    connection.execute("INSERT INTO things VALUES (7)")
    migrate(connection, path, [VERSIONS, REWRITES])
    assert caplog.messages == [
        f"{path} is migrated from schema 1; a copy of it is kept as pubsub.db.schema-1.backup",
        f"{path}: migrated to schema 2",
    ]
    assert connection.execute("SELECT a FROM things").fetchall() == [(14,)]
    assert version(connection) == 2
    backup = path.with_name("pubsub.db.schema-1.backup")
    with closing(sqlite3.connect(backup)) as copy:
        assert copy.execute("SELECT * FROM things").fetchall() == [(7,)]
        assert version(copy) == 1


def test_a_migration_that_fails_leaves_nothing_behind(
    connection: sqlite3.Connection, path: Path
) -> None:
    migrate(connection, path, [VERSIONS])
    connection.execute("INSERT INTO things VALUES (7)")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, [VERSIONS, BROKEN])
    assert connection.execute("SELECT a FROM things").fetchall() == [(7,)]
    assert version(connection) == 1
    migrate(connection, path, [VERSIONS, SECOND])
    assert version(connection) == 2


def test_a_new_database_is_made_whole_or_not_at_all(
    connection: sqlite3.Connection, path: Path
) -> None:
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, path, [VERSIONS, BROKEN])
    assert version(connection) == 0
    assert connection.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,)
    migrate(connection, path, [VERSIONS, SECOND])
    assert version(connection) == 2


def test_a_newer_database_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, path, [VERSIONS, SECOND])
    with pytest.raises(SchemaMismatch, match=r"schema 2, this program knows 1\); upgrade pubsub"):
        migrate(connection, path, [VERSIONS])


def test_an_edited_migration_is_refused(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, path, [VERSIONS])
    edited = Migration(1, VERSIONS.name, VERSIONS.sql + "-- edited\n")
    with pytest.raises(SchemaMismatch, match=r"another 0001_initial\.sql"):
        migrate(connection, path, [edited])


@pytest.mark.parametrize("foreign", ["CREATE TABLE x (a)", "PRAGMA application_id = 5"])
def test_the_database_of_another_program_is_left_alone(
    connection: sqlite3.Connection, path: Path, foreign: str
) -> None:
    connection.execute(foreign)
    before = path.read_bytes()
    with pytest.raises(SchemaMismatch, match="another program") as caught:
        migrate(connection, path, migrations())
    assert str(path) in str(caught.value)
    assert path.read_bytes() == before


# Deadlines by the wall clock (schema 6), and by the log's own time

DAY_US = 86_400_000_000
NEVER_US = 1 << 62
SAW_US = 20_000 * DAY_US
"""The last sign of life."""


def of_schema_6(connection: sqlite3.Connection, path: Path, *, published_us: int) -> None:
    """A run that began a day before its last message."""
    migrate(connection, path, [m for m in migrations() if m.version <= 6])
    connection.execute(
        "INSERT INTO broker_runs (started_at_us, version) VALUES (?, '0')", (SAW_US - DAY_US,)
    )
    connection.execute("INSERT INTO topics VALUES (1, 't')")
    connection.execute("INSERT INTO publishers VALUES (1, 'p')")
    connection.execute(
        "INSERT INTO messages VALUES (1, 1, 1, ?, 1, 0, ?, x'', x'', 0)",
        (published_us, SAW_US + 5),
    )


def test_a_deadline_by_the_wall_clock_becomes_time_left_and_ends_nothing(
    connection: sqlite3.Connection, path: Path
) -> None:
    of_schema_6(connection, path, published_us=SAW_US)
    deadlines = {
        "connected": None,
        "never": NEVER_US,
        "half": SAW_US + DAY_US // 2,
        "passed": SAW_US,
        "boot in 1970": DAY_US,
        "a year ahead": SAW_US + 365 * DAY_US,
    }
    connection.executemany(
        "INSERT INTO sessions VALUES (?, 86400, 0, ?, 1)", list(deadlines.items())
    )
    connection.executemany(
        "INSERT INTO wills VALUES (?, 't', x'', 0, 0, x'', NULL, 86400, ?, 1)",
        [(name, at) for name, at in deadlines.items() if at != NEVER_US],
    )
    migrate(connection, path, migrations())
    left: dict[str, int | None] = dict.fromkeys(deadlines, DAY_US)
    left |= {"connected": None, "half": DAY_US // 2, "never": NEVER_US}
    sessions = connection.execute(
        "SELECT client_id, iif(expires_at_us < 1 << 62, expires_at_us - served_us, expires_at_us)"
        " FROM sessions, log_time"
    )
    assert dict(sessions.fetchall()) == left
    del left["never"]
    left["passed"] = 0
    wills = connection.execute(
        "SELECT client_id, due_at_us - served_us FROM will_deadlines, log_time"
    )
    assert dict(wills.fetchall()) == left


def test_the_times_of_a_log_that_was_there_begin_at_its_last_sign_of_life(
    connection: sqlite3.Connection, path: Path
) -> None:
    """Here that of its run, as its newest message was published in 1970."""
    of_schema_6(connection, path, published_us=DAY_US)
    migrate(connection, path, migrations())
    times = connection.execute("SELECT served_us, aged_us, wall_us FROM log_time").fetchall()
    assert times == [(SAW_US - DAY_US,) * 3]


def test_a_new_log_has_no_times_yet(connection: sqlite3.Connection, path: Path) -> None:
    migrate(connection, path, migrations())
    assert connection.execute("SELECT * FROM log_time").fetchall() == []


def test_people_see_deadlines_as_the_wall_clock_will_have_them(
    connection: sqlite3.Connection, path: Path
) -> None:
    of_schema_6(connection, path, published_us=SAW_US)
    migrate(connection, path, migrations())
    connection.execute(
        "INSERT INTO sessions"
        " (client_id, session_expiry_s, created_at_us, expires_at_us, revision)"
        " VALUES ('a', 60, 0, ?, 1)",
        (SAW_US + 7,),
    )
    connection.execute(
        "INSERT INTO sessions"
        " (client_id, session_expiry_s, created_at_us, expires_at_us, revision)"
        " VALUES ('never', 60, 0, ?, 1)",
        (NEVER_US,),
    )
    connection.execute("UPDATE log_time SET served_us = served_us - 3, wall_us = wall_us + 1000")
    seen = connection.execute("SELECT client_id, expires_at_us FROM subscribers ORDER BY 1")
    assert seen.fetchall() == [("a", SAW_US + 1010), ("never", NEVER_US)]
    assert connection.execute("SELECT expires_at_us FROM history").fetchall() == [(SAW_US + 1005,)]


# Logs of earlier programs


@pytest.mark.parametrize("version", old_schemas.VERSIONS)
async def test_a_log_of_each_earlier_schema_opens_and_is_sound_and_replays_equal(
    path: Path, version: int
) -> None:
    written = old_schemas.make(path, version)
    async with opened(path) as store:
        assert await read_all(store) == written
        assert await read_all(store, ["t/1"]) == [m for m in written if m.topic == "t/1"]
        assert problems(path) == []
        later = [message("later")]
        await store.append(later)
        assert later[0].offset == old_schemas.MESSAGES + 1
    assert problems(path, at_rest=True) == []


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("UPDATE lag SET cursor = 0", "pubsub subscribers seek"),
        ("UPDATE subscribers SET cursor = 0 WHERE client_id = 'a'", "pubsub subscribers seek"),
        ("DELETE FROM subscribers", "pubsub subscribers rm"),
        ("DELETE FROM lag", "pubsub subscribers rm"),
        ("INSERT INTO subscribers (client_id) VALUES ('b')", "pubsub subscribers fork"),
        ("INSERT INTO lag (client_id) VALUES ('b')", "pubsub subscribers seek"),
    ],
)
def test_who_changes_a_view_for_people_is_told_of_the_command(
    connection: sqlite3.Connection, path: Path, statement: str, says: str
) -> None:
    migrate(connection, path, migrations())
    connection.execute(
        "INSERT INTO sessions (client_id, session_expiry_s, created_at_us, revision)"
        " VALUES ('a', 60, 0, 1)"
    )
    connection.execute("INSERT INTO cursors VALUES ('a', 5, 5, 1, x'', 1)")
    with pytest.raises(sqlite3.IntegrityError, match=says):
        connection.execute(statement)
    assert connection.execute("SELECT cursor FROM subscribers").fetchall() == [(5,)]
