"""A broker that is new when the log was trimmed already, as the one who runs it sees it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

from broker.store.shared.jetstream import look
from tests.support.broker_process import ROOT, BrokerProcess, wait_until
from tests.support.nodes import Nodes, new_log
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import RawClient, connect_packet

KEEP_BYTES = 1 << 20
PAYLOAD = b"x" * 20_000


def test_a_new_broker_says_what_it_needs_and_goes_on_from_a_backup(
    nodes: Nodes, tmp_path: Path
) -> None:
    log = asyncio.run(new_log(nodes))
    hosts = ",".join(server.removeprefix("nats://") for server in log.servers)
    settings = {"store": f"nats://{hosts}/{log.name}", "store_keep_bytes": KEEP_BYTES}
    a, b, c = [tmp_path / name for name in "abc"]
    for directory in (a, b, c):
        directory.mkdir()

    def pubsub(*command: str) -> str:
        ran = subprocess.run(
            [sys.executable, "-m", "cli.main", *command],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
        )
        return ran.stdout + ran.stderr

    with BrokerProcess(a, settings) as first, BrokerProcess(b, settings):
        with RawClient(first.port) as client:
            client.socket.settimeout(PATIENCE_S)
            client.connect(connect_packet("p"))
            for _ in range(20):
                client.publish_all("t", [PAYLOAD] * 10)

        def begins() -> int:
            return asyncio.run(look(log.servers, log.name)).oldest

        wait_until(lambda: begins() > 1, timeout_s=4 * PATIENCE_S)
        store = ("--store", str(settings["store"]), "--port", "0")
        refused = pubsub("broker", "start", *store, "--data-dir", str(c / "data"))
        assert "there is no copy here yet" in refused
        file = str(tmp_path / "backup.db")
        assert "200 messages" in pubsub("backup", file, "--data-dir", str(a / "data"))
        restored = pubsub("restore", file, "--data-dir", str(c / "data"), "--replace")
        assert "200 messages" in restored
        with BrokerProcess(c, settings) as new:
            assert new.query("SELECT count(*) FROM history WHERE topic = 't'") == [(200,)]
