"""A log of three nodes that is trimmed, and brokers that were away for longer."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.errors import LogReplaced
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.jetstream import JetStreamLog, look, make_stream
from broker.store.sqlite.store import SqliteStore
from cli.care.backup import backup
from cli.care.restore import restore
from tests.support.messages import message, numbered
from tests.support.nodes import Nodes, new_log
from tests.support.shared import make_session, opened, rows

KEEP_BYTES = 200_000


def store_in(log: JetStreamLog, directory: Path) -> ClusterStore:
    directory.mkdir(exist_ok=True)
    copy = SqliteStore(directory / "pubsub.db", is_copy=True)
    return ClusterStore(JetStreamLog(log.servers, log.name), copy, keep_bytes=KEEP_BYTES)


async def fill_and_trim(stores: list[ClusterStore]) -> None:
    for n in range(100):
        await stores[n % len(stores)].append([message(b"x" * 5000, f"t/{n}")])
    for _ in range(4):
        for store in stores:
            await store.sync()
        for store in stores:
            await store.sync()
            await store.trim_log()


async def test_who_was_away_for_longer_than_the_log_goes_on_from_a_backup(
    nodes: Nodes, tmp_path: Path
) -> None:
    log = await new_log(nodes)
    a, b, away, new = [store_in(log, tmp_path / name) for name in ("a", "b", "away", "new")]
    async with opened(a, b):
        async with opened(away):
            await make_session(away, "x")
            await away.leave()
        await fill_and_trim([a, b])
        found = await look(log.servers, log.name)
        assert found.oldest > 30
        assert found.bytes < 2 * KEEP_BYTES
        with pytest.raises(LogReplaced, match="this copy ends at"):
            await away.open()
        with pytest.raises(LogReplaced, match="there is no copy here yet"):
            await new.open()
        nodes.kill(0)
        backup(tmp_path / "a", tmp_path / "backup.db", json=False)
        await b.append(numbered(50))
        for name in ("away", "new"):
            restore(tmp_path / "backup.db", tmp_path / name, replace=True)
        async with opened(away, new):
            batch = numbered(2)
            await new.append(batch)
            assert batch[0].offset == 151
            every = [a, b, away, new]
            await fill_and_trim(every)
            assert (await look(log.servers, log.name)).oldest > found.oldest
            for store in every:
                await store._follower.until_applied(max(s._stored_at for s in every))
    first, *others = [rows(tmp_path / name / "pubsub.db") for name in ("a", "b", "away", "new")]
    for other in others:
        assert other == first


async def test_a_log_is_trimmed_to_half_of_what_its_nodes_take(
    nodes: Nodes, tmp_path: Path
) -> None:
    await new_log(nodes)  # So the nodes have found each other.
    await make_stream(nodes.servers, "small", replicas=3, bytes_max=KEEP_BYTES)
    a = store_in(JetStreamLog(nodes.servers, "small"), tmp_path / "a")
    async with opened(a):
        for _ in range(80):
            await a.append([message(b"x" * 5000)])
            await a.trim_log()
