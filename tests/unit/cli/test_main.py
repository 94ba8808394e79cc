"""What an error means to a script, and what a start of `pubsub` does not wait for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from broker.errors import (
    ConfigError,
    StoreBusy,
    StoreCorrupt,
    StoreDenied,
    StoreFull,
    StoreInUse,
    StoreUnavailable,
    TopicFilterInvalid,
)
from cli.main import main
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit, OutputClosed


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (ConfigError("port", -1, "too small"), Exit.USAGE, "pubsub: port = -1: too small\n"),
        (TopicFilterInvalid("Topic Filter is empty"), 2, "pubsub: Topic Filter is empty\n"),
        (ConnectionLost("closed"), Exit.UNREACHABLE, "pubsub: connection lost: closed\n"),
        (StoreCorrupt("damaged"), Exit.STORE_DAMAGED, "pubsub: damaged\n"),
        (StoreUnavailable("the disk fails"), Exit.STORE_DAMAGED, "pubsub: the disk fails\n"),
        (StoreFull("no space"), Exit.FAILED, "pubsub: no space\n"),
        (StoreInUse("in use"), Exit.FAILED, "pubsub: in use\n"),
        (StoreBusy("locked"), Exit.FAILED, "pubsub: locked\n"),
        (StoreDenied("not yours"), Exit.NOT_AUTHORIZED, "pubsub: not yours\n"),
        (CommandFailed("no", "try", Exit.NOT_AUTHORIZED), 77, "pubsub: no; try\n"),
        (OutputClosed(), Exit.OK, ""),
    ],
)
def test_an_error_is_one_line_and_an_exit_code(
    error: Exception,
    code: int,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(**_: object) -> None:
        raise error

    monkeypatch.setattr("cli.main.app", fail)
    with pytest.raises(SystemExit) as exit:
        main()
    assert exit.value.code == code
    assert capsys.readouterr() == ("", says)


def test_a_thread_that_hangs_does_not_keep_the_process() -> None:
    """As one of the store's in a call to a disk that does not answer."""
    script = """
import threading
from broker.errors import StoreUnavailable
import cli.main

def fail(**_):
    threading.Thread(target=threading.Event().wait).start()
    raise StoreUnavailable("the disk does not answer")

cli.main.app = fail
cli.main.main()
"""
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (74, "pubsub: the disk does not answer\n")


def test_our_own_mistakes_are_not_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(**_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("cli.main.app", fail)
    with pytest.raises(AssertionError):
        main()


def imported(script: str) -> set[str]:
    """By an interpreter that runs this and nothing else."""
    command = [sys.executable, "-c", f"{script}; import sys; print(*sys.modules, file=sys.stderr)"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return set(done.stderr.split())


@pytest.mark.parametrize(
    "script",
    ["import cli.main", "from cli.main import app; app(['pub', '--help'], standalone_mode=False)"],
)
def test_a_start_imports_only_what_is_cheap(script: str) -> None:
    modules = imported(script)
    assert {name for name in modules if name.startswith("broker")} == {"broker", "broker.errors"}
    large = {"asyncio", "httpx", "paho", "pydantic", "rich", "secrets", "socket", "sqlite3"}
    assert not modules & {*large, "tomllib"}


@pytest.mark.parametrize("command", ["publish", "subscribe", "interactive"])
def test_a_client_does_not_wait_for_the_modules_of_the_broker(command: str) -> None:
    modules = imported(f"import cli.messages.{command}")
    assert "paho.mqtt.client" in modules
    assert not modules & {"asyncio", "broker.config", "broker.server.server", "httpx", "sqlite3"}


@pytest.mark.parametrize("group", [[], ["broker"]])
def test_no_summary_of_a_command_is_cut_at_80_columns(
    group: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setattr("sys.argv", ["pubsub", *group, "--help"])
    with pytest.raises(SystemExit):
        main()
    commands = capsys.readouterr().out.partition("Commands:")[2].partition("Examples:")[0]
    assert commands
    assert "..." not in commands
