"""Commands find the broker and connect as they are told: by WebSocket, by a context."""

from __future__ import annotations

from pathlib import Path

from tests.support.broker_process import BrokerProcess
from tests.support.command_line import fail, pubsub, running, succeed

LINES = 2000


def test_messages_go_both_ways_through_a_websocket(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    """Many small ones and a large one: frames have other edges than packets."""
    url = f"ws://127.0.0.1:{broker.port}/mqtt"
    sub = ("sub", "-L", url, name, "-C", str(LINES + 1))
    with running(tmp_path, *sub, says="subscribed") as subscriber:
        lines = "".join(f"{n}\n" for n in range(LINES))
        succeed("pub", "-L", url, name, "-l", stdin=lines.encode())
        succeed("pub", "-L", url, name, "-s", stdin=b"x" * 300_000)
        assert subscriber.process.wait(20) == 0
        assert subscriber.lines() == [*lines.split(), "x" * 300_000]


def test_what_is_no_websocket_is_told(broker: BrokerProcess) -> None:
    said = fail(69, "pub", "-L", f"ws://127.0.0.1:{broker.port}/other", "a", "b")
    assert "no WebSocket: server rejected WebSocket connection: HTTP 404" in said


def test_a_context_is_kept_and_found_by_the_next_command(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    environment = {"XDG_CONFIG_HOME": str(tmp_path)}
    add = ("context", "add", "home", "-L", f"mqtt://127.0.0.1:{broker.port}", "-u", "ann")
    done = pubsub(*add, "--password-stdin", stdin=b"secret\n", environment=environment)
    assert (done.returncode, done.stdout) == (0, b"")
    assert b"secret" not in done.stderr
    done = pubsub("pub", name, "x", "--context", "home", environment=environment)
    assert done.returncode == 0, done.stderr
    pubsub("context", "select", "home", environment=environment)
    done = pubsub("log", "--count", name, "--data-dir", tmp_path, environment=environment)
    assert done.stdout == b"1\n", done.stderr
    listed = pubsub("context", "ls", environment=environment).stdout
    assert listed == f"home\tmqtt://127.0.0.1:{broker.port}\tann\t*\t\n".encode()


def test_a_line_of_standard_input_is_the_password_and_the_rest_are_messages(
    broker: BrokerProcess, name: str
) -> None:
    pub = ("pub", "-p", str(broker.port), "-u", "ann", "--password-stdin", name, "-l", "--json")
    assert len(succeed(*pub, stdin=b"secret\none\ntwo\n")) == 2
