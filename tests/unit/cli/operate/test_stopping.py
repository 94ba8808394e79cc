"""A command that stops a broker ends when the broker has, or says that it has not."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from cli.main import app
from cli.terminal.failure import CommandFailed, Exit


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], list[str]]:
    """A broker that is still there so many times that it is looked for; what happened."""

    def broker(looks: int) -> list[str]:
        happened: list[str] = []

        def request(method: str, path: str, data_dir: Path) -> dict[str, object]:
            happened.append(f"{method} {path} {data_dir}")
            return {}

        def is_running(_data_dir: Path) -> bool:
            happened.append("looked")
            return happened.count("looked") <= looks

        monkeypatch.setattr("cli.operate.stopping.request", request)
        monkeypatch.setattr("cli.operate.stopping.is_running", is_running)
        return happened

    monkeypatch.setattr("cli.operate.stopping.POLL_S", 0)
    return broker


def test_it_waits_until_the_data_directory_is_free(
    broker: Callable[[int], list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    happened = broker(2)
    app(["broker", "stop", "--data-dir", "d"], standalone_mode=False)
    assert happened == ["POST /stop d", "looked", "looked", "looked"]
    assert capsys.readouterr().err == "stopped\n"


def test_what_it_waits_for_and_what_was_not_stored_is_said(
    broker: Callable[[int], list[str]],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    happened = broker(6)
    looks = iter(
        [
            {"messages": 1, "sessions": 0, "disk": "full"},
            {"messages": 1, "sessions": 0, "disk": "full"},
            {"messages": 2, "sessions": 1, "disk": "full"},
        ]
    )

    def request(method: str, path: str, _data_dir: Path) -> dict[str, object]:
        happened.append(f"{method} {path}")
        if path == "/stop":
            return {}
        waiting = next(looks, None)
        if waiting is None:
            raise CommandFailed("it answers nobody any more")
        return {"waiting": waiting}

    monkeypatch.setattr("cli.operate.stopping.request", request)
    monkeypatch.setattr("cli.operate.stopping.LOOK_S", 0)
    monkeypatch.setattr("cli.operate.stopping.LOOK_AGAIN_S", 0)
    with pytest.raises(CommandFailed) as failed:
        app(["broker", "stop"], standalone_mode=False)
    assert capsys.readouterr().err.splitlines() == [
        "the broker waits: its disk is full, 1 message and changes of 0 sessions are not stored",
        "the broker waits: its disk is full, 2 messages and changes of 1 session are not stored",
    ]
    assert failed.value.code is Exit.FAILED
    assert str(failed.value) == (
        "stopped; 2 messages and changes of 1 session are not stored, as the disk was full:"
        " no client was told that they are"
    )


def test_it_does_not_wait_longer_than_it_is_told(broker: Callable[[int], list[str]]) -> None:
    broker(1_000_000)
    with pytest.raises(CommandFailed, match="has not stopped within 0 s"):
        app(["broker", "stop", "--timeout", "0"], standalone_mode=False)
