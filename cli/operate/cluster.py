"""The log that several brokers share: makes it, looks at it, runs nodes to try it out."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Coroutine, Sequence
from contextlib import aclosing, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from broker.errors import StoreError, StoreUnavailable
from broker.plural import counted
from broker.store.shared.access import Access
from broker.store.shared.address import SCHEME, Address, parse
from broker.store.shared.entries import ALIVE, Told, decode_told, part_of
from cli.operate import nats_nodes
from cli.terminal import columns, output
from cli.terminal.failure import CommandFailed, Exit

NODES = 3
ROUTE_PORTS = 2000
"""Between the port of a node for clients and its port for the others."""
START_TIMEOUT_S = 30.0
RETRY_S = 0.3
LOOK_S = 0.5
LISTEN_S = 3.0
"""In which each broker tells of itself once, or twice."""

T = TypeVar("T")


def up(directory: Path, port: int) -> None:
    """Until interrupted. Raises CommandFailed."""
    nats_nodes.program()
    for ends in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(ends, _end)
    directory.mkdir(parents=True, exist_ok=True)
    ports = [*range(port, port + NODES)]
    routes = [each + ROUTE_PORTS for each in ports]
    nodes: list[nats_nodes.Node] = []
    try:
        for number, (client, route) in enumerate(zip(ports, routes, strict=True), 1):
            nodes.append(nats_nodes.start(f"n{number}", directory, client, route, routes))
        address = SCHEME + ",".join(f"127.0.0.1:{each}" for each in ports)
        _run(_make_when_there(parse(address), nodes, directory))
        output.note(f"{NODES} nodes run, data in {directory}/; Ctrl-C stops them")
        output.text(f"{address}\n")
        while True:
            _require_running(nodes, directory)
            time.sleep(LOOK_S)
    finally:
        nats_nodes.stop(nodes)


def _end(number: int, frame: object) -> None:
    """The nodes are stopped on the way out."""
    raise SystemExit(128 + number)


async def _make_when_there(
    address: Address, nodes: Sequence[nats_nodes.Node], directory: Path
) -> None:
    """The log, if it is not there from the last time. Nodes that start have no leader yet."""
    jetstream = _jetstream()
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            await jetstream.look(*address)
        except StoreUnavailable as error:
            _require_running(nodes, directory)
            if time.monotonic() > deadline:
                raise CommandFailed(
                    f"the nodes do not find each other: {error}", f"see {directory}/n1.log"
                ) from error
            try:
                await jetstream.make_stream(*address, replicas=NODES)
            except StoreUnavailable:
                await asyncio.sleep(RETRY_S)
        else:
            return


def _require_running(nodes: Sequence[nats_nodes.Node], directory: Path) -> None:
    for number, node in enumerate(nodes, 1):
        if (code := node.poll()) is not None:
            raise CommandFailed(
                f"node n{number} ended with code {code}", f"see {directory}/n{number}.log"
            )


def init(store: str, replicas: int, bytes_max: int | None, access: Access) -> None:
    """Raises ConfigError, CommandFailed."""
    address, most = parse(store), -1 if bytes_max is None else bytes_max
    made = _jetstream().make_stream(*address, replicas=replicas, bytes_max=most, access=access)
    log_id = _run(made)
    nodes = counted(replicas, "node")
    output.note(f"the log {address.name} is made, with id {log_id}, on {nodes}")


def status(store: str, access: Access, *, as_json: bool) -> None:
    """Raises ConfigError, CommandFailed."""
    address = parse(store)
    found = _run(_jetstream().look(*address, access=access))
    with output.waiting("waiting for the brokers to tell of themselves"):
        brokers = _run(_heard(address, access))
    if as_json:
        told = [{"broker": broker, **asdict(each)} for broker, each in brokers.items()]
        output.data(output.json_line({**asdict(found), "brokers": told}))
        return
    output.text(
        f"log {found.name}, id {found.log_id}\n"
        f"{found.records:,} records ({found.bytes:,} bytes), {found.oldest:,} to {found.newest:,}\n"
    )
    columns.write(
        ["NODE", "IS", "BEHIND"],
        [
            [
                node.name,
                "leader" if node.leads else "replica" if node.current else "not current",
                node.behind,
            ]
            for node in found.nodes
        ],
        empty="no node tells that it has a copy",
    )
    output.text("\n")
    columns.write(
        ["BROKER", "CLIENTS GO TO", "CONNECTIONS", "BEHIND"],
        [
            [broker, each.told.advertise or "-", each.told.connections, each.behind]
            for broker, each in brokers.items()
        ],
        empty=f"no broker has told of itself for {LISTEN_S:g} s",
    )


@dataclass(slots=True, frozen=True)
class Heard:
    """What a broker has told of itself, and how many records its copy lacked."""

    told: Told
    behind: int


async def _heard(address: Address, access: Access) -> dict[str, Heard]:
    """The brokers that live, by name. Each tells of itself every HEARTBEAT_S."""
    heard: dict[str, Heard] = {}
    log = _jetstream().JetStreamLog(*address, replicas_min=1, access=access)
    info = await log.open()
    try:
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_S), aclosing(log.follow(info.newest + 1)) as parts:
                async for part in parts:
                    for position, body in part:
                        entry = part_of(body)
                        if entry.kind == ALIVE:
                            told = decode_told(entry.content)
                            behind = max(0, position - 1 - told.position)
                            heard[entry.broker] = Heard(told, behind)
    finally:
        await log.close()
    return dict(sorted(heard.items()))


def config(name: str) -> None:
    output.text(nats_nodes.settings(name))


def _jetstream() -> Any:
    """Raises CommandFailed: the client of NATS is not installed."""
    try:
        from broker.store.shared import jetstream
    except ImportError as error:
        raise CommandFailed(
            "there is no client of NATS", "pip install 'pubsub-broker[cluster]'"
        ) from error
    return jetstream


def _run(work: Coroutine[Any, Any, T]) -> T:
    try:
        return asyncio.run(work)
    except StoreUnavailable as error:
        raise CommandFailed(str(error), code=Exit.UNREACHABLE) from error
    except StoreError as error:
        raise CommandFailed(str(error)) from error
