"""What several brokers on one log are worth: `make bench-cluster [ARGS="--minutes 4"]`.

One broker on SQLite, then one, two and three brokers on a log of three nodes of NATS, all on this
machine; round after round, as many as fit into `--minutes`, and at least one. Told are medians:

- *intake*: PUBLISHERS publish at QoS 1, spread over the brokers, and nobody is subscribed. CPU a
  message is that of all brokers together, until each has the last message in its copy.
- *deliveries*: one publishes, SUBSCRIBERS are spread over the brokers. On a machine of a few cores
  all processes share these, so what shows how deliveries grow is the CPU of the busiest broker.
- *group*: one publishes, WORKERS of one group are spread over the brokers, each message goes to one
  of them, and each worker acknowledges at once.
- *leader killed*: one publishes at the first of two brokers, and the node that leads the log is
  killed: the longest wait for an acknowledgement.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import struct
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from benchmarks import brokers
from benchmarks.brokers import BrokerProcess, free_port, scratch
from benchmarks.loads import PAYLOAD_BYTES, TOPIC, WARM_UP_S, flow
from broker.errors import StoreUnavailable
from broker.plural import counted
from broker.store.shared.address import SCHEME
from broker.store.shared.jetstream import look, make_stream
from cli.bench.connection import NAP_MANY_S, LoadError, Loop
from cli.bench.load import UNLIMITED, Publisher, Subscriber
from cli.bench.packets import Shape
from cli.operate import nats_nodes

NODES = 3
FORM_S = 60.0
"""So long the nodes may take to find each other."""
PUBLISHERS = 3
SUBSCRIBERS = 60
LEAD = 500
WORKERS = 12
GROUP = f"$share/workers/{TOPIC}"
GROUP_LEAD = 5000
KILL_AFTER_S = 2.0
KILLED_S = 20.0
"""So long is published, in which the leader is killed."""
SHAPE = Shape(TOPIC, 1, PAYLOAD_BYTES)
LAST = Shape("bench/last", 1, PAYLOAD_BYTES)

_numbers = count(1)


@dataclass(slots=True)
class Figures:
    """Of one round. CPU in microseconds: of all brokers a message, of the busiest a delivery."""

    taken_per_s: float
    cpu_us: float
    delivered_per_s: float
    busiest_us: float
    jobs_per_s: float
    job_us: float


@dataclass(slots=True, frozen=True)
class Setup:
    name: str
    brokers: int
    is_shared: bool = True


SETUPS = (
    Setup("SQLite alone", 1, is_shared=False),
    Setup("shared log, 1 broker", 1),
    Setup("shared log, 2 brokers", 2),
    Setup("shared log, 3 brokers", 3),
)


class Nodes:
    def __init__(self, directory: Path) -> None:
        self.ports = [free_port() for _ in range(NODES)]
        routes = [free_port() for _ in range(NODES)]
        self._processes = [
            nats_nodes.start(f"n{i}", directory, port, route, routes)
            for i, (port, route) in enumerate(zip(self.ports, routes, strict=True))
        ]

    @property
    def servers(self) -> list[str]:
        return [f"{SCHEME}127.0.0.1:{port}" for port in self.ports]

    def stop(self) -> None:
        nats_nodes.stop(self._processes)

    async def new_log(self) -> str:
        """Its name, as soon as the nodes have found each other."""
        name = f"bench{next(_numbers)}"
        async with asyncio.timeout(FORM_S):
            while True:
                try:
                    await make_stream(self.servers, name, replicas=NODES)
                except StoreUnavailable:
                    await asyncio.sleep(0.2)
                else:
                    return name

    def kill_leader(self, name: str) -> None:
        found = asyncio.run(look(self.servers, name))
        (leader,) = [int(node.name[1:]) for node in found.nodes if node.leads]
        self._processes[leader].kill()
        self._processes[leader].wait()


@contextmanager
def running_nodes() -> Iterator[Nodes]:
    """Fresh ones, so that none is busy with what was measured before."""
    with scratch("nodes") as directory:
        nodes = Nodes(directory)
        try:
            yield nodes
        finally:
            nodes.stop()


def on_log(nodes: Nodes, name: str) -> brokers.Command:
    hosts = ",".join(f"127.0.0.1:{port}" for port in nodes.ports)

    def command(port: int, directory: Path) -> list[str]:
        return [*brokers.ours(port, directory), "--store", f"{SCHEME}{hosts}/{name}"]

    return command


@contextmanager
def running(setup: Setup) -> Iterator[list[BrokerProcess]]:
    with ExitStack() as stack:
        command = None
        if setup.is_shared:
            nodes = stack.enter_context(running_nodes())
            command = on_log(nodes, asyncio.run(nodes.new_log()))
        start = [brokers.running("pubsub", command=command) for _ in range(setup.brokers)]
        yield [stack.enter_context(each) for each in start]


def measure(setup: Setup, seconds: float) -> Figures:
    with running(setup) as running_brokers:
        taken_per_s, cpu_us = intake(running_brokers, seconds)
    with running(setup) as running_brokers:
        delivered_per_s, busiest_us = deliveries(running_brokers, seconds)
    with running(setup) as running_brokers:
        jobs_per_s, job_us = group(running_brokers, seconds)
    return Figures(taken_per_s, cpu_us, delivered_per_s, busiest_us, jobs_per_s, job_us)


def intake(running: Sequence[BrokerProcess], seconds: float) -> tuple[float, float]:
    loop = Loop()
    publishers = [
        Publisher(loop, of(running, n).address, f"pub{n}", SHAPE, number=n)
        for n in range(PUBLISHERS)
    ]
    last = Publisher(loop, running[0].address, "last", LAST)
    followers = [
        Subscriber(loop, broker.address, f"follower{n}", LAST) for n, broker in enumerate(running)
    ]
    flow(loop, publishers, [], seconds=WARM_UP_S, nap_s=NAP_MANY_S)
    flow(loop, [last], followers, seconds=0, count=1)
    before = [broker.cpu_s() for broker in running]
    done = flow(loop, publishers, [], seconds=seconds, nap_s=NAP_MANY_S)
    flow(loop, [last], followers, seconds=0, count=1)
    return done.acked_per_s, sum(spent_s(running, before)) * 1e6 / done.published


def deliveries(running: Sequence[BrokerProcess], seconds: float) -> tuple[float, float]:
    loop = Loop()
    subscribers = [
        Subscriber(loop, of(running, n).address, f"sub{n}", SHAPE) for n in range(SUBSCRIBERS)
    ]
    publisher = Publisher(loop, running[0].address, "pub", SHAPE, lead=LEAD)
    flow(loop, [publisher], subscribers, seconds=WARM_UP_S, nap_s=NAP_MANY_S)
    before = [broker.cpu_s() for broker in running]
    done = flow(loop, [publisher], subscribers, seconds=seconds, nap_s=NAP_MANY_S)
    return done.delivered_per_s, max(spent_s(running, before)) * 1e6 / done.deliveries


class Worker(Subscriber):
    """Gets some of what is published. `done`: the numbers of what any worker got."""

    def __init__(self, loop: Loop, broker: BrokerProcess, client_id: str, done: set[int]) -> None:
        self._done = done
        super().__init__(loop, broker.address, client_id, SHAPE, topic_filter=GROUP)

    def _check(self, buffer: bytearray, at: int, stop: int, count: int) -> None:
        numbers = self._column(buffer, at + self.shape.payload_at, stop, count, 6)
        before = len(self._done)
        self._done.update([sequence for _, sequence in struct.iter_unpack(">HI", numbers)])
        if len(self._done) != before + count:
            raise LoadError(f"{self}: a message that another worker had, too")


def group(running: Sequence[BrokerProcess], seconds: float) -> tuple[float, float]:
    loop, done = Loop(), set[int]()
    workers = [Worker(loop, of(running, n), f"worker{n}", done) for n in range(WORKERS)]
    publisher = Publisher(loop, running[0].address, "pub", SHAPE, lead=GROUP_LEAD)

    def publish(seconds: float) -> float:
        """For how long, until all was done."""
        began = time.perf_counter()

        def finished() -> bool:
            publisher.arrived = len(done)
            publisher.pump()
            if time.perf_counter() > began + seconds:
                publisher.stop()
            return publisher.sent == publisher.limit == len(done) and publisher.idle

        publisher.allow(UNLIMITED)
        loop.run(finished, timeout_s=seconds + FORM_S, nap_s=NAP_MANY_S)
        return time.perf_counter() - began

    publish(WARM_UP_S)
    warm, before = len(done), [broker.cpu_s() for broker in running]
    took_s = publish(seconds)
    jobs = len(done) - warm
    assert sum(worker.received_count for worker in workers) == len(done)
    return jobs / took_s, sum(spent_s(running, before)) * 1e6 / jobs


def of(running: Sequence[BrokerProcess], number: int) -> BrokerProcess:
    return running[number % len(running)]


def spent_s(running: Sequence[BrokerProcess], before: Sequence[float]) -> list[float]:
    return [broker.cpu_s() - cpu_s for broker, cpu_s in zip(running, before, strict=True)]


def leader_killed() -> float:
    """The longest wait for an acknowledgement, in seconds."""
    with ExitStack() as stack:
        nodes = stack.enter_context(running_nodes())
        name = asyncio.run(nodes.new_log())
        start = [brokers.running("pubsub", command=on_log(nodes, name)) for _ in range(2)]
        first, _ = [stack.enter_context(each) for each in start]
        loop = Loop()
        publisher = Publisher(loop, first.address, "pub", SHAPE, window=20)
        flow(loop, [publisher], [], seconds=KILL_AFTER_S)
        publisher.allow(UNLIMITED)
        nodes.kill_leader(name)
        until = time.monotonic() + KILLED_S
        loop.run(lambda: time.monotonic() > until, timeout_s=2 * KILLED_S)
        publisher.stop()
        loop.run(lambda: publisher.idle, timeout_s=FORM_S)
        return publisher.ack_latency.max_us / 1e6


def table(found: Sequence[tuple[Setup, Sequence[Figures]]]) -> str:
    """Medians; in brackets, to the first setup; the busiest broker's CPU to the first setup with a
    shared log."""
    medians = [(setup, median(figures)) for setup, figures in found]
    alone = medians[0][1]
    shared = next((each for setup, each in medians if setup.is_shared), alone)
    lines = [
        "| | taken in, messages/s | CPU of all brokers, a message | deliveries/s "
        "| CPU of the busiest broker, a delivery | jobs of a group/s | CPU of all brokers, a job |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for setup, each in medians:
        lines.append(
            f"| {setup.name} "
            f"| {each.taken_per_s:,.0f} ({each.taken_per_s / alone.taken_per_s:.2f}x) "
            f"| {each.cpu_us:.1f} µs ({each.cpu_us / alone.cpu_us:.1f}x) "
            f"| {each.delivered_per_s:,.0f} ({each.delivered_per_s / alone.delivered_per_s:.2f}x) "
            f"| {each.busiest_us:.2f} µs ({each.busiest_us / shared.busiest_us:.2f}x) "
            f"| {each.jobs_per_s:,.0f} ({each.jobs_per_s / alone.jobs_per_s:.2f}x) "
            f"| {each.job_us:.1f} µs ({each.job_us / alone.job_us:.1f}x) |"
        )
    return "\n".join(lines)


def median(figures: Sequence[Figures]) -> Figures:
    return Figures(
        statistics.median(each.taken_per_s for each in figures),
        statistics.median(each.cpu_us for each in figures),
        statistics.median(each.delivered_per_s for each in figures),
        statistics.median(each.busiest_us for each in figures),
        statistics.median(each.jobs_per_s for each in figures),
        statistics.median(each.job_us for each in figures),
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=4.0, help="no round begins that goes on")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement")
    options = parser.parse_args(arguments)
    began = round_began = time.monotonic()
    found: list[tuple[Setup, list[Figures]]] = [(setup, []) for setup in SETUPS]
    waits_s: list[float] = []
    while True:
        for setup, figures in found:
            figures.append(measure(setup, options.seconds))
            taken, delivered = figures[-1].taken_per_s, figures[-1].delivered_per_s
            print(f"{setup.name}: {taken:,.0f} taken in, {delivered:,.0f} delivered", flush=True)
        waits_s.append(leader_killed())
        print(f"leader killed: {waits_s[-1]:.1f} s", flush=True)
        now = time.monotonic()
        if now + (now - round_began) > began + 60 * options.minutes:
            break
        round_began = now
    rounds = counted(len(waits_s), "round")
    print(f"\nMedians of {rounds}, interleaved, {now - began:.0f} s in all. In brackets: to SQLite")
    print(f"alone; in the last column to one broker on a shared log.\n\n{table(found)}\n")
    waits = ", ".join(f"{wait_s:.1f}" for wait_s in waits_s)
    print(f"Leader of the log killed: longest wait for an acknowledgement {waits} s")


if __name__ == "__main__":
    main()
