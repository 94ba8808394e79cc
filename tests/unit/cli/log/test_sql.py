"""Questions to the log in SQL, on a database that the store wrote."""

from __future__ import annotations

import csv
import io
import json
import sqlite3
import time
from pathlib import Path

import pytest

from broker.errors import StoreError
from broker.message import Message
from broker.store.sqlite.store import SqliteStore
from cli.log import sql
from cli.log.sql import list_views, show
from cli.terminal.failure import CommandFailed, Exit

ENDLESS = "WITH RECURSIVE n (x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM n) SELECT max(x) FROM n"


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    await store.append(
        [
            Message("weather", b"Rainy\tday", 1, False, "pub1", 1),
            Message("weather", b"\xff", 1, False, "pub1", 2),
            Message("a", "天気".encode(), 1, False, "pub1", 3),
        ]
    )
    await store.close()
    return tmp_path


def ask(data_dir: Path, query: str, **how: object) -> None:
    options = {"timeout_s": 20.0, "json": False, "csv": False} | how
    show(data_dir, query, **options)  # type: ignore[arg-type]


QUERY = "SELECT topic, payload, offset, NULL AS missing FROM history ORDER BY offset"


def test_a_pipe_gets_tabs(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    ask(data_dir, QUERY)
    assert capfd.readouterr().out.splitlines() == [
        "weather\tRainy\\tday\t1\t",
        "weather\t\\xff\t2\t",
        "a\t天気\t3\t",
    ]


def test_json_has_bytes_that_are_no_text_in_base64(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(data_dir, QUERY, json=True)
    first, second, _ = (json.loads(line) for line in capfd.readouterr().out.splitlines())
    assert first == {"topic": "weather", "payload": "Rainy\tday", "offset": 1, "missing": None}
    assert second["payload_base64"] == "/w=="


def test_csv_has_a_heading_also_without_rows(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(data_dir, QUERY, csv=True)
    rows = [*csv.reader(io.StringIO(capfd.readouterr().out, newline=""))]
    assert rows[:2] == [
        ["topic", "payload", "offset", "missing"],
        ["weather", "Rainy\tday", "1", ""],
    ]
    ask(data_dir, f"SELECT * FROM ({QUERY}) WHERE offset > 9", csv=True)
    assert capfd.readouterr().out.splitlines() == ["topic,payload,offset,missing"]


def test_a_terminal_gets_a_table_within_its_width(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "23")
    ask(data_dir, "SELECT offset AS at, 'home/cellar/boiler' AS topic, 1.5 AS x FROM history")
    assert capfd.readouterr().out.splitlines() == [
        "AT  TOPIC             X",
        " 1  home/cellar/b…  1.5",
        " 2  home/cellar/b…  1.5",
        " 3  home/cellar/b…  1.5",
    ]


def test_a_terminal_is_told_when_there_are_more_rows(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    monkeypatch.setattr(sql, "TABLE_ROWS_MAX", 2)
    ask(data_dir, "SELECT offset FROM history")
    shown = capfd.readouterr()
    assert len(shown.out.splitlines()) == 3
    assert "first 2 rows" in shown.err


def test_columns_of_one_name_are_told_apart(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(data_dir, "SELECT 1 AS a, 2 AS a, 3 AS a", json=True)
    assert json.loads(capfd.readouterr().out) == {"a": 1, "a_2": 2, "a_3": 3}


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM messages",
        "UPDATE cursors SET offset = 0",
        "INSERT INTO topics VALUES (9, 'x')",
        "CREATE TEMP TABLE x (a)",
        "DROP VIEW history",
        "ATTACH 'other.db' AS other",
        "VACUUM INTO 'copy.db'",
        "PRAGMA journal_mode = DELETE",
        "BEGIN",
        "WITH x AS (SELECT 1) DELETE FROM topics",
    ],
)
def test_what_writes_or_stays_is_refused(
    data_dir: Path, query: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data_dir)
    with pytest.raises(CommandFailed, match="pubsub sql only reads") as failed:
        ask(data_dir, query)
    assert failed.value.code is Exit.USAGE
    assert not [path for path in data_dir.iterdir() if not path.name.startswith("pubsub.db")]


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ("SELEC 1", "syntax error"),
        ("SELECT x FROM history", "no such column"),
        ("SELECT 1; SELECT 2", "one statement"),
        (" ", "the query is empty"),
    ],
)
def test_a_mistake_in_the_query_is_a_usage_error(data_dir: Path, query: str, says: str) -> None:
    with pytest.raises(CommandFailed, match=says) as failed:
        ask(data_dir, query)
    assert failed.value.code is Exit.USAGE


@pytest.mark.parametrize("query", [ENDLESS, ENDLESS.replace("max(x)", "x")])
def test_a_query_ends_after_its_timeout(data_dir: Path, query: str) -> None:
    began = time.monotonic()
    with pytest.raises(CommandFailed, match=r"longer than 0\.2 s; --timeout") as failed:
        ask(data_dir, query, timeout_s=0.2)
    assert failed.value.code is Exit.TIMEOUT
    assert time.monotonic() - began < 5


def test_nothing_is_written_before_the_snapshot_has_ended(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever reads our output slowly does not keep the write-ahead log from starting over."""
    connections: list[sqlite3.Connection] = []
    rows = sql._rows

    def remembered(connection: sqlite3.Connection, query: str, timeout_s: float):  # type: ignore[no-untyped-def]
        connections.append(connection)
        return rows(connection, query, timeout_s)

    def write(_: bytes) -> None:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connections[0].execute("SELECT 1")
        written.append(True)

    written: list[bool] = []
    monkeypatch.setattr(sql, "_rows", remembered)
    monkeypatch.setattr("cli.terminal.output.data", write)
    ask(data_dir, QUERY)
    assert written


def test_the_views_are_listed(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    list_views(data_dir, json=True)
    views = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert {"history", "subscribers", "lag"} <= {view["view"] for view in views}
    list_views(data_dir, json=False)
    assert "history\toffset,published_at,publisher" in capfd.readouterr().out


def test_a_terminal_gets_the_views_within_its_width(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    monkeypatch.setenv("COLUMNS", "50")
    list_views(data_dir, json=False)
    lines = capfd.readouterr().out.splitlines()
    assert "history" in lines
    assert all(len(line) <= 50 for line in lines)


def test_damage_is_told(data_dir: Path) -> None:
    path = data_dir / "pubsub.db"
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    with pytest.raises(StoreError):
        ask(data_dir, QUERY)


def test_json_has_what_is_infinite_as_a_text(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ask(data_dir, "SELECT 9e999 AS a, -9e999 AS b, 9e999 - 9e999 AS c", json=True)
    assert capfd.readouterr().out == '{"a":"Infinity","b":"-Infinity","c":null}\n'
