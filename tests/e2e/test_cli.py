"""The command line against a real broker: what a script or a person at four terminals sees."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.broker_process import ROOT, BrokerProcess, free_port, wait_until
from tests.support.command_line import (
    COMMAND,
    TIMEOUT_S,
    Running,
    at,
    fail,
    pubsub,
    running,
    succeed,
)

# The story


def test_the_four_terminals(own_broker: BrokerProcess, tmp_path: Path) -> None:
    broker = own_broker
    with running(
        tmp_path, "sub", "weather", "--id", "sub1", *at(broker), says="subscribed to weather"
    ) as sub:
        succeed("pub", "weather", "Rainy", *at(broker))
        sub.wait_lines(1)
        assert sub.interrupt() == 0
        assert sub.lines() == ["Rainy"]
        assert "Traceback" not in sub.said()
    for message in ("Sunny", "Windy", "Foggy"):
        succeed("pub", "weather", message, "--id", "pub1", *at(broker))
    with running(tmp_path, "sub", "--id", "sub1", "--resume", *at(broker), says="resuming") as sub:
        sub.wait_lines(3)
        assert sub.lines() == ["Sunny", "Windy", "Foggy"]
        succeed("pub", "weather", "Live again", *at(broker))
        sub.wait_lines(4)
        assert sub.interrupt() == 0
        assert sub.lines() == ["Sunny", "Windy", "Foggy", "Live again"]

    while_it_runs = succeed("log", "--data-dir", broker.data_dir)
    assert broker.stop() == 0
    assert succeed("log", "--data-dir", broker.data_dir) == while_it_runs
    offsets, times, publishers, qos, topics, payloads = zip(
        *(line.split("\t") for line in while_it_runs), strict=True
    )
    assert offsets == ("1", "2", "3", "4", "5")
    assert list(times) == sorted(times)
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", time) for time in times)
    assert publishers[1:4] == ("pub1", "pub1", "pub1")
    assert set(qos) == {"1"}
    assert set(topics) == {"weather"}
    assert payloads == ("Rainy", "Sunny", "Windy", "Foggy", "Live again")


def test_a_kill_of_the_broker_loses_nothing_and_its_subscriber_comes_back(
    own_broker: BrokerProcess, tmp_path: Path
) -> None:
    with running(
        tmp_path, "sub", "weather", "--id", "sub1", *at(own_broker), says="subscribed"
    ) as sub:
        succeed("pub", "weather", "before", *at(own_broker))
        sub.wait_lines(1)
        own_broker.kill()
        sub.wait_said("connection lost")
        own_broker.start()
        sub.wait_said("session resumed")
        succeed("pub", "weather", "after", *at(own_broker))
        wait_until(lambda: "after" in sub.lines())
        assert sub.interrupt() == 0
        # What was acknowledged just before a kill may come again. (P4)
        assert list(dict.fromkeys(sub.lines())) == ["before", "after"]


def test_log_follows_what_comes(broker: BrokerProcess, name: str, tmp_path: Path) -> None:
    succeed("pub", name, "first", *at(broker))
    log = Running(tmp_path, "log", name, "-f", "--json", "--data-dir", broker.data_dir)
    log.wait_lines(1)
    succeed("pub", name, "second", *at(broker))
    log.wait_lines(2)
    assert log.interrupt() == 0
    assert [json.loads(line)["payload"] for line in log.lines()] == ["first", "second"]
    assert log.said() == ""


# pub


def test_lines_are_messages_in_order(broker: BrokerProcess, name: str) -> None:
    """More of them than a window holds."""
    numbers = [str(number) for number in range(3000)]
    succeed("pub", name, "-l", *at(broker), stdin="\n".join(numbers).encode())
    replayed = succeed("sub", name, "--from", "earliest", "--until", "latest", *at(broker))
    assert replayed == numbers


def test_a_person_is_told_that_nobody_is_subscribed(own_broker: BrokerProcess) -> None:
    """And a script is not: the message is as good as any other, and in the log."""
    primary, secondary = pty.openpty()
    command = [*COMMAND, "pub", "weather", "Rainy", *at(own_broker)]
    subprocess.run(command, stderr=secondary, cwd=ROOT, timeout=TIMEOUT_S, check=True)
    assert os.read(primary, 1000) == b"accepted; nobody is subscribed to weather now\r\n"
    os.close(primary)
    os.close(secondary)
    quiet = pubsub("pub", "weather", "Rainy", *at(own_broker))
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, b"", b"")


@pytest.mark.parametrize("qos", ["0", "1", "2"])
def test_standard_input_a_file_and_nothing_are_messages_too(
    broker: BrokerProcess, name: str, qos: str, tmp_path: Path
) -> None:
    (tmp_path / "picture").write_bytes(b"\xff\xd8\n\0")
    succeed("pub", name, "-s", "-q", qos, *at(broker), stdin=b"two\nlines\n")
    succeed("pub", name, "-f", tmp_path / "picture", "-q", qos, *at(broker))
    succeed("pub", name, "-n", "-q", qos, *at(broker))
    succeed("pub", "-t", name, "-m", "mosquitto", "-q", qos, *at(broker))
    wait_until(
        lambda: succeed("log", name, "--count", "--data-dir", broker.data_dir) == ["4"],
        timeout_s=TIMEOUT_S,
    )
    records = [json.loads(line) for line in succeed(
        "log", name, "--json", "--data-dir", broker.data_dir
    )]  # fmt: skip
    assert [record.get("payload", record.get("payload_base64")) for record in records] == [
        "two\nlines\n",
        "/9gKAA==",
        "",
        "mosquitto",
    ]
    assert {record["qos"] for record in records} == {int(qos)}


def test_json_tells_the_offset_of_each_message(broker: BrokerProcess, name: str) -> None:
    receipts = [
        json.loads(line)
        for line in succeed("pub", name, "-l", "--json", *at(broker), stdin=b"one\nthree\n")
    ]
    assert [(r["topic"], r["qos"], r["bytes"]) for r in receipts] == [(name, 1, 3), (name, 1, 5)]
    stored = [json.loads(line) for line in succeed(
        "log", name, "--json", "--data-dir", broker.data_dir
    )]  # fmt: skip
    assert [r["offset"] for r in receipts] == [s["offset"] for s in stored]


@pytest.mark.parametrize("qos", [1, 2])
def test_lines_go_on_when_a_broker_that_was_killed_is_back(
    own_broker: BrokerProcess, name: str, qos: int
) -> None:
    """Nothing is lost, QoS 2 is stored once, and QoS 1 twice only if it was sent again."""
    command = [*COMMAND, "pub", name, "-l", "-q", str(qos), *at(own_broker)]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stderr=subprocess.PIPE
    ) as publisher:
        assert publisher.stdin is not None
        lines = [b"%d" % number for number in range(20_000)]
        publisher.stdin.write(b"\n".join(lines[:15_000]) + b"\n")
        publisher.stdin.flush()
        wait_until(lambda: bool(own_broker.query("SELECT 1 FROM messages LIMIT 1")))
        own_broker.kill()
        own_broker.start()
        _, said = publisher.communicate(b"\n".join(lines[15_000:]), timeout=TIMEOUT_S)
    assert publisher.returncode == 0
    lost, again = said.decode().splitlines()
    assert lost.startswith("connection lost")
    assert again.startswith("reconnected")
    stored = [payload for (payload,) in own_broker.query("SELECT payload FROM messages")]
    assert set(stored) == set(lines)
    if qos == 2 or "sent again" not in again:
        assert stored == lines


def test_options_of_mosquitto_do_what_they_do_there(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    url = f"mqtt://127.0.0.1:{broker.port}/{name}"
    succeed("sub", "-c", "-i", name, "-L", f"{url}/#", "-E", "-x", "600")
    will = ("--will-topic", f"{name}/will", "--will-payload", "gone")
    with running(tmp_path, "sub", "elsewhere", *will, *at(broker), says="subscribed"):
        pass  # It is killed.
    wait_until(lambda: succeed("log", f"{name}/will", "--data-dir", broker.data_dir) != [])
    done = pubsub("pub", "-d", "-V", "5", "-L", url, "hello")
    assert done.returncode == 0
    assert "Sending PUBLISH" in done.stderr.decode()
    succeed("pub", f"{name}/no", "noise", *at(broker))
    again = ("-i", name, "-t", f"{name}/#", "-C", "2", "-T", f"{name}/no", "-v", *at(broker))
    assert succeed("sub", *again) == [f"{name}/will gone", f"{name} hello"]


def test_too_large_a_message_is_refused_with_both_sizes(broker: BrokerProcess, name: str) -> None:
    too_large = b"x" * 3_000_000
    said = fail(1, "pub", name, "-s", *at(broker), stdin=too_large)
    assert "a packet of 3,000,0" in said
    assert "at most 2,097,152" in said
    said = fail(1, "pub", name, "-l", *at(broker), stdin=b"1\n%b\n3\n" % too_large)
    assert "1 of 3 messages" in said
    assert succeed("log", name, "--data-dir", broker.data_dir) != []


def test_a_message_may_begin_with_a_dash_and_the_environment_finds_the_broker(
    broker: BrokerProcess, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PUBSUB_URL", f"mqtt://127.0.0.1:{broker.port}")
    monkeypatch.setenv("PUBSUB_DATA_DIR", str(broker.data_dir))
    for command in (["pub", name, "-5"], ["broker", "status"]):
        subprocess.run([*COMMAND, *command], cwd=ROOT, timeout=TIMEOUT_S, check=True)
    stored = subprocess.run(
        [*COMMAND, "log", name], cwd=ROOT, timeout=TIMEOUT_S, check=True, capture_output=True
    )
    assert stored.stdout.endswith(b"\t-5\n")


# sub


def test_a_retained_message_comes_first_unless_left_out(broker: BrokerProcess, name: str) -> None:
    succeed("pub", name, "kept", "--retain", *at(broker))
    assert succeed("sub", name, "-C", "1", "-F", "%r %p", *at(broker)) == ["1 kept"]
    said = fail(27, "sub", name, "-R", "-W", "0.5", *at(broker))
    assert "subscribed" in said


def test_formats_verbose_and_json(broker: BrokerProcess, name: str) -> None:
    succeed("pub", f"{name}/a", "Rainy", "--id", f"{name}pub", *at(broker))
    replay = [f"{name}/#", "--from", "earliest", "--until", "latest", *at(broker)]
    assert succeed("sub", *replay, "-v") == [f"{name}/a Rainy"]
    assert succeed("sub", *replay, "-N") == ["Rainy"]
    assert succeed("sub", *replay, "-F", "%t|%p|%q|%{publisher}") == [f"{name}/a|Rainy|1|{name}pub"]
    (line,) = succeed("sub", *replay, "--json")
    (stored,) = succeed("log", f"{name}/a", "--json", "--data-dir", broker.data_dir)
    assert json.loads(line) == json.loads(stored)


def test_what_was_not_written_is_not_acknowledged(broker: BrokerProcess, name: str) -> None:
    """`-C 2` of five leaves three to the next."""
    fail(27, "sub", name, "--id", name, "-W", "0.2", *at(broker))
    succeed("pub", name, "-l", *at(broker), stdin=b"1\n2\n3\n4\n5\n")
    assert succeed("sub", "--id", name, "--resume", "-C", "2", *at(broker)) == ["1", "2"]
    assert succeed("sub", "--id", name, "--resume", "-C", "3", *at(broker)) == ["3", "4", "5"]
    done = pubsub("sub", "--id", name, "--resume", "-W", "0.3", *at(broker))
    assert (done.returncode, done.stdout) == (27, b"")


def test_a_reader_that_goes_away_ends_it_quietly(broker: BrokerProcess, name: str) -> None:
    """As in `pubsub sub ... | head -1`, and also while no more messages come."""
    succeed("pub", name, "only", *at(broker))
    sub = subprocess.Popen(
        [*COMMAND, "sub", name, "--from", "earliest", "--quiet", *at(broker)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=ROOT,
    )
    assert sub.stdout is not None
    assert sub.stderr is not None
    assert sub.stdout.readline() == b"only\n"
    sub.stdout.close()
    assert sub.wait(TIMEOUT_S) == 0
    assert sub.stderr.read() == b""
    sub.stderr.close()


@pytest.mark.parametrize("qos", ["1", "2"])
def test_what_could_not_be_written_is_not_acknowledged(
    broker: BrokerProcess, name: str, qos: str
) -> None:
    fail(27, "sub", name, "--id", name, "-q", qos, "-W", "0.2", *at(broker))
    succeed("pub", name, "kept for later", "-q", qos, *at(broker))
    with Path("/dev/full").open("wb") as full:
        sub = subprocess.run(
            [*COMMAND, "sub", "--id", name, "--resume", "--quiet", *at(broker)],
            stdout=full,
            stderr=subprocess.PIPE,
            timeout=TIMEOUT_S,
            cwd=ROOT,
            check=False,
        )
    assert sub.returncode == 1
    assert sub.stderr == b"pubsub: the output cannot be written: No space left on device\n"
    assert succeed("sub", "--id", name, "--resume", "-C", "1", *at(broker)) == ["kept for later"]


def test_nothing_to_resume(broker: BrokerProcess, name: str) -> None:
    for _ in range(2):  # having asked must not have left a session
        said = fail(66, "sub", "--id", name, "--resume", *at(broker))
        assert f"pubsub sub TOPIC --id {name}" in said


def test_the_same_command_again_goes_on_where_it_stopped(broker: BrokerProcess, name: str) -> None:
    command = ["sub", name, "--id", name, *at(broker)]
    fail(27, *command, "-W", "0.2")
    succeed("pub", name, "missed", *at(broker))
    assert succeed(*command, "-C", "1") == ["missed"]
    succeed("pub", f"{name}/new", "unknown", *at(broker))
    said = fail(27, "sub", f"{name}/new", "--id", name, "-W", "0.2", *at(broker))
    assert f"still subscribed to {name}; --only" in said
    succeed("pub", f"{name}/new", "known", *at(broker))
    succeed("pub", name, "both", *at(broker))
    only = ["sub", f"{name}/new", "--id", name, "--only", *at(broker)]
    done = pubsub(*only, "-C", "2")
    assert done.stdout == b"known\nboth\n"
    assert f"no longer subscribed to {name}\n" in done.stderr.decode()
    assert "subscribed to" not in fail(27, *only, "-W", "0.2").partition("\n")[2]


def test_fresh_begins_anew_and_says_what_went(broker: BrokerProcess, name: str) -> None:
    command = ["sub", name, "--id", name, *at(broker)]
    assert "discarded" not in fail(27, *command, "-W", "0.2", "--fresh")
    succeed("pub", name, "-l", *at(broker), stdin=b"1\n2\n3\n")
    assert succeed(*command, "-C", "1") == ["1"]
    done = pubsub(*command, "-W", "0.3", "--fresh")
    assert (done.returncode, done.stdout) == (27, b"")
    said = f"the session of {name} is discarded, with 2 messages not delivered yet\n"
    assert said in done.stderr.decode()


@pytest.mark.parametrize("qos", ["1", "2"])
def test_exec_goes_on_after_a_failure_and_keeps_what_failed(
    broker: BrokerProcess, name: str, qos: str, tmp_path: Path
) -> None:
    fail(27, "sub", name, "--id", name, "-q", qos, "-W", "0.2", *at(broker))
    succeed("pub", name, "-l", "-q", qos, *at(broker), stdin=b"good\nbad\nlater\n")
    taken = tmp_path / "taken"
    resume = ["sub", "--id", name, "--resume", *at(broker)]
    script = f"read line; echo $line >> {taken}; [ $line != bad ] || [ $(grep -c bad {taken}) = 2 ]"
    with running(tmp_path, *resume, "--exec", script, says="tried again in 1 s") as worker:
        assert "--exec ended with exit code 1" in worker.said()
        wait_until(lambda: taken.read_text().split() == ["good", "bad", "bad", "later"])
        assert worker.interrupt() == 0
    succeed("pub", name, "bad", "-q", qos, *at(broker))
    fail(27, *resume, "-W", "0.5", "--exec", "false")
    assert succeed(*resume, "-C", "1") == ["bad"]


def test_sigterm_waits_for_the_command_and_acknowledges_its_message(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    begun, goes_on = tmp_path / "begun", tmp_path / "goes on"
    script = f"touch {begun}; until [ -e '{goes_on}' ]; do sleep 0.05; done"
    with running(
        tmp_path, "sub", name, "--id", name, *at(broker), "--exec", script, says="subscribed"
    ) as worker:
        succeed("pub", name, "work", *at(broker))
        wait_until(begun.exists)
        worker.process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            worker.process.wait(1.5)
        goes_on.touch()
        assert worker.process.wait(TIMEOUT_S) == 0
    assert pubsub("sub", name, "--id", name, "-W", "0.3", *at(broker)).stdout == b""


def test_a_second_client_with_the_same_id_takes_over_for_good(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    arguments = ["sub", name, "--id", name, *at(broker)]
    with running(tmp_path, *arguments, says="subscribed") as first:
        fail(27, *arguments, "-W", "0.3")
        assert first.process.wait(TIMEOUT_S) == 1
        assert "took the session over" in first.said()


# Other ends


def test_nobody_there(tmp_path: Path) -> None:
    port = str(free_port())
    assert "pubsub broker start" in fail(69, "pub", "weather", "Rainy", "-p", port)
    assert "pubsub broker start" in fail(69, "sub", "weather", "-p", port)
    assert "pubsub broker start" in fail(69, "broker", "status", "--data-dir", tmp_path)
    assert "pubsub broker start" in fail(69, "broker", "stop", "--data-dir", tmp_path)
    assert "pubsub broker start" in fail(66, "log", "--data-dir", tmp_path)


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["nonsense"], "No such command"),
        (["pub", "home/#", "x"], "without + and #"),
        (["pub", "home"], "message is missing"),
        (["pub"], "topic is missing"),
        (["pub", "home", "x", "-l"], "one of MESSAGE"),
        (["pub", "home", "-f", "/nonexistent"], "No such file"),
        (["sub"], "topic is missing"),
        (["sub", "a", "--resume"], "--id"),
        (["sub", "a", "-F", "%z"], "%z"),
        (["sub", "a", "-q", "3"], "--qos"),
        (["sub", "a/#/b"], "a/#/b"),
        (["log", "a/#/b"], "#"),
        (["log", "--from", "someday"], "earliest"),
        (["broker", "start", "--host", "0.0.0.0"], "--allow-anonymous"),
        (["broker", "start", "--config", "/nonexistent"], "cannot be read"),
    ],
)
def test_usage_errors_say_what_to_do(
    broker: BrokerProcess, arguments: list[str], hint: str
) -> None:
    where = at(broker) if arguments[0] in ("pub", "sub") else ()
    where = ("--data-dir", str(broker.data_dir)) if arguments[0] == "log" else where
    assert hint in fail(2, *arguments, *where)


def test_broker_status_and_stop(own_broker: BrokerProcess) -> None:
    where = ["--data-dir", str(own_broker.data_dir)]
    (line,) = succeed("broker", "status", "--json", *where)
    assert json.loads(line)["address"] == f"127.0.0.1:{own_broker.port}"
    assert f"127.0.0.1:{own_broker.port}" in "\n".join(succeed("broker", "status", *where))
    assert "stopped" in pubsub("broker", "stop", *where).stderr.decode()
    assert "is it running" in fail(69, "pub", "weather", "Rainy", *at(own_broker))
    assert "listening on" in own_broker.stderr.read_text()


def test_a_broker_that_cannot_start_says_why(broker: BrokerProcess, tmp_path: Path) -> None:
    start = ["broker", "start", "--data-dir"]
    assert "in use" in fail(2, *start, tmp_path / "a", "--port", str(broker.port))
    assert "another broker" in fail(2, *start, broker.data_dir, "--port", "0")
    (tmp_path / "file").write_text("")
    assert "data_dir" in fail(2, *start, tmp_path / "file" / "data", "--port", "0")
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "pubsub.db").write_text("not a database" * 100)
    assert "not an SQLite database" in fail(74, *start, tmp_path / "foreign", "--port", "0")


def test_port_0_is_any_free_port_and_told(tmp_path: Path) -> None:
    with running(
        tmp_path,
        "broker",
        "start",
        "--port",
        "0",
        "--data-dir",
        tmp_path / "d",
        says="listening on",
    ) as broker:
        found = re.search(r"listening on 127\.0\.0\.1:(\d+), data in", broker.said())
        assert found is not None
        succeed("pub", "weather", "Rainy", "-p", found[1])
        assert broker.interrupt() == 0


def test_version_and_help_have_an_example_for_each_command() -> None:
    assert re.fullmatch(r"pubsub \d+\.\d+\.\d+", succeed("--version")[0])
    for command in (["pub"], ["sub"], ["log"], ["broker", "start"], ["broker", "stop"]):
        help_text = "\n".join(succeed(*command, "--help"))
        assert f"  pubsub {' '.join(command)}" in help_text
