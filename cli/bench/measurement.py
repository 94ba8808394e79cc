"""Measurement: one run of `pubsub bench`, and what has been counted of it so far.

- Publishers send to subscribers of the same topic, by `load.py`; each subscriber checks that
  the messages of each publisher come complete, once and in order. Every message carries the time
  when it was sent, so the latency of each is counted, not of a sample.
- As fast as possible, a publisher has at most `window` messages under way: sent, and not yet
  acknowledged or not yet with every subscriber. So what is measured is a steady stream, and not
  how much a broker can collect; latency is then mostly the wait in that window.
- With a rate, a message is due by the clock, whatever the broker does, and its latency counts from
  then: a broker that stalls cannot hide it by keeping us from sending.
- With a backlog, subscribers are away while it is published: each rate has the machine for itself.
- Nothing is left: the sessions that the backlog needs are removed. Only what a broker keeps of
  messages by itself (ours: the log) stays.
"""

from __future__ import annotations

import contextlib
import math
import resource
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from broker.topics import refuse_control_characters, validate_name
from cli.bench.connection import (
    NAP_MANY_S,
    NAP_S,
    ConnectionClosed,
    ConnectionRefused,
    LoadError,
    Loop,
    SubscriptionRefused,
)
from cli.bench.histogram import Histogram
from cli.bench.load import RING_STEP, UNLIMITED, Publisher, Subscriber, follow
from cli.bench.packets import Shape
from cli.net.address import Address
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.interrupt import Interrupt

STALL_S = 10.0
"""What has not come after so long without anything coming does not come any more."""
TICK_S = 0.5
SETTLE_S = 0.05
"""At the end, to see a message that should not come any more."""
WAIT_MIN_S, WAIT_MAX_S = 0.0001, 0.01
WINDOW_TO_NAP = 100
RING_BYTES_MAX = 1 << 30
RETURN_CODES = {
    1: "it does not speak MQTT 3.1.1",
    2: "the client identifier is refused",
    3: "it is not available",
    4: "Bad user name or password",
    5: "Not authorized",
}
NOT_AUTHORIZED_CODES = (4, 5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """`rate_per_s` 0: as fast as possible. `messages` and `rate_per_s` are of all publishers."""

    address: Address
    client_id: str
    topic: str
    qos: int
    size_bytes: int
    publishers: int
    subscribers: int
    window: int
    rate_per_s: float
    messages: int | None
    seconds: float | None
    backlog: bool
    json: bool


def measure(options: Options) -> Measurement:
    """One run. Raises TopicNameInvalid, and CommandFailed: it could not begin."""
    validate_name(options.topic)
    refuse_control_characters(options.topic)
    shape = Shape(options.topic, options.qos, options.size_bytes)
    ring = max(options.window, RING_STEP) * shape.length * options.publishers
    if ring > RING_BYTES_MAX:
        raise CommandFailed(
            "the messages under way would need more than 1 GiB here",
            "choose a smaller --window, --size or --publishers",
            Exit.USAGE,
        )
    # Each client is a socket.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    with Interrupt() as interrupt, contextlib.closing(Loop(shape.length)) as loop:
        run = Measurement(options, shape, loop, interrupt)
        try:
            run.connect()
            run.measure()
        finally:
            run.clean_up()
    return run


class Receiver(Subscriber):
    """Counts what is not the next message of its publisher, where the base class ends the run."""

    misplaced = 0
    """Repeated; or late, and then its place counts as lost too."""

    def unexpected(self, publisher: int, sequence: int) -> None:
        if publisher >= len(self.received_of):
            raise LoadError("another benchmark publishes to the same topic: choose another -t")
        if sequence < self.received_of[publisher]:
            self.misplaced += 1
        else:
            self.received_of[publisher] = sequence + 1


class Measurement:
    """`connect`, `measure`, `clean_up`; then the counts are in what is public here."""

    def __init__(self, options: Options, shape: Shape, loop: Loop, interrupt: Interrupt) -> None:
        self.options = options
        self.publishers: list[Publisher] = []
        self.subscribers: list[Receiver] = []
        self.latency = Histogram()
        self.ack_latency = Histogram()
        self.publishing_s = self.delivering_s = 0.0
        self.settled = False
        """Whether what has not arrived is lost, and not just under way."""
        self.failure: str | None = None
        self.exit_code = Exit.FAILED
        self._shape = shape
        self._loop = loop
        self._interrupt = interrupt
        self._offered = 0
        self._all_offered = False

    def connect(self) -> None:
        """Raises CommandFailed: nobody there (69), not authorised (77), refused otherwise (1)."""
        address = self.options.address
        try:
            for n in range(self.options.subscribers):
                self._interrupt.check()
                self.subscribers.append(self._subscriber(n))
            for n in range(self.options.publishers):
                self._interrupt.check()
                self.publishers.append(self._publisher(n))
        except ConnectionRefused as error:
            code = error.return_code
            reason = RETURN_CODES.get(code, f"return code {code}")
            raise address.refused(reason, not_authorized=code in NOT_AUTHORIZED_CODES) from error
        except SubscriptionRefused as error:
            remedy = address.right_to("subscribe", self.options.topic)
            raise CommandFailed(str(error), remedy, Exit.NOT_AUTHORIZED) from error
        except ConnectionClosed as error:
            raise address.silent(str(error)) from error
        except LoadError as error:
            raise CommandFailed(str(error)) from error
        except OSError as error:
            raise address.unanswered(error) from error

    def _subscriber(self, n: int) -> Receiver:
        options = self.options
        subscriber = Receiver(
            self._loop,
            options.address,
            f"{options.client_id}-sub{n}",
            self._shape,
            publishers=options.publishers,
            durable=options.backlog,
        )
        if options.backlog:
            subscriber.disconnect()
        else:
            subscriber.latency = self.latency
        return subscriber

    def _publisher(self, n: int) -> Publisher:
        options = self.options
        together = options.subscribers > 0 and not options.backlog
        publisher = Publisher(
            self._loop,
            options.address,
            f"{options.client_id}-pub{n}",
            self._shape,
            number=n,
            window=options.window,
            lead=options.window if together else UNLIMITED,
        )
        publisher.ack_latency = self.ack_latency
        return publisher

    def measure(self) -> None:
        """Until everything is published and has arrived, or it is clear that it does not."""
        try:
            if self.options.backlog:
                self._serve(self.publishers, [])
                for subscriber in self.subscribers:
                    subscriber.resume()
                self._serve([], self.subscribers)
            else:
                self._serve(self.publishers, self.subscribers)
            until = time.perf_counter() + SETTLE_S
            self._loop.run(lambda: time.perf_counter() > until, timeout_s=math.inf)
            self.settled = True
        except ConnectionClosed as error:
            self.failure = f"connection lost: {error}"
            self.exit_code = Exit.UNREACHABLE
        except (LoadError, OSError) as error:
            self.failure = str(error)
        except KeyboardInterrupt:
            self.failure = "interrupted while messages were under way"

    def clean_up(self) -> None:
        """Remove the sessions that were made to outlive their connections."""
        for subscriber in self.subscribers if self.options.backlog else ():
            with contextlib.suppress(LoadError, OSError):
                if subscriber in self._loop.connections:
                    subscriber.close()
                subscriber.connect(clean=True)
                subscriber.disconnect()

    def _serve(self, publishers: Sequence[Publisher], subscribers: Sequence[Receiver]) -> None:
        """Until all is published, acknowledged and with `subscribers`, or nothing comes any more.

        Without `publishers`, what was published before is waited for.
        """
        rate_per_s, window = self.options.rate_per_s, self.options.window
        watch = Watch(self.publishers, subscribers)
        requested_before = self._interrupt.requested
        acknowledged = not publishers
        arrived = stalled = False

        def finished() -> bool:
            nonlocal acknowledged, arrived, stalled
            now = time.perf_counter()
            if publishers and not self._all_offered:
                self._offer(now - watch.start)
            elif not publishers and not requested_before:
                self._interrupt.check()
            if publishers and subscribers:
                follow(publishers, subscribers)
            if not acknowledged and self._all_offered:
                acknowledged = all(p.sent == p.limit and p.idle for p in publishers)
                self.publishing_s = now - watch.start
            sent = [publisher.sent for publisher in self.publishers]
            arrived = acknowledged and all(s.idle(sent) for s in subscribers)
            stalled = not arrived and watch.stalled(now)
            return arrived or stalled

        if rate_per_s:
            wait_s, nap_s = max(WAIT_MIN_S, min(WAIT_MAX_S, 0.2 / rate_per_s)), 0.0
        else:
            one_to_one = self.options.publishers == self.options.subscribers == 1
            wait_s, nap_s = WAIT_MAX_S, NAP_S if one_to_one else NAP_MANY_S
        try:
            self._loop.run(
                finished,
                timeout_s=math.inf,
                wait_s=wait_s,
                nap_s=nap_s if window >= WINDOW_TO_NAP else 0.0,
            )
            if not subscribers and not self._shape.qos:
                for publisher in publishers:
                    publisher.synchronize()
                self.publishing_s = time.perf_counter() - watch.start
        finally:
            output.progress("")
            elapsed_s = (watch.changed_at if stalled else time.perf_counter()) - watch.start
            if not acknowledged:
                self.publishing_s = elapsed_s
            if subscribers:
                self.delivering_s = elapsed_s

    def _offer(self, elapsed_s: float) -> None:
        """Let publishers have what is due, or all at once without a rate."""
        options, publishers = self.options, self.publishers
        if self._interrupt.requested or elapsed_s >= (options.seconds or math.inf):
            for publisher in publishers:
                publisher.stop()
            self._all_offered = True
        elif options.rate_per_s:
            due = int(elapsed_s * options.rate_per_s) + 1
            self._offer_up_to(min(due, options.messages or due), Publisher.offer)
            self._all_offered = self._offered == options.messages
        elif not self._offered:
            self._offer_up_to(options.messages or UNLIMITED * len(publishers), Publisher.allow)
        else:
            self._all_offered = all(publisher.sent == publisher.limit for publisher in publishers)

    def _offer_up_to(self, total: int, offer: Callable[[Publisher, int], None]) -> None:
        """Publishers take turns, so that each has its share of any number."""
        every = len(self.publishers)
        for n, publisher in enumerate(self.publishers, 1 - every):
            share = (total - n) // every - (self._offered - n) // every
            if share:
                offer(publisher, share)
        self._offered = total


class Watch:
    """Shows the rates of the moment, and sees when nothing comes any more."""

    def __init__(self, publishers: Sequence[Publisher], subscribers: Sequence[Receiver]) -> None:
        self.start = self.changed_at = time.perf_counter()
        self._publishers = publishers
        self._subscribers = subscribers
        self._looked_at = self.start
        self._before = self._counts()

    def stalled(self, now: float) -> bool:
        """Whether something is under way, and nothing has come for STALL_S."""
        if now < self._looked_at + TICK_S:
            return False
        counts = self._counts()
        per_s = [
            (count - before) / (now - self._looked_at)
            for count, before in zip(counts, self._before, strict=True)
        ]
        output.progress(
            f"{now - self.start:.1f} s   sent {per_s[0]:,.0f}/s   acknowledged {per_s[1]:,.0f}/s"
            f"   received {per_s[2]:,.0f}/s"
        )
        sent = [publisher.sent for publisher in self._publishers]
        under_way = not (
            all(p.sent == p.limit and p.idle for p in self._publishers)
            and all(subscriber.idle(sent) for subscriber in self._subscribers)
        )
        if counts != self._before or not under_way:
            self.changed_at = now
        self._looked_at, self._before = now, counts
        return now > self.changed_at + STALL_S

    def _counts(self) -> tuple[int, int, int]:
        return (
            sum(publisher.sent for publisher in self._publishers),
            sum(publisher.acked for publisher in self._publishers),
            sum(subscriber.received_count for subscriber in self._subscribers),
        )
