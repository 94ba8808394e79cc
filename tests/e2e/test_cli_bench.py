"""`pubsub bench` against a real broker: nothing is lost, and every figure is there."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
from pathlib import Path

import pytest

from tests.support.broker_process import ROOT, BrokerProcess, wait_until
from tests.support.command_line import COMMAND, TIMEOUT_S, at, fail, running, succeed


@pytest.mark.parametrize("qos", [0, 1, 2])
def test_each_subscriber_gets_every_message_of_each_publisher(
    broker: BrokerProcess, qos: int
) -> None:
    (line,) = succeed(
        *("bench", "--json", "-n", "1000", "-q", str(qos), "--publishers", "3"),
        *("--subscribers", "2", *at(broker)),
    )
    result = json.loads(line)
    assert (result["problems"], result["lost_messages"], result["misplaced_messages"]) == ([], 0, 0)
    assert (result["sent_messages"], result["delivered_messages"]) == (1000, 2000)
    assert result["acked_messages"] == (1000 if qos else None)
    assert result["delivered_per_s"] > 0
    assert sum(row["messages"] for row in result["latency_histogram"]) == 2000
    count = "SELECT count(*) FROM history WHERE topic = ?"
    wait_until(lambda: broker.query(count, result["topic"]) == [(1000,)])  # QoS 0 is logged lazily.


@pytest.mark.parametrize("qos", ["0", "1"])
def test_without_subscribers_everything_is_published(
    broker: BrokerProcess, name: str, qos: str
) -> None:
    (line,) = succeed(
        *("bench", "--json", "-n", "1000", "-q", qos, "--subscribers", "0", "-t", name),
        *at(broker),
    )
    assert json.loads(line)["delivered_messages"] is None
    assert broker.query("SELECT count(*) FROM history WHERE topic = ?", name) == [(1000,)]


def test_a_backlog_is_drained_and_leaves_no_subscriber(broker: BrokerProcess, name: str) -> None:
    (line,) = succeed("bench", "--json", "-n", "2000", "--backlog", "-i", name, *at(broker))
    result = json.loads(line)
    assert (result["problems"], result["delivered_messages"]) == ([], 2000)
    assert broker.query("SELECT * FROM subscribers WHERE client_id = ?", f"{name}-sub0") == []


def test_a_rate_is_kept_to(broker: BrokerProcess) -> None:
    (line,) = succeed("bench", "--json", "-n", "20", "--rate", "100", *at(broker))
    result = json.loads(line)
    assert result["delivered_messages"] == 20
    assert result["publishing_s"] >= 0.19


def test_lines_for_people_and_nothing_else_in_a_pipe(broker: BrokerProcess, tmp_path: Path) -> None:
    with running(tmp_path, "bench", "-n", "500", *at(broker), says="") as command:
        assert command.process.wait(TIMEOUT_S) == 0
        assert command.said() == ""
        lines = command.lines()
    assert lines[0].startswith("1 publisher to 1 subscriber, QoS 1, 128 bytes")
    assert [line.split()[:2] for line in lines if line.startswith("lost")] == [["lost", "0"]]


def test_progress_on_a_terminal_until_ctrl_c_and_then_the_result(broker: BrokerProcess) -> None:
    primary, secondary = pty.openpty()
    with subprocess.Popen(
        [*COMMAND, "bench", "--json", "--seconds", "600", "--rate", "50", *at(broker)],
        stdout=subprocess.PIPE,
        stderr=secondary,
        cwd=ROOT,
    ) as process:
        os.close(secondary)
        shown = b""
        while b"received" not in shown:
            shown += os.read(primary, 1000)
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=TIMEOUT_S)
        assert process.returncode == 0
    os.close(primary)
    result = json.loads(said)
    assert result["problems"] == []
    assert result["sent_messages"] == result["delivered_messages"] > 0


def test_a_broker_that_goes_away_ends_it_with_what_was_measured(
    own_broker: BrokerProcess, tmp_path: Path
) -> None:
    command = ["bench", "--json", "--rate", "100", "--seconds", "600", *at(own_broker)]
    with running(tmp_path, *command, says="") as bench:
        while own_broker.query("SELECT count(*) FROM history") < [(10,)]:
            assert bench.process.poll() is None
        own_broker.kill()
        assert bench.process.wait(TIMEOUT_S) == 69
        assert "connection lost" in bench.said()
        result = json.loads(bench.lines()[0])
        assert (result["sent_messages"] >= 10, result["lost_messages"]) == (True, 0)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["--backlog", "-q", "0"], "--backlog"),
        (["--backlog", "--subscribers", "0"], "--backlog"),
        (["-n", "2", "--publishers", "3"], "publisher"),
        (["-t", "a/#"], "without + and #"),
        (["--size", "3"], "--size"),
    ],
)
def test_usage_errors(broker: BrokerProcess, arguments: list[str], hint: str) -> None:
    assert hint in fail(2, "bench", *arguments, *at(broker))


def test_help_has_an_example() -> None:
    assert "  pubsub bench --rate 1000" in "\n".join(succeed("bench", "--help"))
