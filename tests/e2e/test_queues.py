"""A durable queue from its making to a dead letter given back: the walk of `docs/queues.md`."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from cli.commands import dead_letters, group
from tests.support.broker_process import ROOT, BrokerProcess, wait_until
from tests.support.command_line import at, fail, pubsub, running, succeed


def made(broker: BrokerProcess, name: str, topic_filter: str, *options: str) -> None:
    where = "--data-dir", str(broker.data_dir)
    succeed("group", "create", name, "--filter", topic_filter, *options, *where)


def letters(broker: BrokerProcess) -> list[dict[str, object]]:
    lines = succeed("dead-letters", "--json", "--data-dir", broker.data_dir)
    return [json.loads(line) for line in lines]


def ran(directory: Path) -> list[str]:
    log = directory / "ran"
    return log.read_text().split() if log.exists() else []


def job(directory: Path, then: str = "true") -> str:
    """Writes the payload and the attempt to `ran`."""
    script = directory / "job.sh"
    script.write_text(
        f'#!/bin/sh\nP=$(cat)\necho "$P:$PUBSUB_ATTEMPT" >> {directory}/ran\n{then}\n'
    )
    script.chmod(0o755)
    return str(script)


def test_a_group_exists_before_its_first_worker(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    made(broker, name, f"{name}/#")
    succeed("pub", f"{name}/a", "early", *at(broker))
    command = ["sub", f"{name}/#", "--group", name, *at(broker)]
    assert succeed(*command, "-C", "1", "--quiet") == ["early"]
    where = "--data-dir", broker.data_dir
    shown = json.loads("".join(succeed("group", "show", name, "--json", *where)))
    assert (shown["made_by"], shown["unread"]) == ("command", 0)
    succeed("group", "rm", name, *where)
    wait_until(lambda: pubsub("group", "show", name, *where).returncode == 66)


def test_a_new_group_begins_where_from_says(broker: BrokerProcess, name: str) -> None:
    for payload in ("one", "two"):
        succeed("pub", name, payload, *at(broker))
    command = ["sub", name, "--group", name, *at(broker), "-C", "2", "--quiet"]
    assert succeed(*command, "--from", "earliest") == ["one", "two"]


def test_a_poison_message_is_a_dead_letter_and_can_be_given_back(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    made(broker, name, f"{name}/#", "--attempts", "2", "--backoff", "100ms")
    good = f"{name}/good"
    worker = ["sub", f"{name}/#", "--group", name, "--exec", job(tmp_path, '[ "$P" != bad ]')]
    where = "--data-dir", broker.data_dir
    dead = ["sub", f"$dead/{name}/#", *at(broker), "-C", "1", "-v", "-W", "20"]
    with (
        running(tmp_path, *dead, says="subscribed") as told,
        running(tmp_path, *worker, *at(broker), says="subscribed"),
    ):
        for payload in ("bad", "a", "b"):
            succeed("pub", good, payload, *at(broker))
        wait_until(lambda: len(ran(tmp_path)) == 4)
        wait_until(lambda: told.lines() == [f"$dead/{name}/{good} bad"])
    assert sorted(ran(tmp_path)) == ["a:1", "b:1", "bad:1", "bad:2"]
    [letter] = [letter for letter in letters(broker) if letter["topic"] == good]
    assert (letter["attempts"], letter["reason"]) == (2, "exit code 1")
    offset = str(letter["offset"])
    assert "bad" in "".join(succeed("dead-letters", "show", name, offset, *where))
    assert succeed("dead-letters", "redrive", name, offset, *where) == [
        f"1 dead letter given back to $share/{name}/{name}/#"
    ]
    fail(66, "dead-letters", "show", name, offset, *where)
    command = ["sub", f"{name}/#", "--group", name, *at(broker), "-C", "1", "--quiet"]
    assert succeed(*command) == ["bad"]


def test_in_a_group_that_no_command_made_the_worker_tries_again_itself(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    """As a refusal is final there. [MQTT-4.8.2-6]"""
    script = job(tmp_path, f"[ $(wc -l < {tmp_path}/ran) -ge 2 ]")
    worker = ["sub", name, "--group", name, "--exec", script, *at(broker)]
    with running(tmp_path, *worker, says="subscribed"):
        succeed("pub", name, "job", *at(broker))
        wait_until(lambda: len(ran(tmp_path)) == 2)
    assert ran(tmp_path) == ["job:1", "job:2"]
    assert [letter for letter in letters(broker) if letter["topic"] == name] == []


def test_a_stop_waits_for_the_running_job_and_it_is_not_done_twice(
    broker: BrokerProcess, tmp_path: Path, name: str
) -> None:
    made(broker, name, name)
    script = job(tmp_path, f"sleep 1; touch {tmp_path}/done")
    worker = ["sub", name, "--group", name, "--exec", script, *at(broker)]
    with running(tmp_path, *worker, says="subscribed") as first:
        succeed("pub", name, "job", *at(broker))
        wait_until(lambda: ran(tmp_path) == ["job:1"])
        first.process.terminate()
        assert first.process.wait(10) == 0
    assert (tmp_path / "done").exists()
    fail(27, *worker, "-W", "1")
    assert ran(tmp_path) == ["job:1"]


def test_a_clean_restart_of_the_broker_does_no_job_twice(
    own_broker: BrokerProcess, tmp_path: Path
) -> None:
    """The one that runs meanwhile is acknowledged when it comes again; others do not get it."""
    made(own_broker, "workers", "jobs")
    script = job(tmp_path, "sleep 2")
    worker = ["sub", "jobs", "--group", "workers", "--exec", script, *at(own_broker)]
    with running(tmp_path, *worker, says="subscribed"):
        succeed("pub", "jobs", "one", *at(own_broker))
        wait_until(lambda: ran(tmp_path) == ["one:1"])
        own_broker.stop()
        own_broker.start()
        with running(tmp_path, *worker, says="subscribed"):
            succeed("pub", "jobs", "two", *at(own_broker))
            wait_until(lambda: len(ran(tmp_path)) == 2)
            wait_until(
                lambda: (
                    '"retries":0'
                    in "".join(
                        succeed(
                            "group", "show", "workers", "--json", "--data-dir", own_broker.data_dir
                        )
                    )
                )
            )
    assert ran(tmp_path) == ["one:1", "two:1"]


def test_dead_letters_survive_a_kill_and_are_changed_at_rest(own_broker: BrokerProcess) -> None:
    made(own_broker, "workers", "jobs/#", "--attempts", "1")
    where = "--data-dir", own_broker.data_dir
    worker = ["sub", "jobs/#", "--group", "workers", "--exec", "exit 3", "-W", "2"]
    for n in range(3):
        succeed("pub", f"jobs/{n}", "poison", *at(own_broker))
    fail(27, *worker, *at(own_broker))
    own_broker.kill()
    assert [letter["reason"] for letter in letters(own_broker)] == ["exit code 3"] * 3
    assert succeed("dead-letters", "redrive", "workers", "1", *where) == [
        "1 dead letter given back to $share/workers/jobs/#"
    ]
    assert succeed("dead-letters", "drop", "workers", "--all", *where) == ["2 dead letters dropped"]
    assert letters(own_broker) == []
    assert pubsub("check", *where).returncode == 0
    own_broker.start()
    command = [
        "sub",
        "jobs/#",
        "--group",
        "workers",
        *at(own_broker),
        "-C",
        "1",
        "--quiet",
        "-W",
        "10",
    ]
    assert succeed(*command) == ["poison"]


def test_who_works_is_counted_and_in_the_way_of_a_removal(
    own_broker: BrokerProcess, tmp_path: Path
) -> None:
    """Whatever its session: that of a worker without a name is stored nowhere."""
    where = "--data-dir", own_broker.data_dir
    made(own_broker, "workers", "jobs/#")

    def members() -> object:
        shown = json.loads("".join(succeed("group", "show", "workers", "--json", *where)))
        [listed] = [json.loads(line) for line in succeed("group", "ls", "--json", *where)]
        assert listed["members"] == shown["members"]
        return shown["members"]

    assert members() == 0
    worker = ["sub", "jobs/#", "--group", "workers", "--exec", "cat", *at(own_broker)]
    with running(tmp_path, *worker, says="subscribed"):
        wait_until(lambda: members() == 1)
        assert "has members" in fail(1, "group", "rm", "workers", *where)
    wait_until(lambda: members() == 0)
    own_broker.stop()
    assert members() == 0
    succeed("group", "rm", "workers", *where)


def test_dead_letters_go_when_they_are_old_enough(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path, {"dead_letter_age_s": 1}) as broker:
        made(broker, "workers", "jobs/#", "--attempts", "1")
        succeed("pub", "jobs/a", "poison", *at(broker))
        worker = ["sub", "jobs/#", "--group", "workers", "--exec", "false", *at(broker)]
        with running(tmp_path, *worker, says="it is refused"):
            wait_until(lambda: "dead letter too old" in broker_status(broker))
        assert letters(broker) == []


def broker_status(broker: BrokerProcess) -> str:
    return "".join(succeed("broker", "status", "--json", "--data-dir", broker.data_dir))


def test_a_bare_name_is_refused_where_two_filters_have_it(broker: BrokerProcess, name: str) -> None:
    """Name and filter together are the group. [MQTT 5, 4.8.2]"""
    made(broker, name, f"{name}/a")
    made(broker, name, f"{name}/b")
    where = "--data-dir", broker.data_dir
    said = fail(2, "group", "show", name, *where)
    assert f"$share/{name}/{name}/a" in said
    assert "--filter" in said
    succeed("group", "show", name, "--filter", f"{name}/a", *where)
    fail(2, "sub", name, "--group", "a/b", *at(broker))


def test_clients_cannot_publish_dead_letters(broker: BrokerProcess, name: str) -> None:
    assert "Topic name invalid" in fail(1, "pub", f"$dead/{name}", "x", *at(broker))


def test_the_examples_work(own_broker: BrokerProcess) -> None:
    where = "--data-dir", own_broker.data_dir
    for text in group.EXAMPLES.values():
        for line in text.splitlines():
            if line.startswith("  pubsub "):
                succeed(*shlex.split(line)[1:], *where)
    succeed("group", "create", "workers", "--filter", "jobs/#", "--attempts", "1", *where)
    worker = [
        "sub",
        "jobs/#",
        "--group",
        "workers",
        "--exec",
        "exit 3",
        *at(own_broker),
        "-W",
        "1.5",
    ]
    for n in range(3):
        succeed("pub", f"jobs/{n}", "poison", *at(own_broker))
    fail(27, *worker, *at(own_broker))
    offsets = [str(letter["offset"]) for letter in letters(own_broker)]
    for text in dead_letters.EXAMPLES.values():
        for line in text.splitlines():
            if line.startswith("  pubsub "):
                words = [offsets[0] if word == "17" else word for word in shlex.split(line)[1:]]
                done = pubsub(*words, *where)
                assert done.returncode in (0, 66), (line, done.stderr)


def test_the_walk_of_the_documentation(own_broker: BrokerProcess) -> None:
    """Every command of `docs/queues.md`, in its order."""
    text = (ROOT / "docs/queues.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
    lines = [line for block in blocks for line in block.splitlines()]
    codes = []
    for line in lines:
        words = shlex.split(line)[1:]
        speaks_mqtt = words[0] in ("pub", "sub")
        where = at(own_broker) if speaks_mqtt else ("--data-dir", str(own_broker.data_dir))
        done = pubsub(*words, *where)
        codes.append(done.returncode)
        if "--exec" in words:
            assert done.stdout == b"cat.png\n"
            assert done.stderr.count(b"exit code 1") == 3
        elif words[:2] == ["dead-letters", "show"]:
            assert b"not-a-picture" in done.stdout
    assert codes == [0, 0, 0, 27, 0, 0, 0, 0, 66, 0, 0, 27], [*zip(lines, codes, strict=True)]
