"""Many Topic Filters: finding a topic's among them, and a session that has many.

Topics and filters have five levels; every fifth filter has wildcards, some of them first. The
session was away while 200,000 messages to 20,000 topics went by that it does not want, and 1,000
that it does; *resume* is from its CONNECT to the last of those. A neighbour sends PINGREQ and a
message of QoS 0 to itself all the time. The longest that a PINGRESP takes (*stall*) is how long the
broker attended to nobody else; a message also waits for the commit before it.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing

from benchmarks import prepare
from benchmarks.brokers import running, scratch
from broker.delivery.routes import RouteTable
from broker.documents import SubscriptionDocument
from broker.message import Offset
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_3_1_1, Publish, Subscribe, SubscriptionRequest, Unsubscribe
from broker.session.session import Session
from broker.topics import is_literal
from cli.bench.connection import HANDSHAKE_S, Connection, ConnectionClosed, LoadError, Loop
from cli.bench.packets import packet, text
from cli.net.address import Address

LEVELS = 5
SPREAD = 7919
"""Prime, so that neighbouring numbers have nothing in common and none comes twice."""
FILTERS_PER_SESSION = 20_000
ROUTED_TOPICS, REPETITIONS = 5000, 10
OTHER_TOPICS, OTHER_MESSAGES = 20_000, 200_000
MISSED = 1000
PAYLOAD = b"x" * 128
FILTERS_PER_SUBSCRIBE = 100
FILTERS_PER_PACKET = 10_000
"""As many as the broker permits."""
PERIOD_S = 0.001
TIMEOUT_S = 60.0

CONNACK, PUBLISH, PUBACK, SUBACK, UNSUBACK, PINGRESP = 2, 3, 4, 9, 11, 13


def topic(number: int) -> str:
    """Five levels, a digit each."""
    return "/".join(f"{number * SPREAD % 10**LEVELS:0{LEVELS}}")


def topic_filter(number: int) -> str:
    """Matches none of the topics, though it agrees with some of them for four levels."""
    a, b, c, d, e = topic(number).split("/")
    x = f"x{number // 10**LEVELS}"
    if number % LEVELS:
        return f"{a}/{b}/{c}/{d}/{e}{x}"
    kinds = (
        f"+/{b}/{c}/{d}/{e}{x}",
        f"{a}/+/{c}/{d}/{e}{x}",
        f"{a}/{b}/+/+/{e}{x}",
        f"{a}/{b}/{c}/{d}{x}/#",
    )
    return kinds[number // LEVELS % len(kinds)]


def routing_us(count: int) -> float:
    """Microseconds in which it is found, for the first time, who gets what is published to a topic:
    one of all that subscribe to `count` other filters."""
    table = RouteTable()
    for first in range(0, count, FILTERS_PER_SESSION):
        session = Session(f"sub{first}", created_at_us=0, start=Offset(0), inflight_max=1)
        for number in range(first, min(count, first + FILTERS_PER_SESSION)):
            table.add(session, subscription(topic_filter(number)))
    table.add(session, subscription("/".join("+" * LEVELS)))
    took_s = []
    for first in range(0, ROUTED_TOPICS * REPETITIONS, ROUTED_TOPICS):
        topics = [topic(number) for number in range(first, first + ROUTED_TOPICS)]
        start = time.perf_counter()
        for name in topics:
            assert len(table.of(name)) == 1
        took_s.append(time.perf_counter() - start)
    return min(took_s) / ROUTED_TOPICS * 1e6


def subscription(topic_filter: str) -> SubscriptionDocument:
    return SubscriptionDocument(
        *("", topic_filter, 1),
        no_local=False,
        retain_as_published=False,
        retain_handling=0,
        subscription_id=None,
        start_offset=Offset(0),
    )


def one_session(count: int, seconds: float) -> dict[str, float]:
    """Everything that a session with `count` filters does; takes as long as it takes."""
    filters = [topic_filter(number) for number in range(count)]
    wanted = [filter for filter in filters if is_literal(filter)]
    figures: dict[str, float] = {}
    with scratch("subscriptions") as directory:
        path = prepare.database(directory)
        with running("pubsub", directory) as broker, closing(Loop()) as loop:
            watch = Stopwatch(loop, Neighbour(loop, broker.address, "neighbour"), figures)
            session = SessionClient(loop, broker.address, "session")
            session.open()
            watch.came("connect new", session, CONNACK)
            for packets in divided(filters, FILTERS_PER_SUBSCRIBE):
                session.write(packets)
            watch.came("subscribe", session, SUBACK, -(-count // FILTERS_PER_SUBSCRIBE))
            session.leave()
            watch.time("disconnect", lambda: session.closed)
        topics = [topic(number) for number in range(OTHER_TOPICS)]
        prepare.add_messages(path, OTHER_MESSAGES, PAYLOAD, topics)
        with running("pubsub", directory) as broker, closing(Loop()) as loop:
            watch = Stopwatch(loop, Neighbour(loop, broker.address, "neighbour"), figures)
            publisher = SessionClient(loop, broker.address, "publisher")
            publisher.open()
            watch.came("", publisher, CONNACK)
            publisher.write(publishes(wanted))
            watch.came("", publisher, PUBACK, MISSED)
            session = SessionClient(loop, broker.address, "session")
            session.open()
            watch.came("connect", session, CONNACK)
            watch.came("first message", session, PUBLISH)
            watch.came("last message", session, PUBLISH, MISSED)
            parts = range(0, count, FILTERS_PER_PACKET)
            for at in parts:
                some = filters[at : at + FILTERS_PER_PACKET]
                session.write(encode(Unsubscribe(1, some), MQTT_3_1_1))
            watch.came("unsubscribe", session, UNSUBACK, len(parts))
            for packets in divided(filters, FILTERS_PER_PACKET):
                session.write(packets)
            watch.came("subscribe in one", session, SUBACK, len(parts))
            session.write(packet(0xC0, b""))
            watch.came("", session, PINGRESP)
            if session.came[PUBLISH] != MISSED:
                raise LoadError(f"{session.came[PUBLISH]} messages came, not {MISSED}")
    figures["resume ms"] = sum(
        figures[f"{step} ms"] for step in ("connect", "first message", "last message")
    )
    figures["stall ms"] = max(ms for name, ms in figures.items() if name.endswith(": stall ms"))
    return figures


def divided(filters: Sequence[str], size: int) -> Iterable[bytes]:
    for at in range(0, len(filters), size):
        requests = [SubscriptionRequest(filter, 1) for filter in filters[at : at + size]]
        yield encode(Subscribe(1, requests), MQTT_3_1_1)


def publishes(topics: Sequence[str]) -> bytes:
    """MISSED messages of QoS 1, round the topics."""
    return b"".join(
        encode(
            Publish(topics[n % len(topics)], PAYLOAD, qos=1, retain=False, dup=False, packet_id=n),
            MQTT_3_1_1,
        )
        for n in range(1, MISSED + 1)
    )


class SessionClient(Connection):
    """A durable session's client. Counts what comes by type, and acknowledges nothing."""

    def open(self) -> None:
        """Unlike `connect`, it does not wait for the CONNACK."""
        self._unsent = bytearray()
        self._partial = b""
        self._leaving = False
        self.closed = False
        self.came = [0] * 16
        address = self.address
        self.socket = socket.create_connection((address.host, address.port), timeout=HANDSHAKE_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.loop.connections.append(self)
        self.loop.watch(self)
        self.write(packet(0x10, text("MQTT") + bytes((4, 0, 0, 0)) + text(self.client_id)))

    def leave(self) -> None:
        """Likewise, it does not wait until the broker has closed."""
        self._leaving = True
        self.write(packet(0xE0, b""))

    def readable(self) -> None:
        try:
            super().readable()
        except ConnectionClosed:
            if not self._leaving:
                raise
            self.closed = True
            self.close()

    def received(self, buffer: bytearray, end: int) -> int:
        at = 0
        while (stop := packet_end(buffer, at, end)) is not None:
            self.came[buffer[at] >> 4] += 1
            at = stop
        return at


def packet_end(buffer: bytes | bytearray, at: int, end: int) -> int | None:
    """Where the packet at `at` ends; None if it is not whole."""
    length = shift = 0
    for place in range(at + 1, min(end, at + 5)):
        length |= (buffer[place] & 0x7F) << shift
        shift += 7
        if buffer[place] < 0x80:
            stop = place + 1 + length
            return stop if stop <= end else None
    return None


class Neighbour(Connection):
    """Sends a PINGREQ, and itself a message of QoS 0, and both again when both were answered."""

    def __init__(self, loop: Loop, address: Address, client_id: str) -> None:
        super().__init__(loop, address, client_id)
        self.longest_ping_s = self.longest_message_s = 0.0
        self._sent_at = self._next_at = 0.0
        self._pinging = self._publishing = False
        self.connect()
        topic = text(f"$neighbour/{client_id}")
        self._expect(self._ask(packet(0x82, b"\0\1" + topic + b"\0"), 5), b"\x90\x03\0\1\0")
        self._requests = packet(0x30, topic) + packet(0xC0, b"")

    @property
    def waits(self) -> bool:
        return self._pinging or self._publishing

    def look(self) -> None:
        """Begin anew if it is time."""
        now = time.perf_counter()
        if not self.waits and now >= self._next_at:
            self._sent_at, self._next_at = now, now + PERIOD_S
            self._pinging = self._publishing = True
            self.write(self._requests)

    def received(self, buffer: bytearray, end: int) -> int:
        at = 0
        took_s = time.perf_counter() - self._sent_at
        while (stop := packet_end(buffer, at, end)) is not None:
            if buffer[at] >> 4 == PINGRESP:
                self._pinging = False
                self.longest_ping_s = max(self.longest_ping_s, took_s)
            else:
                self._publishing = False
                self.longest_message_s = max(self.longest_message_s, took_s)
            at = stop
        return at


class Stopwatch:
    """Times what a session waits for, and what its neighbour feels of it meanwhile."""

    def __init__(self, loop: Loop, neighbour: Neighbour, figures: dict[str, float]) -> None:
        self._loop = loop
        self._neighbour = neighbour
        self._figures = figures

    def time(self, name: str, finished: Callable[[], bool]) -> None:
        """Take the time until this is so; with an empty name, for nothing."""
        neighbour = self._neighbour
        neighbour.longest_ping_s = neighbour.longest_message_s = 0.0
        start = time.perf_counter()

        def look() -> bool:
            neighbour.look()
            return finished()

        self._run(look)
        took_s = time.perf_counter() - start
        self._run(lambda: not neighbour.waits)
        if name:
            self._figures[f"{name} ms"] = took_s * 1e3
            self._figures[f"{name}: stall ms"] = neighbour.longest_ping_s * 1e3
            self._figures[f"{name}: message stall ms"] = neighbour.longest_message_s * 1e3

    def came(self, name: str, client: SessionClient, kind: int, count: int = 1) -> None:
        """Until `count` packets of this type came since it was opened."""
        self.time(name, lambda: client.came[kind] >= count)

    def _run(self, finished: Callable[[], bool]) -> None:
        self._loop.run(finished, timeout_s=TIMEOUT_S, wait_s=PERIOD_S)
