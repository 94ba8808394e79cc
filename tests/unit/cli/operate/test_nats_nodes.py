"""Nodes of NATS that run on this machine."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from cli.operate import nats_nodes


def test_a_node_knows_its_ports_and_all_others(tmp_path: Path) -> None:
    text = nats_nodes.configuration("n2", tmp_path, 2, 20, [10, 20, 30])
    assert "server_name: n2\n" in text
    assert 'listen: "127.0.0.1:2"' in text
    assert 'listen: "127.0.0.1:20"' in text
    for route in (10, 20, 30):
        assert f'"nats://127.0.0.1:{route}"' in text
    assert f'store_dir: "{tmp_path}/n2"' in text


def test_a_node_that_does_not_end_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stubborn = tmp_path / "nats-server"
    stubborn.write_text(
        f"#!{sys.executable}\nimport signal, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('ready', flush=True)\ntime.sleep(600)\n"
    )
    stubborn.chmod(0o700)
    monkeypatch.setattr(nats_nodes, "program", lambda: stubborn)
    monkeypatch.setattr(nats_nodes, "STOP_TIMEOUT_S", 0.1)
    node = nats_nodes.start("n1", tmp_path, 1, 2, [2])
    while "ready" not in (tmp_path / "n1.log").read_text():
        assert node.poll() is None
    nats_nodes.stop([node])
    assert node.returncode == -9
