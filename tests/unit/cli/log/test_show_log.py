"""What `pubsub log` says beside the messages: what it understood, and how far it has come."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.store.sqlite.store import SqliteStore
from cli.log.history import Options
from cli.log.show_log import put, show
from cli.terminal.failure import CommandFailed, Exit, OutputClosed
from cli.terminal.progress import Progress
from tests.support.messages import message


@pytest.fixture
async def data_dir(tmp_path: Path) -> Path:
    store = SqliteStore(tmp_path / "pubsub.db")
    await store.open()
    await store.append([message("a")])
    await store.close()
    return tmp_path


def options(data_dir: Path, **changes: object) -> Options:
    return Options(**{"data_dir": data_dir, "filters": (), "last": None} | changes)  # type: ignore[arg-type]


def test_a_person_is_told_what_was_understood(
    data_dir: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show(options(data_dir, start="@1970-01-02T00:00Z"))
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    show(options(data_dir, start="@1970-01-02T00:00Z", until="-10min"))
    first, second = capfd.readouterr().err.splitlines()
    assert first.startswith("from 1970-01-0")
    assert second.startswith("until 20")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"start": "noon"}, "--from"),
        ({"until": "@25:00"}, "--until"),
        ({"start": "resume"}, "is for a subscriber"),
        ({"format": "%k"}, "-F has no field"),
        ({"grep": "("}, "--grep"),
    ],
)
def test_wrong_usage_is_told_before_anything_is_shown(
    data_dir: Path, capfd: pytest.CaptureFixture[str], changes: dict[str, object], says: str
) -> None:
    with pytest.raises(CommandFailed, match=says) as failed:
        show(options(data_dir, **changes))
    assert failed.value.code is Exit.USAGE
    assert capfd.readouterr().out == ""


def test_a_search_that_finds_nothing_ends_when_nobody_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def gone() -> None:
        raise OutputClosed

    monkeypatch.setattr("cli.terminal.output.check_reader", gone)
    with pytest.raises(OutputClosed):
        put(iter([[]]), lambda _: b"", Progress(1))
