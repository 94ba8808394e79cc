"""Which store the settings ask for, and what is said where that cannot be had."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from broker.clock import SystemClock
from broker.config import DATABASE, Config
from broker.errors import ConfigError, LogReplaced, SchemaMismatch, StoreUnavailable
from broker.registry.ownership import Alone, Shared
from broker.server import open_store as module
from broker.server.open_store import Opened, open_store
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.memory_log import MemoryLog, Trouble
from broker.store.sqlite.store import SqliteStore
from tests.support.clock import FakeClock
from tests.support.messages import numbered

NOBODY = "nats://127.0.0.1:1"


async def test_sqlite_is_what_there_is_without_a_word(tmp_path: Path) -> None:
    opened = await open_store(Config(data_dir=tmp_path), SystemClock(), accept_loss=False)
    assert opened.store is opened.database
    assert isinstance(opened.ownership(FakeClock()), Alone)
    assert set(opened.status()) == {"sqlite_version", "damaged_offsets"}
    await opened.store.close()


async def test_without_the_client_of_nats_it_is_said_how_to_get_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "broker.store.shared.jetstream", None)
    with pytest.raises(ConfigError, match=r"pip install 'pubsub-broker\[cluster\]'"):
        await open_store(Config(data_dir=tmp_path, store=NOBODY), SystemClock(), accept_loss=False)


async def test_where_no_node_answers_that_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    connecting = pytest.importorskip("broker.store.shared.connecting", reason="needs nats-py")
    monkeypatch.setattr(connecting, "CONNECT_TIMEOUT_S", 0.3)
    with pytest.raises(
        StoreUnavailable, match=r"no node of the log answers at nats://127\.0\.0\.1"
    ):
        await open_store(Config(data_dir=tmp_path, store=NOBODY), SystemClock(), accept_loss=False)


async def test_a_copy_is_no_log_of_a_broker_alone_and_such_a_log_no_copy(tmp_path: Path) -> None:
    """Else what was written into it would be where the other brokers have something else."""
    path = tmp_path / DATABASE
    shared = ClusterStore(MemoryLog(), SqliteStore(path, is_copy=True))
    await shared.open()
    await shared.append(numbered(1))
    await shared.close()
    with pytest.raises(SchemaMismatch, match="is a copy of a log that several brokers share"):
        await open_store(Config(data_dir=tmp_path), SystemClock(), accept_loss=False)

    alone = SqliteStore(tmp_path / "alone.db")
    await alone.open()
    await alone.append(numbered(1))
    await alone.close()
    with pytest.raises(LogReplaced, match="of a broker alone"):
        await ClusterStore(MemoryLog(), SqliteStore(tmp_path / "alone.db", is_copy=True)).open()


async def test_a_log_that_does_not_answer_keeps_nobody_who_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "LEAVE_TIMEOUT_S", 0.01)
    log = MemoryLog()
    copy = SqliteStore(tmp_path / DATABASE, is_copy=True)
    shared = ClusterStore(log, copy)
    await shared.open()
    log.trouble = lambda: Trouble.CUT_OFF
    await Opened(shared, copy, shared).leave(SystemClock())
    assert "have to find out that this one stops" in caplog.text
    await shared.close()


def test_a_shared_log_says_who_is_there(tmp_path: Path) -> None:
    shared = ClusterStore(MemoryLog(), SqliteStore(tmp_path / DATABASE, is_copy=True))
    assert shared.progress is None
    assert isinstance(Shared(shared, FakeClock()), Shared)
