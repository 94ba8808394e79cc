"""The history by the command line, beside a real broker: help, docs/history.md, and round trips."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest

from cli.commands import (
    export,
    import_file,
    log,
    log_get,
    log_topics,
    retained,
    retained_get,
    retained_history,
    retained_rm,
    retained_undo,
    sql,
    sub,
)
from tests.support.broker_process import ROOT, BrokerProcess
from tests.support.command_line import Running, at, fail, pubsub, succeed
from tests.support.raw_client import publish_many

NEEDS_BROKER = ("import", "rm", "undo", "sub")
NO_DATA_DIR = ("import", "sub")
PAYLOADS = [b"plain", b"\xff\x00\xfe", b'says "hi",\r\nand\nmore', "天気".encode(), b"\x00\r"]


def commands(text: str, prefix: str) -> list[list[str]]:
    """Those that are one `pubsub` alone, and end; without the extra."""
    lines = [line for line in text.splitlines() if line.startswith(prefix)]
    found = [shlex.split(line.removeprefix(prefix)) for line in lines]
    left_out = {"|", ">", "-f", "all.parquet", "broker.example"}
    return [words for words in found if not left_out & {*words}]


DOCUMENTED = commands((ROOT / "docs/history.md").read_text(encoding="utf-8"), "$ pubsub ")
EXAMPLES = [
    words
    for module in (
        *(log, log_get, log_topics, retained, retained_get, retained_history),
        *(retained_rm, retained_undo, sql, export, import_file),
    )
    for words in commands(module.EXAMPLES, "  pubsub ")
]
EXAMPLES += [words for words in commands(sub.EXAMPLES, "  pubsub ") if "--exit-at-end" in words]


@pytest.fixture(scope="module")
def filled(broker: BrokerProcess, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where commands run: with an export, and a broker that has what the examples name."""
    directory = tmp_path_factory.mktemp("history")
    publish_many(broker.port, "weather", [b"Rainy"] * 30, client_id="pub1")
    succeed("pub", "home/kitchen", "warm", *at(broker))
    for file in ("all.jsonl", "home.csv"):
        assert pubsub("export", file, "--data-dir", broker.data_dir, cwd=directory).returncode == 0
    return directory


@pytest.mark.parametrize("words", [*DOCUMENTED, *EXAMPLES], ids=" ".join)
def test_a_command_of_the_page_or_of_a_help_works(
    words: list[str], broker: BrokerProcess, filled: Path
) -> None:
    for payload in ("off", "on"):
        succeed("pub", "home/lamp", payload, "-r", *at(broker))
    where: list[str | Path] = [] if words[0] in NO_DATA_DIR else ["--data-dir", broker.data_dir]
    if any(word in words for word in NEEDS_BROKER):
        where += at(broker)
    done = pubsub(*words, *where, cwd=filled)
    assert done.returncode == 0, done.stderr.decode()
    assert b"Traceback" not in done.stderr


def test_every_kind_of_command_was_tried() -> None:
    assert len(DOCUMENTED) >= 18
    assert len(EXAMPLES) >= 20


def value(broker: BrokerProcess, topic: str) -> str:
    return "\n".join(succeed("retained", "get", topic, "--raw", "--data-dir", broker.data_dir))


def test_what_is_retained_is_removed_and_comes_back(broker: BrokerProcess, name: str) -> None:
    where = ("--data-dir", broker.data_dir)
    for payload in ("off", "on"):
        succeed("pub", name, payload, "-r", *at(broker))
    assert value(broker, name) == "on"
    succeed("retained", "undo", name, *where, *at(broker))
    assert value(broker, name) == "off"
    succeed("retained", "undo", name, *where, *at(broker))
    assert value(broker, name) == "on"
    succeed("retained", "rm", name, *where, *at(broker))
    assert "nothing is retained" in fail(66, "retained", "get", name, *where)
    fail(66, "retained", "rm", name, *where, *at(broker))
    succeed("retained", "undo", name, *where, *at(broker))
    assert value(broker, name) == "on"
    lines = succeed("retained", "history", name, *where)
    assert [line.split("\t")[-1] for line in lines] == ["off", "on", "off", "on", "", "on"]


@pytest.mark.parametrize("suffix", [".jsonl", ".csv"])
def test_what_is_exported_and_imported_is_the_same_bit_for_bit(
    broker: BrokerProcess, name: str, tmp_path: Path, suffix: str
) -> None:
    where = ("--data-dir", broker.data_dir)
    publish_many(broker.port, name, PAYLOADS, client_id="p")
    succeed("pub", name, "last", "-r", "-D", "a=b", "-D", "a=c", *at(broker))
    path = tmp_path / f"x{suffix}"
    succeed("export", name, path, *where)
    newest = json.loads(succeed("log", name, "-n", "1", "--json", *where)[0])["offset"]
    succeed("import", path, *at(broker))
    again = ("log", name, "--from", str(newest + 1), *where)
    records = [json.loads(line) for line in succeed(*again, "--json")]
    raw = [pubsub("log", "get", str(one["offset"]), "--raw", *where).stdout for one in records]
    assert raw == [*PAYLOADS, b"last"]
    assert records[-1]["user_properties"] == [["a", "b"], ["a", "c"]]
    assert [one["retain"] for one in records] == [False] * 5 + [True]
    assert "imported already" in pubsub("import", path, *at(broker)).stderr.decode()
    assert len(succeed(*again)) == 6


def test_a_reader_that_goes_away_is_no_error(broker: BrokerProcess, filled: Path) -> None:
    for command in ("log -n 0", "log topics", "sql 'SELECT * FROM history'", "export -"):
        done = pubsub_into_closed_pipe(*shlex.split(command), "--data-dir", str(broker.data_dir))
        assert b"Traceback" not in done, command
        assert b"BrokenPipe" not in done, command


def pubsub_into_closed_pipe(*words: str) -> bytes:
    readable, writable = os.pipe()
    os.close(readable)
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        stdout=writable,
        stderr=subprocess.PIPE,
        cwd=ROOT,
        timeout=30,
        check=False,
    )
    os.close(writable)
    assert done.returncode == 0
    return done.stderr


def test_a_query_neither_writes_nor_stays(broker: BrokerProcess) -> None:
    where = ("--data-dir", broker.data_dir)
    assert "only reads" in fail(2, "sql", "UPDATE cursors SET offset = 0", *where)
    endless = "WITH RECURSIVE n(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM n) SELECT max(x) FROM n"
    began = time.monotonic()
    assert "longer than 0.3 s" in fail(27, "sql", endless, "--timeout", "300ms", *where)
    assert time.monotonic() - began < 10
    views = [line.split("\t")[0] for line in succeed("sql", *where)]
    for view in views:
        succeed("sql", f"SELECT * FROM {view} LIMIT 3", "--json", *where)
    page = (ROOT / "docs/reference.md").read_text(encoding="utf-8")
    assert set(views) <= set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE))


def test_a_replay_ends_or_takes_as_long_as_it_was(broker: BrokerProcess, name: str) -> None:
    for payload in ("1", "2"):
        succeed("pub", name, payload, *at(broker))
    replay = ("sub", name, "--from", "earliest", "--exit-at-end", "--quiet", *at(broker))
    assert succeed(*replay) == ["1", "2"]
    times = [json.loads(line)["published_at"] for line in succeed(*replay, "--json")]
    first, second = (datetime.fromisoformat(each).timestamp() for each in times)
    began = time.monotonic()
    assert succeed(*replay, "--speed", f"{(second - first) / 2:.3f}x") == ["1", "2"]
    assert time.monotonic() - began >= 2
    succeed("sub", name, "--from", "@yesterday..today", "--exit-at-end", "--quiet", *at(broker))


def test_a_log_that_is_elsewhere_shows_the_same(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    publish_many(broker.port, f"{name}/a", [b"1", b"\xff", b"3"], client_id="p")
    succeed("pub", f"{name}/b", "x", "-D", "a=b", "-q", "2", *at(broker))
    succeed("pub", f"{name}/a", "4", *at(broker))
    here, there = ("--data-dir", broker.data_dir), at(broker)
    for words in (
        [f"{name}/#", "--json"],
        [f"{name}/a", f"{name}/b", "-n", "3"],
        [f"{name}/a", f"{name}/b", "--from", "earliest"],
        [f"{name}/#", "--from", "-2", "--csv"],
        [f"{name}/#", "--from", "-10min", "--until", "latest", "--grep", "^[34]$"],
        [f"{name}/#", "--publisher", "p", "-n", "2"],
        [f"{name}/#", "--count"],
        [f"{name}/#", "-F", "%{offset} %t %P"],
    ):
        assert succeed("log", *words, *there) == succeed("log", *words, *here), words
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", "log", f"{name}/a", "--data-dir", tmp_path],
        env={
            **os.environ,
            "PUBSUB_URL": f"mqtt://127.0.0.1:{broker.port}",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        timeout=30,
        check=True,
    )
    assert len(done.stdout.splitlines()) == 4
    assert b"asking the broker" in done.stderr


def test_a_log_that_is_elsewhere_is_followed(
    broker: BrokerProcess, name: str, tmp_path: Path
) -> None:
    for payload in ("1", "2", "3"):
        succeed("pub", name, payload, *at(broker))
    following = Running(tmp_path, "log", name, "-f", "-n", "2", *at(broker))
    following.wait_lines(2)
    succeed("pub", name, "4", *at(broker))
    following.wait_lines(3)
    assert [line.split("\t")[-1] for line in following.lines()] == ["2", "3", "4"]
    assert following.interrupt() == 0
    assert following.said() == ""
