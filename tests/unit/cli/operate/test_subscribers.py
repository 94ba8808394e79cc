"""What `pubsub subscribers` shows, and what it says of what was done."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from broker.documents import CursorDocument, Put, SessionDocument
from broker.message import Offset, WallUs
from broker.store.sqlite.store import SqliteStore
from cli.operate import subscribers
from cli.terminal.failure import CommandFailed, Exit
from tests.support.messages import numbered
from tests.support.world import subscription

RECORD: dict[str, Any] = {
    "id": "sub1",
    "connected": False,
    "address": None,
    "last_seen": "2025-03-14T10:30:00.000000Z",
    "members": None,
    "filters": ["a/#", "b"],
    "filter_count": 2,
    "cursor": 3,
    "lag": 1234,
    "lag_bytes": 56_789,
    "lag_s": 7300.0,
    "exact": True,
    "in_flight": 0,
    "redeliveries": 0,
    "gaps": 0,
}


@pytest.fixture(autouse=True)
def now(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hours after the client was last there."""
    monkeypatch.setattr(subscribers, "_now_us", lambda: WallUs(1_741_955_400_000_000))


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    """At rest: `sub1` has acknowledged 3 of 10."""
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    cursor = CursorDocument("sub1", Offset(3), Offset(3), 4, b"")
    session = SessionDocument("sub1", 100, 1, None)
    await store.append(numbered(10), [Put(session), Put(subscription("t")), Put(cursor)])
    await store.close()
    return tmp_path


def test_a_terminal_gets_a_table_without_columns_of_zeros() -> None:
    connected = RECORD | {"id": "sub2", "connected": True, "lag": 0, "lag_bytes": 0, "lag_s": None}
    assert subscribers.table([RECORD, connected], 80).splitlines() == [
        "ID    STATE        LAG  BYTES  BEHIND  FILTERS",
        "sub1  away 2h    1,234  57 kB      2h  a/# b",
        "sub2  connected      0    0 B          a/# b",
    ]
    group = RECORD | {"id": "$share/w/j", "members": 1, "in_flight": 5, "gaps": 2, "exact": False}
    heading, line = subscribers.table([group], 80).splitlines()
    assert heading.split("  ")[-1] == "FILTERS"
    assert "FLIGHT" in heading
    assert "GAPS" in heading
    assert "AGAIN" not in heading
    assert "1 member " in line
    assert "<1,234" in line


@pytest.mark.parametrize("edge", [40, 80, 120])
def test_long_names_give_way_to_the_figures(edge: int) -> None:
    busy = {"in_flight": 65_535, "redeliveries": 12_345_678, "gaps": 99}
    many = [RECORD | {"id": f"$share/{'w' * 60}{n}/jobs/#", "filters": ["f" * 200]} | busy
            for n in range(3)]  # fmt: skip
    lines = subscribers.table(many, edge).splitlines()
    assert max(map(len, lines)) <= edge
    if edge > 60:
        assert all("1,234" in line for line in lines[1:])
    if edge > 100:
        assert len({line.split("  ")[0] for line in lines}) == 4, "they can be told apart"


def test_a_damaged_one_has_a_line_too() -> None:
    [_, line] = subscribers.table([{"id": "a\x1b", "damaged": "the cursor"}], 80).splitlines()
    assert line.split() == ["a\\x1b", "damaged", "the", "cursor"]
    assert subscribers.line({"id": "a", "damaged": "x"}).startswith("a\t")


def test_a_pipe_gets_a_line_with_all_columns() -> None:
    assert subscribers.line(RECORD | {"filters": ["a\tb"]}).split("\t") == [
        *("sub1", "away", "", "2025-03-14T10:30:00.000000Z", "3", "1234", "56789", "7300.0"),
        *("0", "0", "0", "a\\tb\n"),
    ]
    assert len(subscribers.COLUMNS) == 12


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0, "0s"), (119, "119s"), (120, "2m"), (7200, "2h"), (200_000, "2d")]
)
def test_durations_are_short(seconds: float, shown: str) -> None:
    assert subscribers.duration(seconds) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (56_789, "57 kB"), (2e12, "2.0 TB")],
)
def test_sizes_are_short(count: int, shown: str) -> None:
    assert subscribers.size(count) == shown


def test_a_log_at_rest_is_listed_and_shown(
    data_dir: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    subscribers.ls(data_dir)
    assert capsysbinary.readouterr().out.startswith(b"sub1\taway\t\t\t3\t7\t")
    subscribers.ls(data_dir, json=True)
    assert json.loads(capsysbinary.readouterr().out)["lag"] == 7
    subscribers.show(data_dir, "sub1")
    shown = capsysbinary.readouterr().out.decode()
    assert "lag               7\n" in shown
    assert "subscriptions     t qos=1\n" in shown
    assert "connected         no\n" in shown


def test_what_is_done_at_rest_is_said(
    data_dir: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def said() -> str:
        return capsysbinary.readouterr().out.decode()

    subscribers.seek(data_dir, "sub1", "1", dry_run=True)
    assert said() == "sub1 would go on at offset 1: 3 messages would be sent\n"
    subscribers.seek(data_dir, "sub1", "9")
    assert said() == "sub1 goes on at offset 9: 5 messages are skipped\n"
    subscribers.seek(data_dir, "sub1", "-3", json=True)
    assert json.loads(said()) == {
        "id": "sub1",
        "connected": False,
        "before": 8,
        "through": 7,
        "in_flight": 0,
        "again": 1,
        "skipped": 0,
        "dry_run": False,
    }
    subscribers.fork(data_dir, "sub1", "copy")
    assert said() == "copy goes on above offset 7, with 1 filter\n"
    subscribers.rm(data_dir, "sub1")
    assert said() == "sub1 is removed, with 3 messages unread\n"
    subscribers.rm(data_dir, "copy", json=True)
    assert json.loads(said()) == {"id": "copy", "connected": False, "unread": 3}
    subscribers.ls(data_dir)
    assert said() == ""


def test_refusals_have_their_exit_codes(data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(CommandFailed, match="did you mean sub1") as failed:
        subscribers.seek(data_dir, "sub", "1")
    assert failed.value.code is Exit.NOTHING_THERE
    with pytest.raises(CommandFailed, match="already") as failed:
        subscribers.fork(data_dir, "sub1", "sub1")
    assert failed.value.code is Exit.FAILED
    with pytest.raises(CommandFailed, match="--to") as failed:
        subscribers.seek(data_dir, "sub1", "nowhere")
    assert failed.value.code is Exit.USAGE
    with pytest.raises(CommandFailed, match="one place") as failed:
        subscribers.seek(data_dir, "sub1", "1:2")
    assert failed.value.code is Exit.USAGE
    for nothing in (tmp_path / "none",):
        with pytest.raises(CommandFailed, match="no log at") as failed:
            subscribers.ls(nothing)
        assert failed.value.code is Exit.NOTHING_THERE


def test_a_broker_that_runs_is_asked(
    monkeypatch: pytest.MonkeyPatch, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    asked: list[tuple[str, str, dict[str, str]]] = []
    pages = [
        {"subscribers": [RECORD], "next": "sub1"},
        {"subscribers": [RECORD | {"id": "sub2"}], "next": None},
    ]

    def request(
        method: str, path: str, data_dir: Path, params: dict[str, str], *, timeout_s: float
    ) -> Any:
        asked.append((method, path, params))
        if path == "/subscribers":
            return pages.pop(0)
        moved = {"through": 4, "again": 2, "skipped": 0, "in_flight": 1}
        return RECORD if method == "GET" else moved

    monkeypatch.setattr(subscribers, "without_broker", lambda where: None)
    monkeypatch.setattr(subscribers, "request", request)
    subscribers.ls(Path("d"))
    assert len(capsysbinary.readouterr().out.splitlines()) == 2
    subscribers.show(Path("d"), "sub1")
    subscribers.seek(Path("d"), "sub1", "2025-03-14", dry_run=True)
    captured = capsysbinary.readouterr()
    assert b"2 messages would be sent; 1 message in flight stays so" in captured.out
    assert b"--to 2025-03-14: 2025-03-14 00:00:00" in captured.err
    assert [(method, path) for method, path, _ in asked] == [
        ("GET", "/subscribers"),
        ("GET", "/subscribers"),
        ("GET", "/subscribers/one"),
        ("POST", "/subscribers/seek"),
    ]
    assert [params.get("after") for _, _, params in asked[:2]] == ["", "sub1"]
    assert asked[3][2]["dry_run"] == "true"
    assert asked[3][2]["to"].startswith("@2025-03-1")
