"""The scenarios: a load, the name and title of its row, and which limit it runs against."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.brokers import BrokerProcess
from benchmarks.loads import Result, Run, backlog, beside_neighbour, idle, latency, stream, writes
from cli.bench.connection import Loop


@dataclass(frozen=True)
class Limit:
    """`names` are what of `limits.py` bounds the figure called `figure`: the least of them."""

    figure: str
    names: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    run: Run
    limits: tuple[Limit, ...] = ()
    on_request: bool = False
    sync_delay_ms: int = 0
    """Added to each of the broker's syncs."""

    def measure(self, broker: BrokerProcess, seconds: float) -> Result:
        loop = Loop()
        result = Result(self.name, broker.name)
        try:
            self.run(broker, loop, seconds, result)
        finally:
            loop.close()
        return result


_STORED = ("commit 500 rows", "committing relay")

SCENARIOS = [
    Scenario(
        "qos1-w1000",
        "1 to 1 durable, QoS 1, window 1000",
        stream(qos=1, lead=5000, pauses=True),
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
        latency(qos=1, per_s=1000, pauses=True),
        (
            Limit("p50 ms", ("commit 1 row p50 ms", "committing relay p50 ms")),
            Limit("p99 ms", ("commit 1 row p99 ms", "committing relay p99 ms")),
        ),
    ),
    Scenario(
        "latency-qos0",
        "latency at 1,000/s, QoS 0 beside QoS 1",
        latency(qos=0, per_s=1000, beside_per_s=1000),
    ),
    *(
        scenario
        for delay_ms in (20, 100)
        for scenario in (
            Scenario(
                f"sync{delay_ms}-qos1",
                f"1 to 1 durable, QoS 1, window 1000, sync + {delay_ms} ms",
                stream(qos=1, lead=5000),
                sync_delay_ms=delay_ms,
            ),
            Scenario(
                f"sync{delay_ms}-qos0",
                f"latency at 1,000/s, QoS 0 beside 50/s of QoS 1, sync + {delay_ms} ms",
                latency(qos=0, per_s=1000, beside_per_s=50),
                sync_delay_ms=delay_ms,
            ),
        )
    ),
    Scenario("writes-qos0", "disk writes at 50/s, QoS 0", writes(qos=0, per_s=50)),
    Scenario("writes-qos1", "disk writes at 50/s, QoS 1", writes(qos=1, per_s=50)),
    Scenario(
        "noisy-latency-qos1",
        "latency at 1,000/s, QoS 1, noisy neighbour",
        beside_neighbour(latency(qos=1, per_s=1000, pauses=True)),
        (
            Limit("p50 ms", ("commit 1 row, noisy neighbour p50 ms",)),
            Limit("p99 ms", ("commit 1 row, noisy neighbour p99 ms",)),
        ),
    ),
    Scenario(
        "noisy-qos1-w1000",
        "1 to 1 durable, QoS 1, window 1000, noisy neighbour",
        beside_neighbour(stream(qos=1, lead=5000, pauses=True)),
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
