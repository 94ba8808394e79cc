"""A command for each message: how it ends, and what is told when it failed."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from cli.messages.execute import Command, Failed, execute, put_off
from tests.support.scripted_client import message


class ScriptedConnection:
    """A `cli.messages.execute.Connection`."""

    def __init__(self, error: BaseException | None = None, *, interrupted: bool = False) -> None:
        self.turns = 0
        self.interrupted = interrupted
        self._error = error

    def turn(self) -> None:
        self.turns += 1
        if self._error is not None:
            raise self._error


def run(command: str | Command, connection: ScriptedConnection | None = None) -> str:
    command = Command(command) if isinstance(command, str) else command
    return execute(command, message("t", 1), connection or ScriptedConnection(), 3)


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cli.messages.execute.TURN_S", 0.05)


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


def test_the_connection_is_kept_meanwhile() -> None:
    connection = ScriptedConnection()
    assert run("sleep 0.3", connection) == ""
    assert connection.turns > 1


def test_a_second_interrupt_ends_the_command() -> None:
    with pytest.raises(KeyboardInterrupt):
        run("sleep 30", ScriptedConnection(KeyboardInterrupt()))


def test_what_takes_too_long_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    began = time.monotonic()
    command = f"(sleep 30; touch {tmp_path}/late) & wait"
    assert run(Command(command, timeout_s=0.2)) == "took longer than 0.2 s"
    assert time.monotonic() - began < 5
    assert subprocess.run(["pgrep", "-f", f"touch {tmp_path}/late"], check=False).returncode == 1


def test_a_first_interrupt_waits_for_the_command(tmp_path: Path) -> None:
    """But not longer than the grace."""
    interrupted = ScriptedConnection(interrupted=True)
    assert run(f"sleep 0.3; touch {tmp_path}/done", interrupted) == ""
    assert (tmp_path / "done").exists()
    with pytest.raises(KeyboardInterrupt):
        run(Command("sleep 30", grace_s=0.1), interrupted)


def test_the_command_knows_its_message(tmp_path: Path) -> None:
    assert run(f'echo "$PUBSUB_TOPIC $PUBSUB_ATTEMPT" > {tmp_path}/known') == ""
    assert (tmp_path / "known").read_text() == "t 3\n"


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
