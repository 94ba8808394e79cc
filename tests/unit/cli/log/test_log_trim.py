"""`pubsub log trim` at rest: what it asks and says. (tests/e2e/test_retention.py: of a broker.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from broker.errors import TopicFilterInvalid
from cli.log import log_trim
from cli.log.log_trim import trim
from cli.terminal.failure import CommandFailed, Exit
from tests.support.messages import numbered
from tests.support.sqlite import ask, opened


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    import asyncio

    async def fill() -> None:
        async with opened(tmp_path / "pubsub.db") as store:
            await store.append(numbered(100, lambda n: f"t/{n % 2}"))

    asyncio.run(fill())
    return tmp_path


def run(data_dir: Path, before: str, *filters: str, **how: bool) -> None:
    options = {"dry_run": False, "unread": False, "yes": False, "json": False} | how
    trim(data_dir, before, filters, **options)


def left(data_dir: Path) -> int:
    [(count,)] = ask(data_dir / "pubsub.db", "SELECT count(*) FROM messages")
    assert isinstance(count, int)
    return count


def test_a_dry_run_says_what_would_go(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(data_dir, "51", "t/1", dry_run=True)
    assert capfd.readouterr().out == "25 messages would be removed before offset 51 (0.0 MB)\n"
    assert left(data_dir) == 100


def test_it_removes_and_says_so(data_dir: Path, capfd: pytest.CaptureFixture[str]) -> None:
    run(data_dir, "51", "t/1", yes=True, json=True)
    record = json.loads(capfd.readouterr().out)
    assert record == {
        "before": 51,
        "removed": 25,
        "bytes": 25 * 64 + 45,
        "unread": 0,
        "kept_unread": 0,
        "dry_run": False,
        "log_start": 2,
    }
    assert left(data_dir) == 75


def test_a_script_has_to_say_yes(data_dir: Path) -> None:
    with pytest.raises(CommandFailed, match="add --yes, or --dry-run") as raised:
        run(data_dir, "51")
    assert raised.value.code is Exit.USAGE
    assert left(data_dir) == 100


@pytest.mark.parametrize(("answer", "stay"), [("n", 100), ("", 100), ("y", 50)])
def test_a_person_is_asked(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, answer: str, stay: int
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: answer)
    if stay == 100:
        with pytest.raises(CommandFailed, match="nothing was removed"):
            run(data_dir, "51")
    else:
        run(data_dir, "51")
    assert left(data_dir) == stay


def test_what_is_no_place_or_no_log_is_said(data_dir: Path) -> None:
    with pytest.raises(CommandFailed) as raised:
        run(data_dir, "soon", yes=True)
    assert raised.value.code is Exit.USAGE
    with pytest.raises(CommandFailed) as raised:
        run(data_dir / "none", "5", yes=True)
    assert raised.value.code is Exit.NOTHING_THERE


@pytest.mark.parametrize("topic_filter", ["a#", "$share/g/a", "$replay/5/a", "$delayed/1/a"])
def test_a_filter_that_is_none_is_told_in_its_words(data_dir: Path, topic_filter: str) -> None:
    with pytest.raises(TopicFilterInvalid) as refused:
        run(data_dir, "51", topic_filter, yes=True)
    assert str(refused.value).startswith("Topic Filter ")
    assert left(data_dir) == 100


def test_a_time_is_said_as_to_other_commands(
    data_dir: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    run(data_dir, "1971-01-01", dry_run=True, json=True)
    assert json.loads(capfd.readouterr().out)["before"] == 1
    run(data_dir, "tomorrow 00:00", dry_run=True, json=True)
    assert json.loads(capfd.readouterr().out)["before"] == 101


@pytest.mark.parametrize(("dry_run", "doing"), [(True, "looking"), (False, "removing")])
def test_on_the_way_it_says_whether_it_removes(
    monkeypatch: pytest.MonkeyPatch, *, dry_run: bool, doing: str
) -> None:
    shown: list[str] = []
    monkeypatch.setattr("cli.terminal.output.progress", shown.append)
    state = {"removed": 4782, "dry_run": dry_run}
    log_trim._progress(state | {"done": False})
    log_trim._progress(state | {"done": True})
    assert shown == [f"{doing}: 4,782 messages"]
