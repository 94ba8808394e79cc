"""How the broker scales: one curve for each thing that there can be much of.

    python -m benchmarks.scale [--only NAME] [--missing] [--full] [--seconds 1.5] [--repeat 2]

Each point is measured `--repeat` times, on a fresh broker (*log*: on one whose log grows from point
to point), and every single figure is kept in the JSON, so that `plot.py` can show how far they are
apart. A curve stops by itself after its `--budget` of seconds, between two runs. The JSON is
written after each run, and only the curves that are measured are replaced: `--only` measures one
again, `--missing` those that are not complete. A point that fails is recorded as failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, ParamSpec

from benchmarks import prepare
from benchmarks.brokers import RESULTS, BrokerProcess, running, scratch
from benchmarks.loads import PAYLOAD_BYTES, TOPIC, WARM_UP_S, Meter, Result, flow
from benchmarks.run import machine, progress, raise_open_files_limit
from benchmarks.subscriptions import (
    FILTERS_PER_SESSION,
    LEVELS,
    one_session,
    packet_end,
    routing_us,
    topic_filter,
)
from broker.mqtt.encode import encode
from broker.mqtt.fields import string, varint
from broker.mqtt.packets import MQTT_3_1_1, Subscribe, SubscriptionRequest, Unsubscribe
from broker.topics import REPLAY_ENDED, REPLAY_PREFIX
from cli.bench.connection import NAP_MANY_S, NAP_S, Connection, LoadError, Loop
from cli.bench.load import Publisher, Subscriber
from cli.bench.packets import Shape
from cli.net.address import Address

SCALE_JSON = RESULTS / "scale.json"
IN_FLIGHT = 1000
"""Messages that all publishers together may have unacknowledged."""
IN_FLIGHT_BYTES_MAX = 8 << 20
DELIVERIES_AHEAD = 20_000
"""That the publisher may be ahead of the slowest subscriber, over all subscribers."""
TOPIC_LEVELS = 7
FILTERED_TOPICS = 10_000
FILTERS_PER_SUBSCRIBE = 1000
REPLAYS = 100
REPLAY_MESSAGES = 100
REPLAY_S = 30.0
RARE_MESSAGES = 5
RESUMES = 50
DISK_PART_MAX = 0.5
"""Of the free disk space that a log may take."""
BYTES_PER_MESSAGE = 200
"""On the disk, with the payload and its part of the index."""

P = ParamSpec("P")
Figures = dict[str, float]
Results = Generator[tuple[int, Figures | LoadError], None, None]


@dataclass(frozen=True)
class Curve:
    name: str
    of: str
    """What the x axis counts."""
    points: tuple[int, ...]
    run: Callable[[Sequence[int], float, int], Results]
    """From points, seconds and repetitions to each single result."""
    budget_s: float = 60.0
    full: tuple[int, ...] = ()
    """Points only with --full."""


Measure = Callable[[int, float], Figures]


def each(measure: Measure) -> Callable[[Sequence[int], float, int], Results]:
    """A curve whose points have nothing to do with each other."""

    def run(points: Sequence[int], seconds: float, repeat: int) -> Results:
        for point in points:
            for _ in range(repeat):
                yield point, attempt(measure, point, seconds)

    return run


def attempt(
    measure: Callable[P, Figures], *args: P.args, **kwargs: P.kwargs
) -> Figures | LoadError:
    try:
        return measure(*args, **kwargs)
    except (LoadError, RuntimeError, OSError) as error:
        printed = "".join(getattr(error, "__notes__", ())).rpartition("\n")[2]
        return LoadError(f"{error} {printed}".strip())


# A stream of messages, which most curves measure


def stream(
    loop: Loop,
    broker: BrokerProcess,
    seconds: float,
    publishers: Sequence[Publisher],
    subscribers: Sequence[Subscriber],
) -> Figures:
    """QoS 1 to durable subscribers, from end to end."""
    nap_s = NAP_S if len(publishers) == len(subscribers) == 1 else NAP_MANY_S
    if publishers[0].window < 100 or publishers[0].shape.payload_bytes > 8192:
        nap_s = 0.0
    flow(loop, publishers, subscribers, seconds=min(WARM_UP_S, seconds), nap_s=nap_s)
    meter = Meter(broker)
    result = Result("", broker.name)
    done = flow(loop, publishers, subscribers, seconds=seconds, nap_s=nap_s)
    meter.stop(done.deliveries, result)
    return {
        "acked/s": done.acked_per_s,
        "delivered/s": done.delivered_per_s,
        "broker us": result.broker_cpu_us or 0.0,
        "load us": result.load_cpu_us or 0.0,
        "peak MB": result.memory_peak_mb or 0.0,
    }


def one_to_one(
    loop: Loop, broker: BrokerProcess, seconds: float, client_id: str = "sub"
) -> Figures:
    shape = Shape(TOPIC, 1, PAYLOAD_BYTES)
    subscriber = Subscriber(loop, broker.address, client_id, shape)
    publisher = Publisher(loop, broker.address, "pub", shape, window=IN_FLIGHT, lead=5 * IN_FLIGHT)
    return stream(loop, broker, seconds, [publisher], [subscriber])


@contextmanager
def fresh(packet_bytes_max: int = 0) -> Iterator[tuple[Loop, BrokerProcess]]:
    with running("pubsub") as broker, closing(Loop(packet_bytes_max)) as loop:
        yield loop, broker


# The curves


def publishers(count: int, seconds: float) -> Figures:
    window = max(1, IN_FLIGHT // count)
    shape = Shape(TOPIC, 1, PAYLOAD_BYTES)
    with fresh() as (loop, broker):
        receiving = Subscriber(loop, broker.address, "sub", shape, publishers=count)
        sending = [
            Publisher(
                *(loop, broker.address, f"pub{n}", shape),
                number=n,
                window=window,
                lead=5 * window,
            )
            for n in range(count)
        ]
        return stream(loop, broker, seconds, sending, [receiving])


def subscribers(count: int, seconds: float) -> Figures:
    shape = Shape(TOPIC, 1, PAYLOAD_BYTES)
    lead = max(20, min(5 * IN_FLIGHT, DELIVERIES_AHEAD // count))
    with fresh() as (loop, broker):
        receiving = [
            Subscriber(loop, broker.address, f"sub{n}", shape, durable=True) for n in range(count)
        ]
        sending = Publisher(loop, broker.address, "pub", shape, window=IN_FLIGHT, lead=lead)
        return stream(loop, broker, seconds, [sending], receiving)


def topics(count: int, seconds: float) -> Figures:
    """Round all topics, of which the broker knows all, or none."""
    figures: Figures = {}
    for prefix, known in (("", count), ("new topics: ", 0)):
        with scratch("topics") as directory:
            prepare.add_topics(prepare.database(directory), map(topic_name, range(known)))
            with running("pubsub", directory) as broker, closing(Loop()) as loop:
                streamed = over_topics(loop, broker, seconds, count)
                figures |= {prefix + name: value for name, value in streamed.items()}
    return figures


def over_topics(
    loop: Loop, broker: BrokerProcess, seconds: float, count: int, levels: int = TOPIC_LEVELS
) -> Figures:
    # The filter is as long as each topic that it matches, so that packets have the same shape.
    shape = Shape("/".join("+" * levels), 1, PAYLOAD_BYTES)
    subscriber = Subscriber(loop, broker.address, "sub", shape)
    publisher = TopicsPublisher(loop, broker.address, count, levels)
    return stream(loop, broker, seconds, [publisher], [subscriber])


def topic_name(number: int, levels: int = TOPIC_LEVELS) -> str:
    """A level for each digit."""
    return "/".join(f"{number:0{levels}}")


class TopicsPublisher(Publisher):
    """Publishes round `topics` topics."""

    def __init__(
        self, loop: Loop, address: Address, topics: int, levels: int = TOPIC_LEVELS
    ) -> None:
        self._topics = topics
        self._levels = levels
        shape = Shape(topic_name(0, levels), 1, PAYLOAD_BYTES)
        super().__init__(loop, address, "pub", shape, window=IN_FLIGHT, lead=5 * IN_FLIGHT)

    def _renumber(self) -> None:
        super()._renumber()
        topics, levels, sent = self._topics, self._levels, self.sent
        digits = b"".join([b"%0*d" % (levels, n % topics) for n in range(sent, sent + self._ring)])
        topic_at = len(self.shape.prefix) + 2
        for place in range(levels):
            column = slice(topic_at + 2 * place, None, self.shape.length)
            self._packets[column] = digits[place::levels]


def filters(count: int, seconds: float) -> Figures:
    """Subscriptions of others, which match none of 10,000 topics that are published to; and once
    more while somebody subscribes and unsubscribes as fast as that is answered."""
    figures = {"routing us": routing_us(count)}
    with fresh() as (loop, broker):
        before_mb = broker.memory_mb()
        took_s = hold(loop, broker, count)
        grown_mb = broker.memory_mb() - before_mb
        figures |= over_topics(loop, broker, seconds, FILTERED_TOPICS, LEVELS)
    if count > 1:
        figures["subscribed/s"] = count / took_s
        figures["KB each"] = grown_mb * 1024 / count
    with fresh() as (loop, broker):
        hold(loop, broker, count)
        fickle = Fickle(loop, broker.address, "fickle")
        fickle.connect()
        fickle.begin()
        start = time.perf_counter()
        changing = over_topics(loop, broker, seconds, FILTERED_TOPICS, LEVELS)
        figures["changes/s"] = fickle.changes / (time.perf_counter() - start)
    return figures | {f"changing: {name}": value for name, value in changing.items()}


def hold(loop: Loop, broker: BrokerProcess, count: int) -> float:
    """Have so many filters. Seconds that the broker took to subscribe to them."""
    start = time.perf_counter()
    for first in range(0, count, FILTERS_PER_SESSION):
        holder = Holder(loop, broker.address, f"holder{first}")
        holder.connect()
        holder.hold(range(first, min(count, first + FILTERS_PER_SESSION)))
    return time.perf_counter() - start


class Holder(Connection):
    """Has many subscriptions that nothing matches."""

    def hold(self, numbers: range) -> None:
        for first in range(numbers.start, numbers.stop, FILTERS_PER_SUBSCRIBE):
            part = range(first, min(numbers.stop, first + FILTERS_PER_SUBSCRIBE))
            requests = [SubscriptionRequest(topic_filter(number), 0) for number in part]
            suback = b"\x90" + varint(2 + len(part)) + b"\0\1" + bytes(len(part))
            answer = self._ask(encode(Subscribe(1, requests), MQTT_3_1_1), len(suback))
            self._expect(answer, suback)


class Fickle(Connection):
    """Subscribes and unsubscribes, again and again, where nothing is published."""

    SUBSCRIBE = encode(Subscribe(1, [SubscriptionRequest(topic_filter(0), 0)]), MQTT_3_1_1)
    UNSUBSCRIBE = encode(Unsubscribe(1, [topic_filter(0)]), MQTT_3_1_1)
    SUBACK, UNSUBACK = b"\x90\x03\0\1\0", b"\xb0\x02\0\1"

    def begin(self) -> None:
        self.changes = 0
        self.write(self.SUBSCRIBE)

    def received(self, buffer: bytearray, end: int) -> int:
        subscribed = self.changes % 2 == 0
        answer = self.SUBACK if subscribed else self.UNSUBACK
        if end < len(answer):
            return 0
        self._expect(bytes(buffer[:end]), answer)
        self.changes += 1
        self.write(self.UNSUBSCRIBE if subscribed else self.SUBSCRIBE)
        return end


def payload(size: int, seconds: float) -> Figures:
    window = max(4, min(IN_FLIGHT, IN_FLIGHT_BYTES_MAX // size))
    shape = Shape(TOPIC, 1, size)
    with fresh(shape.length) as (loop, broker):
        receiving = Subscriber(loop, broker.address, "sub", shape)
        sending = Publisher(loop, broker.address, "pub", shape, window=window, lead=5 * window)
        figures = stream(loop, broker, seconds, [sending], [receiving])
    figures["MB/s"] = figures["delivered/s"] * size / 1e6
    return figures


def log(points: Sequence[int], seconds: float, repeat: int) -> Results:
    """Write rate, replay latency and time to start on a log of so many messages.

    A replay is the time from a SUBSCRIBE to the last of 100 messages at a random place; *rare*: to
    the last messages of a topic that has one in 50,000. *to empty*: beside the same on a broker
    whose log is empty, measured just after, since a machine changes more in minutes than a log does
    in millions.
    """
    with scratch("log") as directory:
        path = prepare.database(directory)
        rare = 0
        for point in points:
            missing = point - prepare.newest_offset(path)
            if missing * BYTES_PER_MESSAGE > DISK_PART_MAX * free_bytes(directory):
                yield point, LoadError("not enough space on the disk for a log of that size")
                return
            if missing > 0:
                prepare.add_messages(path, missing, bytes(PAYLOAD_BYTES))
                rare += -(-missing // prepare.RARE_EVERY)
            for _ in range(repeat):
                yield point, attempt(on_log_beside_empty, directory, path, rare, seconds)


def free_bytes(directory: Path) -> int:
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def on_log_beside_empty(directory: Path, path: Path, rare: int, seconds: float) -> Figures:
    figures = on_log(directory, path, rare, seconds)
    with scratch("empty") as other:
        empty = on_log(other, prepare.database(other), 0, seconds)
    for figure, name in (("delivered/s", "rate"), ("replay p50 ms", "replay time")):
        figures[f"{name} to empty"] = figures[figure] / empty[figure]
    return figures


def on_log(directory: Path, path: Path, rare: int, seconds: float) -> Figures:
    begin = time.perf_counter()
    with running("pubsub", directory) as broker, closing(Loop()) as loop:
        started_s = time.perf_counter() - begin
        figures = {"start s": started_s, "log MB": path.stat().st_size / 1e6}
        # The session of the run before is still there, and away.
        figures |= one_to_one(loop, broker, seconds, f"sub{prepare.newest_offset(path)}")
        replayer = Replayer(loop, broker.address, "replayer")
        replayer.connect()
        newest = prepare.newest_offset(path)
        places = random.Random(newest)
        took_ms = []
        for _ in range(REPLAYS):
            first = places.randrange(1, newest - REPLAY_MESSAGES)
            span = f"{first}:{first + REPLAY_MESSAGES - 1}"
            took_ms.append(replayer.replay(f"{REPLAY_PREFIX}{span}/#", REPLAY_MESSAGES))
        figures["replay p50 ms"] = median(took_ms)
        figures["replay p99 ms"] = sorted(took_ms)[int(0.99 * len(took_ms))]
        if count := min(rare, RARE_MESSAGES):
            filter = f"{REPLAY_PREFIX}-{count}/{prepare.RARE_TOPIC}"
            figures["rare ms"] = replayer.replay(filter, count, has_end=False)
    return figures


class Replayer(Connection):
    """Asks for parts of the history, one after the other, and waits until all of each is here."""

    ENDED = string(REPLAY_ENDED)

    def replay(self, topic_filter: str, count: int, *, has_end: bool = True) -> float:
        """Milliseconds until `count` messages were here, and word that the replay is over, if it
        has an end and does not go on live."""
        self.begin(has_end=has_end)
        request = encode(Subscribe(1, [SubscriptionRequest(topic_filter, 0)]), MQTT_3_1_1)
        start = time.perf_counter()
        self._expect(self._ask(request, 5), b"\x90\x03\0\1\0")
        self.loop.run(lambda: self.over(count), timeout_s=REPLAY_S)
        took_ms = (time.perf_counter() - start) * 1e3
        self.check(count)
        return took_ms

    def begin(self, *, has_end: bool) -> None:
        self._has_end = has_end
        self._messages = 0
        self._ended = False

    def over(self, count: int) -> bool:
        return self._ended if self._has_end else self._messages >= count

    def check(self, count: int) -> None:
        if self._messages != count:
            raise LoadError(f"{self}: {self._messages} messages were replayed, not {count}")

    def received(self, buffer: bytearray, end: int) -> int:
        at = 0
        while (stop := packet_end(buffer, at, end)) is not None:
            # The topic comes after two to five bytes of fixed header.
            if buffer.find(self.ENDED, at, at + 5 + len(self.ENDED)) >= 0:
                self._ended = True
            else:
                self._messages += 1
            at = stop
        return at


def sessions(count: int, seconds: float) -> Figures:
    """Durable sessions whose clients are away."""
    with scratch("sessions") as directory:
        path = prepare.database(directory)
        prepare.add_sessions(path, (f"away{n}" for n in range(count)))
        begin = time.perf_counter()
        with running("pubsub", directory) as broker, closing(Loop()) as loop:
            figures = {"start s": time.perf_counter() - begin, "MB": broker.memory_mb()}
            figures |= one_to_one(loop, broker, seconds)
            took_ms = []
            for n in range(0, count, max(1, count // RESUMES)):
                start = time.perf_counter()
                Connection(loop, broker.address, f"away{n}").connect(clean=False, resume=True)
                took_ms.append((time.perf_counter() - start) * 1e3)
            if took_ms:
                figures["resume p50 ms"] = median(took_ms)
    return figures


def connections(count: int, seconds: float) -> Figures:
    """Connected clients that say nothing."""
    with fresh() as (loop, broker):
        for n in range(50):
            Connection(loop, broker.address, f"warm{n}").connect()
        before_mb, start = broker.memory_mb(), time.perf_counter()
        for n in range(count):
            Connection(loop, broker.address, f"idle{n}").connect()
        took_s, grown_mb = time.perf_counter() - start, broker.memory_mb() - before_mb
        figures = one_to_one(loop, broker, seconds)
    if count:
        figures["KB each"] = grown_mb * 1024 / count
        figures["connected/s"] = count / took_s
    return figures


CURVES = (
    Curve("publishers", "publishers", (1, 10, 100, 1000), each(publishers)),
    Curve("subscribers", "subscribers", (1, 10, 100, 1000), each(subscribers)),
    Curve("topics", "topics", (1, 1000, 30_000, 1_000_000), each(topics), budget_s=90),
    Curve("filters", "Topic Filters", (1, 1000, 20_000, 200_000), each(filters), budget_s=90),
    Curve(
        *("subscriptions", "Topic Filters of one session"),
        *((100, 1000, 10_000), each(one_session)),
        full=(100_000,),
    ),
    Curve("payload", "payload bytes", (16, 128, 1024, 16 << 10, 128 << 10, 1 << 20), each(payload)),
    Curve(
        "log",
        "messages in the log",
        (0, 1_000_000, 5_000_000, 10_000_000),
        log,
        budget_s=150,
        full=(50_000_000,),
    ),
    Curve("sessions", "durable sessions", (0, 1000, 10_000, 100_000), each(sessions)),
    Curve("connections", "idle connections", (0, 100, 1000, 10_000), each(connections)),
)


# Recording


class Recorder:
    """The JSON: what is there of other curves stays."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.curves: dict[str, Any] = {}
        if path.exists():
            self.curves = json.loads(path.read_text())["curves"]

    def complete(self, name: str) -> bool:
        return bool(self.curves.get(name, {}).get("complete"))

    def begin(self, curve: Curve, seconds: float) -> None:
        self.curves[curve.name] = {
            "of": curve.of,
            "measured": time.strftime("%Y-%m-%d %H:%M %Z"),
            "machine": machine(),
            "seconds": seconds,
            "complete": False,
            "points": [],
        }

    def add(self, curve: Curve, x: int, figures: Figures | LoadError) -> None:
        points = self.curves[curve.name]["points"]
        if not points or points[-1]["x"] != x:
            points.append({"x": x, "runs": [], "errors": []})
        if isinstance(figures, LoadError):
            points[-1]["errors"].append(str(figures))
        else:
            points[-1]["runs"].append({name: round(value, 3) for name, value in figures.items()})
        self.save()

    def end(self, curve: Curve, *, complete: bool) -> None:
        self.curves[curve.name]["complete"] = complete
        self.save()

    def save(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = self.path.with_suffix(".part")
        unfinished.write_text(json.dumps({"curves": self.curves}, indent=1) + "\n")
        unfinished.replace(self.path)


def measure(
    curve: Curve,
    points: Sequence[int],
    recorder: Recorder,
    *,
    seconds: float,
    repeat: int,
    budget_s: float,
    clock: Callable[[], float] = time.monotonic,
) -> bool:
    """Measure a curve until it is complete (True), or its time is over."""
    stop_at = clock() + budget_s
    recorder.begin(curve, seconds)
    runs = 0
    with closing(curve.run(points, seconds, repeat)) as results:
        for x, figures in results:
            runs += 1
            recorder.add(curve, x, figures)
            said = f"failed: {figures}" if isinstance(figures, LoadError) else shown(figures)
            progress("")
            print(f"{curve.name:12} {x:>12,}  {said}", flush=True)
            if clock() >= stop_at:
                break
    complete = runs == len(points) * repeat
    recorder.end(curve, complete=complete)
    return complete


def shown(figures: Figures) -> str:
    return ", ".join(
        f"{name} {value:,.{0 if value >= 100 else 2}f}" for name, value in figures.items()
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.scale",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    curves = {curve.name: curve for curve in CURVES}
    parser.add_argument("--only", action="append", choices=curves, metavar="NAME")
    parser.add_argument("--missing", action="store_true", help="skip what is complete")
    parser.add_argument("--full", action="store_true", help="also what takes many minutes")
    parser.add_argument("--max", type=int, metavar="N", help="no point beyond N: a quick look")
    parser.add_argument("--seconds", type=float, default=1.5, help="of publishing in each run")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--budget", type=float, help="seconds for each curve")
    parser.add_argument("--json", type=Path, default=SCALE_JSON, metavar="FILE")
    options = parser.parse_args(arguments)
    raise_open_files_limit()
    recorder = Recorder(options.json)
    chosen = [
        curves[name]
        for name in options.only or curves
        if not (options.missing and recorder.complete(name))
    ]
    incomplete = []
    try:
        for curve in chosen:
            progress(curve.name)
            points = curve.points + (curve.full if options.full else ())
            if not measure(
                curve,
                [point for point in points if options.max is None or point <= options.max],
                recorder,
                seconds=options.seconds,
                repeat=options.repeat,
                budget_s=options.budget or curve.budget_s * (10 if options.full else 1),
            ):
                incomplete.append(curve.name)
    except KeyboardInterrupt:
        print("interrupted; --missing goes on with the curves that are left", file=sys.stderr)
        return 130
    if incomplete:
        print(f"not complete: {', '.join(incomplete)} (see --budget)", file=sys.stderr)
    return int(bool(incomplete))


if __name__ == "__main__":
    sys.exit(main())
