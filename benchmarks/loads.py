"""The loads: what publishes and subscribes, and what of it is measured.

Each runs on a fresh broker, warms it up, runs for about the seconds it is given, and then waits
until every message is acknowledged and has arrived: rates are over the time until then, so that
nobody gains by leaving work for later. Raises LoadError if anything was lost, repeated or out of
order. Rates are per second; CPU is per delivery, of the broker's process and of ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.brokers import BrokerProcess
from benchmarks.disk import Pauses, noisy_neighbour, require_write_count, written_bytes
from cli.bench.connection import NAP_MANY_S, NAP_S, Connection, LoadError, Loop
from cli.bench.histogram import Histogram
from cli.bench.load import UNLIMITED, Publisher, Subscriber, follow
from cli.bench.packets import Shape

TOPIC = "bench/topic"
PAYLOAD_BYTES = 128
WARM_UP_S = 0.7
DRAIN_S = 120.0
"""For what is still under way when publishing ended; then the scenario fails."""
SETTLE_S = 0.05
"""Afterwards, to see a message that should not come any more."""
WRITTEN_S = 0.5
"""So long after a message a broker that writes it lazily has done so."""
WRITTEN = "written bytes each"


@dataclass
class Result:
    """One run of one scenario on one broker. None: the scenario does not say."""

    scenario: str
    broker: str
    acked_per_s: float | None = None
    delivered_per_s: float | None = None
    broker_cpu_us: float | None = None
    load_cpu_us: float | None = None
    memory_peak_mb: float | None = None
    memory_growth_mb: float | None = None
    details: dict[str, float] = field(default_factory=dict)
    error: str | None = None
    left_out: str | None = None
    """Why this machine cannot measure it."""


Run = Callable[[BrokerProcess, Loop, float, Result], None]


class Meter:
    """CPU of both sides and the broker's memory, from now until `stop`."""

    def __init__(self, broker: BrokerProcess) -> None:
        self._broker = broker
        self._memory_mb = broker.memory_mb()
        self._broker_cpu_s = broker.cpu_s()
        self._load_cpu_s = time.process_time()

    def stop(self, deliveries: int, result: Result) -> None:
        result.load_cpu_us = (time.process_time() - self._load_cpu_s) * 1e6 / deliveries
        result.broker_cpu_us = (self._broker.cpu_s() - self._broker_cpu_s) * 1e6 / deliveries
        result.memory_peak_mb = self._broker.memory_peak_mb()
        result.memory_growth_mb = result.memory_peak_mb - self._memory_mb


@dataclass
class Flow:
    """What one phase of publishing and receiving came to."""

    published: int
    deliveries: int
    acked_per_s: float
    delivered_per_s: float


def flow(
    loop: Loop,
    publishers: Sequence[Publisher],
    subscribers: Sequence[Subscriber],
    *,
    seconds: float,
    count: int | None = None,
    nap_s: float = 0.0,
    pauses: Pauses | None = None,
) -> Flow:
    """Publish for `seconds` (or `count` each), then wait until all is acknowledged and received.

    Without subscribers only the acknowledgements are waited for.
    """
    sent_before = sum(publisher.sent for publisher in publishers)
    received_before = sum(subscriber.received_count for subscriber in subscribers)
    start = time.perf_counter()
    stop_at = start + seconds
    acked_at = received_at = 0.0
    stopping = False

    def finished() -> bool:
        nonlocal stopping, acked_at, received_at
        now = time.perf_counter()
        if subscribers:
            follow(publishers, subscribers)
        if pauses is not None:
            pauses.look(now, *_progress(publishers, subscribers))
        if count is None and not stopping:
            if now < stop_at:
                return False
            for publisher in publishers:
                publisher.stop()
            stopping = True
        if not acked_at:
            if any(p.sent != p.limit or not p.idle for p in publishers):
                return False
            acked_at = now
        sent = [publisher.sent for publisher in publishers]
        if all(subscriber.idle(sent) for subscriber in subscribers):
            received_at = now
        return received_at > 0

    for publisher in publishers:
        publisher.allow(UNLIMITED if count is None else count)
    loop.run(finished, timeout_s=seconds + DRAIN_S, nap_s=nap_s)
    settle(loop)
    published = sum(publisher.sent for publisher in publishers) - sent_before
    deliveries = sum(subscriber.received_count for subscriber in subscribers) - received_before
    return Flow(
        published,
        deliveries,
        published / (acked_at - start),
        deliveries / (received_at - start),
    )


def settle(loop: Loop, seconds: float = SETTLE_S) -> None:
    until = time.perf_counter() + seconds
    loop.run(lambda: time.perf_counter() > until, timeout_s=10 * seconds)


def stream(
    *,
    qos: int,
    window: int = 1000,
    lead: int,
    publishers: int = 1,
    subscribers: int = 1,
    payload_bytes: int = PAYLOAD_BYTES,
    pauses: bool = False,
) -> Run:
    """Publishers as fast as window and lead allow, to subscribers that read as fast as they can.

    The lead keeps it a steady stream from end to end; a broker that acknowledges faster than it
    delivers would otherwise collect a backlog, which is another scenario. `pauses`: tell those that
    checkpoints make.
    """

    def run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        shape = Shape(TOPIC, qos, payload_bytes)
        receiving = [
            Subscriber(
                loop, broker.address, f"sub{n}", shape, publishers=publishers, durable=qos > 0
            )
            for n in range(subscribers)
        ]
        sending = [
            Publisher(loop, broker.address, f"pub{n}", shape, number=n, window=window, lead=lead)
            for n in range(publishers)
        ]
        nap_s = NAP_S if publishers == subscribers == 1 else NAP_MANY_S
        if window < 100:
            nap_s = 0.0
        flow(loop, sending, receiving, seconds=min(WARM_UP_S, seconds), nap_s=nap_s)
        watch = _watch(broker, sending, receiving) if pauses else None
        meter = Meter(broker)
        done = flow(loop, sending, receiving, seconds=seconds, nap_s=nap_s, pauses=watch)
        meter.stop(done.deliveries, result)
        if watch is not None:
            _tell(watch, result)
        result.acked_per_s = done.acked_per_s if qos else None
        result.delivered_per_s = done.delivered_per_s

    return run


def backlog(*, count: int, slow: bool = False) -> Run:
    """Publish `count` messages while the subscriber is away, or there and not reading; then let it
    read them all. Memory growth is that of the first part: what the backlog costs."""

    def run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        shape = Shape(TOPIC, 1, PAYLOAD_BYTES)
        subscriber = Subscriber(loop, broker.address, "sub0", shape)
        publisher = Publisher(loop, broker.address, "pub0", shape)
        flow(loop, [publisher], [subscriber], seconds=WARM_UP_S, nap_s=NAP_S)
        if slow:
            subscriber.pause()
        else:
            subscriber.disconnect()
        meter = Meter(broker)
        received_before = subscriber.received_count
        done = flow(loop, [publisher], [], seconds=DRAIN_S, count=count, nap_s=NAP_S)
        meter.stop(count, result)
        growth_mb = result.memory_growth_mb or 0.0
        start = time.perf_counter()
        if slow:
            subscriber.unpause()
        else:
            subscriber.resume()
        loop.run(lambda: subscriber.idle([publisher.sent]), timeout_s=2 * DRAIN_S, nap_s=NAP_S)
        drained_s = time.perf_counter() - start
        settle(loop)
        meter.stop(count, result)
        result.details["drain growth MB"] = (result.memory_growth_mb or 0.0) - growth_mb
        result.memory_growth_mb = growth_mb
        result.acked_per_s = done.acked_per_s
        result.delivered_per_s = (subscriber.received_count - received_before) / drained_s

    return run


def latency(*, qos: int, per_s: int, beside_per_s: int = 0, pauses: bool = False) -> Run:
    """A message every 1/`per_s` seconds: from the publisher's send to the subscriber's receive, and
    to the acknowledgement. `beside_per_s`: while so many of a QoS 1 stream a second are stored.
    `pauses`: tell those that checkpoints make."""

    def run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        shapes = [Shape(TOPIC, qos, PAYLOAD_BYTES)]
        rates = [per_s]
        if beside_per_s:
            shapes.append(Shape(TOPIC + "/beside", 1, PAYLOAD_BYTES))
            rates.append(beside_per_s)
        publishers, subscribers = _pairs(loop, broker, shapes)
        _paced(loop, publishers, subscribers, rates, WARM_UP_S)
        received = subscribers[0].latency = Histogram()
        for publisher in publishers:
            publisher.ack_latency = Histogram()
        watch = _watch(broker, publishers, subscribers) if pauses else None
        meter = Meter(broker)
        start = time.perf_counter()
        counts = _paced(loop, publishers, subscribers, rates, seconds, watch)
        meter.stop(sum(counts), result)
        result.delivered_per_s = counts[0] / (time.perf_counter() - start)
        measured = [("", received), ("ack ", publishers[0].ack_latency)]
        measured += [("ack beside ", publisher.ack_latency) for publisher in publishers[1:]]
        for name, latency in measured:
            if latency.count:
                result.details[name + "p50 ms"] = latency.quantile_us(0.50) / 1000
                result.details[name + "p99 ms"] = latency.quantile_us(0.99) / 1000
        result.details["longest ms"] = received.max_us / 1000
        if watch is not None:
            _tell(watch, result)

    return run


def writes(*, qos: int, per_s: int) -> Run:
    """What the broker writes to the disk for a message, where `per_s` a second come evenly.

    Copying into the database is in it only as far as it falls into the run. Raises LeftOut where
    the kernel does not count it.
    """

    def run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        require_write_count(broker.directory)
        publishers, subscribers = _pairs(loop, broker, [Shape(TOPIC, qos, PAYLOAD_BYTES)])
        _paced(loop, publishers, subscribers, [per_s], WARM_UP_S)
        settle(loop, WRITTEN_S)
        before = written_bytes(broker.process.pid)
        meter = Meter(broker)
        (count,) = _paced(loop, publishers, subscribers, [per_s], seconds)
        meter.stop(count, result)
        settle(loop, WRITTEN_S)
        result.details[WRITTEN] = (written_bytes(broker.process.pid) - before) / count

    return run


def beside_neighbour(run: Run) -> Run:
    """The same beside a process that syncs 1 MB every 50 ms on the broker's disk."""

    def beside(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        with noisy_neighbour(broker.directory) as neighbour:
            run(broker, loop, seconds, result)
        result.details["neighbour syncs/s"] = neighbour.syncs_per_s

    return beside


def _pairs(
    loop: Loop, broker: BrokerProcess, shapes: Sequence[Shape]
) -> tuple[list[Publisher], list[Subscriber]]:
    """A publisher and its subscriber for each shape."""
    subscribers = [
        Subscriber(loop, broker.address, f"sub{n}", shape, durable=shape.qos > 0)
        for n, shape in enumerate(shapes)
    ]
    publishers = [
        Publisher(loop, broker.address, f"pub{n}", shape, window=20_000)
        for n, shape in enumerate(shapes)
    ]
    return publishers, subscribers


def _paced(
    loop: Loop,
    publishers: Sequence[Publisher],
    subscribers: Sequence[Subscriber],
    rates: Sequence[int],
    seconds: float,
    pauses: Pauses | None = None,
) -> list[int]:
    """Publish by the clock, whatever the broker does; how many of each publisher."""
    counts = [int(per_s * seconds) for per_s in rates]
    first = [publisher.sent for publisher in publishers]
    start = time.perf_counter()

    def finished() -> bool:
        now = time.perf_counter()
        elapsed_s = now - start
        for publisher, sent, count, per_s in zip(publishers, first, counts, rates, strict=True):
            due = sent + min(count, int(elapsed_s * per_s))
            while publisher.sent < due:
                publisher.offer()
        if pauses is not None:
            pauses.look(now, *_progress(publishers, subscribers))
        return elapsed_s >= seconds and all(
            publisher.idle and subscriber.idle([publisher.sent])
            for publisher, subscriber in zip(publishers, subscribers, strict=True)
        )

    loop.run(finished, timeout_s=seconds + DRAIN_S, wait_s=0.2 / max(rates))
    return counts


def _watch(
    broker: BrokerProcess, publishers: Sequence[Publisher], subscribers: Sequence[Subscriber]
) -> Pauses:
    return Pauses(broker.database, time.perf_counter(), *_progress(publishers, subscribers))


def _progress(
    publishers: Sequence[Publisher], subscribers: Sequence[Subscriber]
) -> tuple[int, int]:
    acked = sum(publisher.acked for publisher in publishers)
    return acked, sum(subscriber.received_count for subscriber in subscribers)


def _tell(pauses: Pauses, result: Result) -> None:
    result.details["longest pause ms"] = pauses.all.max_us / 1000
    if pauses.checkpoints.count:
        result.details["checkpoint pauses"] = float(pauses.checkpoints.count)
        result.details["checkpoint pause p50 ms"] = pauses.checkpoints.quantile_us(0.50) / 1000
        result.details["checkpoint pause p99 ms"] = pauses.checkpoints.quantile_us(0.99) / 1000


def idle(*, connections: int) -> Run:
    """Connect and stay: what one connection costs the broker in memory."""

    def run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        for n in range(50):
            Connection(loop, broker.address, f"warm{n}").connect()
        before_mb, cpu_before_s = broker.memory_mb(), broker.cpu_s()
        start = time.perf_counter()
        for n in range(connections):
            Connection(loop, broker.address, f"idle{n}").connect()
        elapsed_s = time.perf_counter() - start
        grown_mb = broker.memory_mb() - before_mb
        cpu_s = broker.cpu_s()
        time.sleep(1.0)
        result.memory_peak_mb = broker.memory_peak_mb()
        result.memory_growth_mb = grown_mb
        result.details = {
            "KB each": grown_mb * 1024 / connections,
            "connects/s": connections / elapsed_s,
            "CPU us/connect": (cpu_s - cpu_before_s) * 1e6 / connections,
            "idle CPU %": (broker.cpu_s() - cpu_s) * 100,
        }
        if grown_mb < 0:
            raise LoadError("memory shrank while connections came: nothing was measured")

    return run
