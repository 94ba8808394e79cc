"""The care of the log, by the command line, beside a real broker and after it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from cli.commands import backup, check, compact, restore, salvage
from tests.support.broker_process import BrokerProcess, wait_until
from tests.support.command_line import pubsub
from tests.support.raw_client import publish_many


@pytest.fixture(scope="module")
def data_dir(broker: BrokerProcess) -> Path:
    """Of a broker that runs, with messages in its write-ahead log."""
    publish_many(broker.port, "weather", [b"%d" % n for n in range(500)], client_id="publisher")
    return broker.data_dir


def locks(path: Path) -> list[str]:
    """All locks on the database and its shared memory, as the kernel lists them."""
    inodes = tuple(f":{Path(f'{path}{suffix}').stat().st_ino}" for suffix in ("", "-shm"))
    lines = Path("/proc/locks").read_text().splitlines()
    held = [line.split()[1:] for line in lines]
    return sorted(" ".join(words) for words in held if words[4].endswith(inodes))


def contents(directory: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in directory.glob("pubsub.db*")}


def examples(text: str) -> list[list[str]]:
    return [shlex.split(line)[1:] for line in text.splitlines() if line.startswith("  pubsub ")]


@pytest.mark.parametrize("module", [check, backup])
def test_the_examples_work_beside_a_broker(
    module: ModuleType, data_dir: Path, tmp_path: Path
) -> None:
    """And leave it its locks: or another program could delete the write-ahead log in use."""
    before = locks(data_dir / "pubsub.db")
    assert len(before) >= 3
    for arguments in examples(module.EXAMPLES):
        done = pubsub(*arguments, "--data-dir", data_dir, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b""), arguments
    # One may be listed twice while others come and go.
    wait_until(lambda: {*locks(data_dir / "pubsub.db")} == {*before})


def test_check_sees_what_a_running_broker_has_acknowledged(data_dir: Path) -> None:
    record = json.loads(pubsub("check", "--json", "--data-dir", data_dir).stdout)
    assert record["online"] is True
    assert (record["problems"], record["messages"]) == (0, 500)


def test_a_backup_of_a_running_broker_is_restored_and_no_offset_is_given_twice(
    tmp_path: Path,
) -> None:
    with BrokerProcess(tmp_path) as broker:
        publish_many(broker.port, "weather", [b"%d" % n for n in range(100)], client_id="publisher")
        [arguments] = examples(backup.EXAMPLES)
        assert pubsub(*arguments, "--data-dir", broker.data_dir, cwd=tmp_path).returncode == 0
        publish_many(broker.port, "weather", [b"after"] * 50, client_id="publisher")
        for arguments in [*examples(restore.EXAMPLES), *examples(compact.EXAMPLES)]:
            refused = pubsub(*arguments, "--data-dir", broker.data_dir, cwd=tmp_path)
            assert refused.returncode == 1
        assert broker.stop() == 0
        _, arguments = examples(restore.EXAMPLES)
        done = pubsub(*arguments, "--data-dir", broker.data_dir, cwd=tmp_path)
        assert (done.returncode, done.stderr) == (0, b"")
        for arguments in [*examples(compact.EXAMPLES), *examples(check.EXAMPLES)]:
            assert pubsub(*arguments, "--data-dir", broker.data_dir).returncode == 0
        broker.start()
        publish_many(broker.port, "weather", [b"later"], client_id="publisher")
        offsets = broker.query("SELECT offset FROM history ORDER BY offset")
        assert [offset for (offset,) in offsets][:-1] == [*range(1, 101)]
        assert offsets[-1][0] > 150
        assert broker.stop() == 0
    [arguments, _] = examples(restore.EXAMPLES)
    done = pubsub(*arguments, "--data-dir", tmp_path / "new", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")


def test_what_a_start_refuses_is_salvaged_as_it_says(tmp_path: Path) -> None:
    """P1, P2, P5: messages are lost that were acknowledged; the others are in the new log."""
    with BrokerProcess(tmp_path) as broker:
        for n in range(300):
            publish_many(broker.port, "weather", [b"%d" % n], client_id="publisher")
        broker.kill()
        wal = broker.data_dir / "pubsub.db-wal"
        content = bytearray(wal.read_bytes())
        content[len(content) // 2] ^= 4
        wal.write_bytes(content)
        refused = pubsub("broker", "start", "-p", "0", "--data-dir", broker.data_dir)
        assert refused.returncode == 74
        assert b"into a new log: `pubsub salvage`" in refused.stderr
        before = contents(broker.data_dir)
        [arguments] = examples(salvage.EXAMPLES)
        to = tmp_path / arguments.pop()
        done = pubsub(*arguments, to, "--data-dir", broker.data_dir, "--json")
        assert done.returncode == 0, done.stderr
        assert contents(broker.data_dir) == before
        whole = json.loads(done.stdout.splitlines()[-1])
        assert whole["messages"] >= 299
        broker.data_dir = to
        broker.start()
        publish_many(broker.port, "weather", [b"later"], client_id="publisher")
        ((offset,),) = broker.query("SELECT offset FROM history WHERE payload = ?", b"later")
        assert offset > 300
        assert broker.stop() == 0
