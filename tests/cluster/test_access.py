"""Nodes that talk TLS, and let in who has a password: as `pubsub cluster config` says it."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nats.errors
import nats.js.errors
import pytest

from broker.errors import StoreUnavailable
from broker.store.shared.access import Access
from broker.store.shared.connecting import connect
from broker.store.shared.jetstream import JetStreamLog, look
from cli.operate import nats_nodes
from tests.support.broker_process import ROOT, wait_until
from tests.support.nodes import Nodes, broker_on, client_of, new_log, running_nodes
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import connect_packet

NAME = "log"


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    directory = tmp_path / "certs"
    names = ["localhost", "127.0.0.1", "--dir", str(directory)]
    command = [sys.executable, "-m", "cli.main", "cert", "create", *names]
    subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
    return directory


@pytest.fixture
def secured(tmp_path: Path, certificates: Path) -> Iterator[Nodes]:
    tls = re.search(r"^tls \{.*\}$", nats_nodes.settings(NAME), re.MULTILINE)
    assert tls is not None
    more = tls[0].replace("/etc/nats", str(certificates))
    more += "\n" + nats_nodes.authorization(NAME, "secret", "known:to brokers")
    with running_nodes(tmp_path, more) as nodes:
        yield nodes


def access_of(directory: Path, user: str, password: str) -> Access:
    path = directory / f"{user}.txt"
    path.write_text(f"{user}:{password}\n")
    return Access(path, directory / "ca.crt")


def test_brokers_come_by_tls_and_may_append_follow_and_trim_only(
    secured: Nodes, certificates: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = access_of(certificates, "admin", "secret")
    ours = access_of(certificates, "broker", "known:to brokers")
    log = asyncio.run(new_log(secured, NAME, admin))
    settings: dict[str, Any] = {
        "store_credentials": str(ours.credentials),
        "store_ca": str(ours.ca),
        "store_keep_bytes": 1 << 20,
    }
    with (
        broker_on(log, tmp_path, "a", **settings) as a,
        broker_on(log, tmp_path, "b", **settings) as b,
        client_of(a) as publisher,
        client_of(b) as client,
    ):
        client.connect(connect_packet("x", durable=True))
        client.subscribe("t", 1)
        publisher.connect(connect_packet("p"))
        publisher.publish_all("t", [b"x" * 20_000] * 200)
        for _ in range(200):
            assert client.receive() is not None
        trimmed = "the shared log begins at record"
        said = [broker.stderr for broker in (a, b)]
        wait_until(lambda: any(trimmed in each.read_text() for each in said), timeout_s=PATIENCE_S)
    found = asyncio.run(look(log.servers, NAME, access=admin))
    assert found.oldest > 1
    asyncio.run(may_not(log, ours))
    monkeypatch.setattr("broker.store.shared.connecting.CONNECT_TIMEOUT_S", 6.0)
    stranger = access_of(certificates, "broker", "wrong")
    with pytest.raises(StoreUnavailable, match="no such user and password"):
        asyncio.run(look(log.servers, NAME, access=stranger))
    with pytest.raises(StoreUnavailable, match="certificate verify failed"):
        asyncio.run(
            look(
                log.servers,
                NAME,
                access=Access(cert=certificates / "server.crt", key=certificates / "server.key"),
            )
        )


async def may_not(log: JetStreamLog, access: Access) -> None:
    client = await connect(log.servers, access)
    try:
        manager = client.jsm(timeout=1)
        with pytest.raises((nats.errors.Error, nats.js.errors.Error)):
            await manager.delete_stream(f"PUBSUB_{NAME}")
        with pytest.raises((nats.errors.Error, nats.js.errors.Error)):
            await manager.streams_info()
    finally:
        await client.close()
