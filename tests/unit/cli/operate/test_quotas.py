"""`pubsub quota`: what the broker is asked, and how its answer is shown."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from broker import at_rest
from broker.security.quotas import LIMITS
from cli.operate.quotas import HEADINGS, ls, put, remove
from cli.terminal.failure import CommandFailed

Asked = list[tuple[object, ...]]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Asked:
    asked: Asked = []

    def request(*arguments: object) -> dict[str, object]:
        asked.append(arguments)
        limits = {**dict.fromkeys(LIMITS), "sessions": 2000}
        return {"quotas": [{"kind": "user", "name": "ann", **limits}]}

    monkeypatch.setattr("cli.operate.quotas.request", request)
    monkeypatch.setattr("cli.operate.quotas.without_broker", lambda where: None)
    return asked


def test_every_limit_has_a_column() -> None:
    assert tuple(HEADINGS) == LIMITS


def test_what_is_given_is_set_and_nothing_else(asked: Asked, tmp_path: Path) -> None:
    put(tmp_path, "ann", {"connections": 1, "groups": None}, role=False)
    remove(tmp_path, "standard", role=True)
    assert asked == [
        ("POST", "/quotas/set", tmp_path, {"kind": "user", "name": "ann", "connections": "1"}),
        ("POST", "/quotas/rm", tmp_path, {"kind": "role", "name": "standard"}),
    ]


def test_a_limit_that_is_not_set_is_a_dash(
    asked: Asked, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ls(tmp_path, as_json=False)
    assert capfd.readouterr().out == "ann\tuser\t-\t2000\t-\t-\t-\t-\t-\t-\n"
    ls(tmp_path, as_json=True)
    assert '"sessions":2000,"groups":null' in capfd.readouterr().out


def test_where_no_broker_runs_the_log_is_changed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    ls(tmp_path, as_json=True)
    with pytest.raises(CommandFailed, match="no log at"):
        put(tmp_path, "ann", {"sessions": 3}, role=False)
    assert [*tmp_path.iterdir()] == []
    asyncio.run(made(tmp_path))
    put(tmp_path, "ann", {"sessions": 3}, role=False)
    put(tmp_path, "guests", {"connections": 1}, role=True)
    capfd.readouterr()
    ls(tmp_path, as_json=False)
    told = capfd.readouterr().out
    assert told == "guests\trole\t1" + "\t-" * 7 + "\nann\tuser\t-\t3" + "\t-" * 6 + "\n"
    remove(tmp_path, "ann", role=False)
    with pytest.raises(CommandFailed, match="user ann has no quota"):
        remove(tmp_path, "ann", role=False)
    with pytest.raises(CommandFailed, match="this is no name"):
        put(tmp_path, "a:b", {"sessions": 3}, role=False)


async def made(data_dir: Path) -> None:
    """A log."""
    async with at_rest.accounts(data_dir):
        pass


def test_a_terminal_gets_only_the_limits_that_somebody_has(
    asked: Asked,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    ls(tmp_path, as_json=False)
    assert capfd.readouterr().out == "NAME        SESSIONS\nann   user  2,000\n"


def test_all_limits_stand_side_by_side_in_80_columns(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    limits = dict.fromkeys(LIMITS, 100) | {"publish_bytes_per_s": 10_000_000}
    quotas = {"quotas": [{"kind": "role", "name": "standard", **limits}]}
    monkeypatch.setattr("cli.operate.quotas.without_broker", lambda _: None)
    monkeypatch.setattr("cli.operate.quotas.request", lambda *_: quotas)
    monkeypatch.setattr("cli.terminal.output.to_terminal", lambda: True)
    ls(tmp_path, as_json=False)
    assert max(map(len, capfd.readouterr().out.splitlines())) <= 80
