"""A command for each message: how it ends, and what is told when it failed."""

from __future__ import annotations

from typing import Any

import pytest

from cli.execute import Failed, execute, put_off
from cli.failure import ConnectionLost
from tests.support.scripted_client import ScriptedClient, message


def run(command: str, client: ScriptedClient | None = None) -> str:
    scripted: Any = client or ScriptedClient()  # It has the face of a Client.
    return execute(command, message("t", 1), scripted)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.execute.TURN_S", 0.05)


@pytest.mark.parametrize(
    ("command", "reason"),
    [
        ("true", ""),
        ("exit 3", "ended with exit code 3"),
        ("kill -9 $$", "was ended by signal 9"),
        ("no-such-command 2>/dev/null", "ended with exit code 127"),
        ("cat >/dev/null", ""),
    ],
)
def test_how_a_command_ended(command: str, reason: str) -> None:
    assert run(command) == reason


def test_the_connection_is_kept_meanwhile_and_its_loss_is_for_later() -> None:
    client = ScriptedClient([ConnectionLost("closed")])
    assert run("sleep 0.2", client) == ""
    assert not client.turns


def test_a_second_interrupt_ends_the_command() -> None:
    client = ScriptedClient([KeyboardInterrupt])
    with pytest.raises(KeyboardInterrupt):
        run("sleep 30", client)


def test_the_pause_doubles_up_to_a_minute(capfd: pytest.CaptureFixture[str]) -> None:
    failing, failed = message("t", 1), None
    pauses = []
    for _ in range(8):
        failed = put_off(failing, "failed", failed, 10.0)
        assert failed is not None
        assert failed.due == 10.0 + failed.pause_s
        pauses.append(failed.pause_s)
    assert pauses == [1, 2, 4, 8, 16, 32, 60, 60]
    assert len(capfd.readouterr().err.splitlines()) == 8
    another = put_off(message("t", 2), "failed", failed, 10.0)
    assert another is not None
    assert another.pause_s == 1


def test_at_qos_0_there_is_nothing_to_try_again(capfd: pytest.CaptureFixture[str]) -> None:
    before = Failed(message("t", 1), 1.0, 1.0)
    assert put_off(message("t", 0, qos=0), "failed", before, 0.0) is None
    assert "not tried again" in capfd.readouterr().err
