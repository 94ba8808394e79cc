"""The scenarios: what is published to whom, how it is measured, and which limit it runs against.

Each is run on a fresh broker, warms it up, runs for about the seconds it is given, and then waits
until every message is acknowledged and has arrived: rates are over the time until then, so that
nobody gains by leaving work for later. Raises LoadError if anything was lost, repeated or out of
order. Rates are per second; CPU is per delivery, of the broker's process and of ours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from benchmarks.brokers import BrokerProcess
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


@dataclass(frozen=True)
class Limit:
    """`names` are what of `limits.py` bounds the figure called `figure`: the least of them."""

    figure: str
    names: tuple[str, ...]


Run = Callable[[BrokerProcess, Loop, float, Result], None]


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    run: Run
    limits: tuple[Limit, ...] = ()
    on_request: bool = False

    def measure(self, broker: BrokerProcess, seconds: float) -> Result:
        loop = Loop()
        result = Result(self.name, broker.name)
        try:
            self.run(broker, loop, seconds, result)
        finally:
            loop.close()
        return result


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


def settle(loop: Loop) -> None:
    until = time.perf_counter() + SETTLE_S
    loop.run(lambda: time.perf_counter() > until, timeout_s=10 * SETTLE_S)


def stream(
    *,
    qos: int,
    window: int = 1000,
    lead: int,
    publishers: int = 1,
    subscribers: int = 1,
    payload_bytes: int = PAYLOAD_BYTES,
) -> Run:
    """Publishers as fast as window and lead allow, to subscribers that read as fast as they can.

    The lead keeps it a steady stream from end to end; a broker that acknowledges faster than it
    delivers would otherwise collect a backlog, which is another scenario.
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
        meter = Meter(broker)
        done = flow(loop, sending, receiving, seconds=seconds, nap_s=nap_s)
        meter.stop(done.deliveries, result)
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


def latency(*, qos: int, per_s: int, beside: bool = False) -> Run:
    """A message every 1/`per_s` seconds: from the publisher's send to the subscriber's receive, and
    to the acknowledgement. `beside`: while a QoS 1 stream of the same rate is stored."""

    def run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
        shapes = [Shape(TOPIC, qos, PAYLOAD_BYTES)]
        if beside:
            shapes.append(Shape(TOPIC + "/beside", 1, PAYLOAD_BYTES))
        subscribers = [
            Subscriber(loop, broker.address, f"sub{n}", shape, durable=shape.qos > 0)
            for n, shape in enumerate(shapes)
        ]
        publishers = [
            Publisher(loop, broker.address, f"pub{n}", shape, window=20_000)
            for n, shape in enumerate(shapes)
        ]
        _paced(loop, publishers, subscribers, per_s, WARM_UP_S)
        acked = publishers[0].ack_latency = Histogram()
        received = subscribers[0].latency = Histogram()
        meter = Meter(broker)
        start = time.perf_counter()
        count = _paced(loop, publishers, subscribers, per_s, seconds)
        meter.stop(count * len(publishers), result)
        result.delivered_per_s = count / (time.perf_counter() - start)
        for name, latency in (("", received), ("ack ", acked)):
            if latency.count:
                result.details[name + "p50 ms"] = latency.quantile_us(0.50) / 1000
                result.details[name + "p99 ms"] = latency.quantile_us(0.99) / 1000

    return run


def _paced(
    loop: Loop,
    publishers: Sequence[Publisher],
    subscribers: Sequence[Subscriber],
    per_s: int,
    seconds: float,
) -> int:
    """Publish by the clock, whatever the broker does; how many of each publisher."""
    count = int(per_s * seconds)
    first = publishers[0].sent
    start = time.perf_counter()

    def finished() -> bool:
        due = first + min(count, int((time.perf_counter() - start) * per_s))
        for publisher in publishers:
            while publisher.sent < due:
                publisher.offer()
        return publishers[0].sent == first + count and all(
            publisher.idle and subscriber.idle([publisher.sent])
            for publisher, subscriber in zip(publishers, subscribers, strict=True)
        )

    loop.run(finished, timeout_s=seconds + DRAIN_S, wait_s=0.2 / per_s)
    return count


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


_STORED = ("commit 500 rows", "committing relay")

SCENARIOS = [
    Scenario(
        "qos1-w1000",
        "1 to 1 durable, QoS 1, window 1000",
        stream(qos=1, lead=5000),
        (Limit("delivered_per_s", _STORED),),
    ),
    Scenario(
        "qos1-w20",
        "1 to 1 durable, QoS 1, window 20",
        stream(qos=1, window=20, lead=1000),
        (Limit("delivered_per_s", ("commit 20 rows", "committing relay, window 20")),),
    ),
    Scenario(
        "qos1-w1",
        "1 to 1 durable, QoS 1, window 1",
        stream(qos=1, window=1, lead=1000),
        (Limit("acked_per_s", ("commit 1 row", "committing relay, window 1")),),
    ),
    Scenario(
        "qos0",
        "1 to 1, QoS 0",
        stream(qos=0, lead=5000),
        (Limit("delivered_per_s", ("commit 500 rows, no fsync", "relay QoS 0")),),
    ),
    Scenario(
        "qos2",
        "1 to 1 durable, QoS 2, window 1000",
        stream(qos=2, lead=5000),
        (Limit("delivered_per_s", _STORED),),
    ),
    Scenario(
        "fan-in-50",
        "50 to 1 durable, QoS 1, window 100 each",
        stream(qos=1, window=100, lead=500, publishers=50),
        (Limit("delivered_per_s", _STORED),),
    ),
    Scenario(
        "fan-out-100-qos1",
        "1 to 100 durable, QoS 1, window 1000",
        stream(qos=1, lead=2000, subscribers=100),
        (Limit("delivered_per_s", ("relay QoS 1 to 100",)),),
    ),
    Scenario(
        "fan-out-100-qos0",
        "1 to 100, QoS 0",
        stream(qos=0, lead=2000, subscribers=100),
        (Limit("delivered_per_s", ("relay QoS 0 to 100",)),),
    ),
    Scenario(
        "backlog",
        "backlog of 100,000: publish, then drain",
        backlog(count=100_000),
        (
            Limit("acked_per_s", ("commit 500 rows",)),
            Limit("delivered_per_s", ("relay QoS 1",)),
        ),
    ),
    Scenario(
        "payload-64k",
        "1 to 1 durable, QoS 1, window 20, 64 KiB",
        stream(qos=1, window=20, lead=100, payload_bytes=64 * 1024),
        (Limit("delivered_per_s", ("commit 20 rows of 64 KiB",)),),
    ),
    Scenario(
        "latency-qos1",
        "latency at 1,000/s, QoS 1",
        latency(qos=1, per_s=1000),
        (
            Limit("p50 ms", ("commit 1 row p50 ms", "committing relay p50 ms")),
            Limit("p99 ms", ("commit 1 row p99 ms", "committing relay p99 ms")),
        ),
    ),
    Scenario(
        "latency-qos0",
        "latency at 1,000/s, QoS 0 beside QoS 1",
        latency(qos=0, per_s=1000, beside=True),
    ),
    Scenario("idle-2000", "2,000 idle connections", idle(connections=2000)),
    Scenario(
        "absent-1m",
        "backlog of 1,000,000, absent",
        backlog(count=1_000_000),
        on_request=True,
    ),
    Scenario(
        "slow-1m",
        "backlog of 1,000,000, not reading",
        backlog(count=1_000_000, slow=True),
        on_request=True,
    ),
]
