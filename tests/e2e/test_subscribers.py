"""`pubsub subscribers` with a real broker, and on the log that it leaves."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import ModuleType
from typing import Any

from cli.commands import (
    subscribers,
    subscribers_fork,
    subscribers_rm,
    subscribers_seek,
    subscribers_show,
)
from tests.support.broker_process import BrokerProcess
from tests.support.command_line import at, fail, pubsub, running, succeed
from tests.support.line_socket import LineSocket
from tests.support.raw_client import publish_many


def examples(module: ModuleType) -> list[list[str]]:
    return [
        shlex.split(line)[1:]
        for line in module.EXAMPLES.splitlines()
        if line.startswith("  pubsub ")
    ]


def records(broker: BrokerProcess) -> dict[str, dict[str, Any]]:
    lines = succeed("subscribers", "--json", "--data-dir", broker.data_dir)
    return {record["id"]: record for record in map(json.loads, lines)}


def test_the_examples_work(own_broker: BrokerProcess, tmp_path: Path) -> None:
    """Beside a broker, and on its log when it is stopped."""
    broker = own_broker
    for client_id in ("sub1", "sub2"):
        fail(27, "sub", "weather", "--id", client_id, "-W", "0.2", *at(broker))
    with running(
        tmp_path, *("sub", "jobs/#", "--group", "workers", "--id", "w1"), *at(broker),
        says="subscribed",
    ):  # fmt: skip
        pass
    publish_many(broker.port, "weather", [b"%d" % n for n in range(20)], client_id="publisher")
    modules = [subscribers, subscribers_show, subscribers_seek, subscribers_fork, subscribers_rm]
    for at_rest in (False, True):
        if at_rest:
            broker.stop()
        for module in modules:
            for arguments in examples(module):
                if "sub1-again" in arguments:
                    pubsub("subscribers", "rm", "sub1-again", "--data-dir", broker.data_dir)
                done = pubsub(*arguments, "--data-dir", broker.data_dir)
                assert done.returncode == 0, (arguments, done.stderr)
                if arguments[:2] == ["subscribers", "rm"]:
                    succeed(*("subscribers", "fork", "sub2", "sub1", "--data-dir", broker.data_dir))


def test_a_connected_subscriber_is_moved_and_ended(broker: BrokerProcess, tmp_path: Path) -> None:
    command = "sub", "moved/#", "--id", "mover"
    with running(tmp_path, *command, *at(broker), says="subscribed") as sub:
        publish_many(broker.port, "moved/a", [b"1", b"2", b"3"], client_id="publisher")
        publish_many(broker.port, "other", [b"x"] * 5, client_id="publisher")
        sub.wait_lines(3)
        record = records(broker)["mover"]
        assert (record["connected"], record["lag"], record["lag_s"]) == (True, 0, None)
        assert record["address"].startswith("127.0.0.1:")
        [said] = succeed(
            "subscribers", "seek", "mover", "--to", "-2", "--data-dir", broker.data_dir
        )
        assert said.endswith("2 messages will be sent")
        sub.wait_lines(5)
        assert sub.lines() == ["1", "2", "3", "2", "3"]
        [said] = succeed("subscribers", "rm", "mover", "--data-dir", broker.data_dir)
        assert said == "mover is removed, and its connection closed"
        assert sub.process.wait(20) == 1
        assert "removed by an operator" in sub.said()
    assert "mover" not in records(broker)
    said = fail(66, "subscribers", "show", "mover", "--data-dir", broker.data_dir)
    assert "no subscriber mover" in said


def test_a_line_subscriber_is_one_of_them(broker: BrokerProcess) -> None:
    with LineSocket(broker.port) as line:
        assert line.ask("SUBSCRIBE lines/a liner") == "OK"
        record = records(broker)["liner"]
        assert (record["connected"], record["filters"]) == (True, ["lines/a"])
        [said] = succeed("subscribers", "fork", "liner", "liner2", "--data-dir", broker.data_dir)
        assert said.endswith("with 1 filter")
    publish_many(broker.port, "lines/a", [b"1", b"2"], client_id="publisher")
    assert records(broker)["liner2"]["lag"] == 2
