"""A real broker is killed, its files are damaged, and it is started again as an operator would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.broker_process import ROOT, BrokerProcess
from tests.support.raw_client import RawClient, connect_packet

ACKNOWLEDGED = 300


def flip_a_bit(wal: Path) -> None:
    content = bytearray(wal.read_bytes())
    content[len(content) // 2] ^= 4
    wal.write_bytes(content)


def cut(wal: Path) -> None:
    wal.write_bytes(wal.read_bytes()[: wal.stat().st_size // 2])


def start(broker: BrokerProcess, *options: str) -> subprocess.CompletedProcess[str]:
    """One that does not come up."""
    command = [sys.executable, "-m", "cli.main", "broker", "start", *options]
    command += ["--port", str(broker.port), "--data-dir", str(broker.data_dir)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=20, check=False
    )


@pytest.mark.parametrize("damage", [flip_a_bit, cut, Path.unlink])
def test_what_a_damaged_write_ahead_log_has_lost_is_said(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    """P1, P2, P5: never fewer messages without a word, and never an offset twice."""
    with BrokerProcess(tmp_path) as broker:
        with RawClient(broker.port) as client:
            client.connect(connect_packet("publisher"))
            for number in range(ACKNOWLEDGED):
                client.publish_all("topic", [b"%d" % number])
        broker.kill()
        damage(broker.data_dir / "pubsub.db-wal")

        for _ in range(2):
            refused = start(broker)
            assert refused.returncode == 74
            assert f"to {ACKNOWLEDGED} are missing" in refused.stderr
            assert "pubsub broker start --accept-loss" in refused.stderr
            assert len(refused.stderr.splitlines()) == 1

        broker.start("--accept-loss")
        with RawClient(broker.port) as client:
            client.connect(connect_packet("publisher"))
            client.publish_all("topic", [b"after"])
        assert broker.stop() == 0
        ((offset,),) = broker.query("SELECT offset FROM history WHERE payload = ?", b"after")
        assert offset > ACKNOWLEDGED
        broker.start()
        assert broker.stop() == 0


def test_a_second_broker_does_not_start_where_the_lock_file_was_deleted(tmp_path: Path) -> None:
    with BrokerProcess(tmp_path) as broker:
        (broker.data_dir / "broker.lock").unlink()
        refused = start(broker, "--port", "0")
        assert (refused.returncode, refused.stdout) == (1, "")
        assert "pubsub.db is in use by another broker" in refused.stderr
        assert broker.stop() == 0
