"""Nodes of NATS on this machine: the server of our own environment, never one on PATH."""

from __future__ import annotations

import asyncio
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from nats.aio.client import Client

from broker.errors import StoreUnavailable
from broker.store.shared.access import ANYBODY, Access
from broker.store.shared.address import SCHEME
from broker.store.shared.jetstream import JetStreamLog, make_stream
from cli.operate import nats_nodes
from tests.support.broker_process import BrokerProcess
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import RawClient

Pair = tuple[BrokerProcess, BrokerProcess]

_numbers = count(1)


def free_ports(number: int) -> list[int]:
    sockets = [socket.socket() for _ in range(number)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    ports: list[int] = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Nodes:
    def __init__(self, directory: Path, number: int = 3, more: str = "") -> None:
        """`more`: of the configuration of each."""
        self.directory = directory
        self._more = more
        ports = free_ports(2 * number)
        self._ports, self._routes = ports[:number], ports[number:]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * number

    @property
    def servers(self) -> list[str]:
        return [f"nats://127.0.0.1:{port}" for port in self._ports]

    def start(self) -> None:
        for i in range(len(self._ports)):
            self.start_one(i)

    def start_one(self, i: int) -> None:
        ports = self._ports[i], self._routes[i]
        self._processes[i] = nats_nodes.start(
            f"n{i}", self.directory, *ports, self._routes, self._more
        )

    def kill(self, i: int) -> None:
        process = self._processes[i]
        assert process is not None
        process.kill()
        process.wait()

    def pause(self, i: int) -> None:
        self._signal(i, signal.SIGSTOP)

    def go_on(self, i: int) -> None:
        self._signal(i, signal.SIGCONT)

    def _signal(self, i: int, number: int) -> None:
        process = self._processes[i]
        assert process is not None
        process.send_signal(number)

    def end(self) -> None:
        for process in self._processes:
            if process is not None and process.poll() is None:
                process.send_signal(signal.SIGCONT)
                process.kill()
                process.wait()


@contextmanager
def running_nodes(directory: Path, more: str = "") -> Iterator[Nodes]:
    nodes = Nodes(directory, more=more)
    try:
        nodes.start()
        yield nodes
    finally:
        nodes.end()


async def new_log(nodes: Nodes, name: str = "", access: Access = ANYBODY) -> JetStreamLog:
    """A log that is empty, as soon as the nodes have found each other."""
    name = name or f"t{next(_numbers)}"
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                await make_stream(nodes.servers, name, replicas=3, access=access)
                break
            except StoreUnavailable:
                await asyncio.sleep(0.2)
    return JetStreamLog(nodes.servers, name)


def broker_on(
    log: JetStreamLog,
    directory: Path,
    name: str,
    environment: Mapping[str, str] | None = None,
    **more: object,
) -> BrokerProcess:
    """`more`: settings."""
    (directory / name).mkdir()
    hosts = ",".join(server.removeprefix(SCHEME) for server in log.servers)
    store = f"{SCHEME}{hosts}/{log.name}"
    settings = {"store": store, "will_restart_grace_s": 0, "sys_interval_s": 1, **more}
    broker = BrokerProcess(directory / name, settings, environment)
    broker.advertise()
    return broker


def client_of(broker: BrokerProcess) -> RawClient:
    """A client that waits as long as the nodes may need."""
    client = RawClient(broker.port)
    client.socket.settimeout(PATIENCE_S)
    return client


async def remove_log(log: JetStreamLog) -> None:
    """So that the nodes are not busy with what no test needs any more."""
    client = Client()
    await client.connect([*log.servers], error_cb=_ignored)
    try:
        await client.jsm().delete_stream(f"PUBSUB_{log.name}")
    finally:
        await client.close()


async def _ignored(error: Exception) -> None:
    """What goes on with another node."""
