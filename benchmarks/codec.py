"""Microseconds for each message: decoding, encoding, and what is remembered to do it faster.

    python -m benchmarks.codec [--only TEXT] [--seconds 0.3]

Prints one row for each kind of work, without a broker, a socket or a disk: packets to bytes and
bytes to packets, and the parts of that whose cost decides how they are written: caches, WebSocket
frames, rows on their way into SQLite. It takes `--seconds` for each row, 15 s for all of them.

A row is the fastest of many short runs: on a machine that others use too, a run can be slower for
their sake, but not faster. Compare the rows of one call with each other, and two versions of the
code by calls that take turns.

A message is one of 500 (of 50 where one takes long) in one read or one write, with 128 bytes of
payload and a topic of 11 characters, unless a row says otherwise. *Remembered* is found in a cache,
*made* is not.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

from websockets.protocol import State
from websockets.server import ServerProtocol

from broker.config import Config
from broker.message import Grant, Message, Outgoing
from broker.mqtt.decode import Decoder
from broker.mqtt.encode import encode
from broker.mqtt.fields import PACKET_BYTES_MAX, u16
from broker.mqtt.limits import Limits
from broker.mqtt.outgoing import (
    Headers,
    TopicAliases,
    TopicPrefixes,
    encode_aliased,
    encode_publishes,
)
from broker.mqtt.packets import (
    MQTT_3_1_1,
    MQTT_5,
    Ack,
    Connect,
    Packet,
    PacketType,
    Pingreq,
    Publish,
    Subscribe,
    SubscriptionRequest,
    Will,
)
from broker.mqtt.properties import Property, message_properties, property_section
from broker.mqtt.publishes import TopicNames
from broker.net.frames import BINARY, FIN, MASKED, FrameReader
from broker.store.sqlite.rows import insert_rows
from broker.topics import TopicTree, validate_filter, validate_name

SECONDS = 0.3
"""For each row."""
ROUNDS = 10
"""Each row has its turn in each round: what slows the machine for a second spoils no row."""
NAME_WIDTH = 40
RUN = 500
FEW = 50
"""Of what takes so long that a run of 500 would seldom be left alone."""
TOPIC = "bench/topic"
PAYLOAD = b"x" * 128
READ_BYTES = 1000
"""Of a split run: a packet in seven is in two of them."""
FILTERS = 10
TREE_FILTERS = 1000
LIMITS = Limits.of(Config())
VERSIONS = {MQTT_3_1_1: "3.1.1", MQTT_5: "5"}
MASK = b"\1\2\3\4"
COLUMNS = 9
"""Of a row of `messages`."""


@dataclass(frozen=True)
class Row:
    name: str
    messages: int
    call: Callable[[], int]
    """Does the work; how many messages that was, so that no row measures work left undone."""

    def fastest_us(self, seconds: float) -> float:
        """Microseconds for each message in the fastest of the runs of about so many seconds."""
        fastest_s = float("inf")
        now = time.perf_counter()
        stop_at = now + seconds
        while now < stop_at:
            before = time.perf_counter()
            done = self.call()
            now = time.perf_counter()
            assert done == self.messages, f"{self.name}: {done} of {self.messages} messages"
            fastest_s = min(fastest_s, now - before)
        return fastest_s / self.messages * 1e6


def rows() -> Iterator[Row]:
    yield from decoding()
    yield from encoding()
    yield from parts_of_decoding()
    yield from parts_of_encoding()
    yield from topics()
    yield from frames()
    yield from inserts()


# Bytes to packets


def decoding() -> Iterator[Row]:
    for version, named in VERSIONS.items():
        for qos in (0, 1, 2):
            run = [publish(qos, number) for number in range(1, RUN + 1)]
            yield decode_row(f"PUBLISH of QoS {qos}, {named}", version, encoded(run, version), RUN)
    run = [publish(1, number) for number in range(1, RUN + 1)]
    data = encoded(run, MQTT_5)
    yield decode_row(f"PUBLISH in reads of {READ_BYTES} B", MQTT_5, data, RUN, READ_BYTES)
    yield decode_row("PUBLISH alone in a read", MQTT_5, data, RUN, len(data) // RUN)
    remembered = [publish(1, number, content_type("text/plain")) for number in range(1, RUN + 1)]
    yield decode_row("PUBLISH, properties remembered", MQTT_5, encoded(remembered, MQTT_5), RUN)
    long = [publish(1, number, content_type("x" * 100)) for number in range(1, FEW + 1)]
    yield decode_row("PUBLISH, a property of 103 B", MQTT_5, encoded(long, MQTT_5), FEW)
    yield decode_row("PUBLISH, Topic Alias", MQTT_5, aliased(), RUN)
    acks = encode(Ack(PacketType.PUBACK, range(1, RUN + 1)), MQTT_5)
    yield decode_row(f"PUBACK in a run of {RUN}", MQTT_5, acks, RUN)
    yield decode_row("PUBACK alone in a read", MQTT_5, acks, RUN, len(acks) // RUN)
    refused = encode(Ack(PacketType.PUBACK, range(1, FEW + 1), 0x87, "no"), MQTT_5)
    yield decode_row("PUBACK with a Reason String", MQTT_5, refused, FEW)
    for filters in (1, FILTERS):
        requests = [SubscriptionRequest(f"bench/{n}/#", 1) for n in range(filters)]
        subscribes = encoded([Subscribe(1, requests)] * FEW, MQTT_5)
        yield decode_row(f"SUBSCRIBE of {filters}", MQTT_5, subscribes, FEW)
    yield decode_row("PINGREQ", MQTT_5, encoded([Pingreq()] * RUN, MQTT_5), RUN)
    yield connect_row()


def decode_row(name: str, version: int, data: bytes, messages: int, read_bytes: int = 0) -> Row:
    decoder = new_decoder()
    decoder.version = version
    size = read_bytes or len(data)
    reads = [data[at : at + size] for at in range(0, len(data), size)]

    def decode() -> int:
        done = 0
        for read in reads:
            decoder.feed(read)
            publishes: list[Any] = []
            while (packet := decoder.next(publishes)) is not None:
                done += len(packet.packet_ids) if isinstance(packet, Ack) else 1
            done += len(publishes)
        return done

    return Row(f"decode {name}", messages, decode)


def connect_row() -> Row:
    """A decoder takes one CONNECT, so its making is in it."""
    will = Will("gone", b"x", 1, False)
    connect = Connect(MQTT_5, "client", True, 60, will, "user", b"password", 3600)
    data = encode(connect, MQTT_5)

    def decode() -> int:
        for _ in range(FEW):
            decoder = new_decoder()
            decoder.feed(data)
            assert decoder.next([]) is not None
        return FEW

    return Row("decode CONNECT", FEW, decode)


def new_decoder() -> Decoder:
    return Decoder(LIMITS)


def publish(qos: int, number: int, properties: bytes = b"") -> Publish:
    return Publish(TOPIC, PAYLOAD, qos, False, False, number if qos else 0, properties)


def content_type(value: str) -> bytes:
    """Encoded, without the length in front, which is one byte here."""
    return property_section({Property.CONTENT_TYPE: value}, b"")[1:]


def encoded(packets: Sequence[Packet], version: int) -> bytes:
    return b"".join(encode(packet, version) for packet in packets)


def aliased() -> bytes:
    run = [(message(TOPIC), Grant(1)) for _ in range(RUN)]
    data, _ = encode_aliased(
        TopicAliases(1),
        run,
        range(1, RUN + 1),
        dup=False,
        now_us=0,
        packet_bytes_max=PACKET_BYTES_MAX,
    )
    return data


# Packets and messages to bytes


def encoding() -> Iterator[Row]:
    same = [(message(TOPIC), Grant(2)) for _ in range(RUN)]
    others = [(message(f"bench/{n:05}"), Grant(2)) for n in range(RUN)]
    for version, named in VERSIONS.items():
        yield publishes_row(f"PUBLISH of one topic, {named}", version, same)
        yield publishes_row(f"PUBLISH of {RUN} topics, {named}", version, others)
    qos_0 = [(message(TOPIC), Grant(0)) for _ in range(RUN)]
    yield publishes_row("PUBLISH of QoS 0", MQTT_5, qos_0)
    yield publishes_row("PUBLISH alone in a write", MQTT_5, same, 1)
    identified = [(message(TOPIC), Grant(2, subscription_ids=(1,))) for _ in range(RUN)]
    yield publishes_row("PUBLISH, Subscription Identifier", MQTT_5, identified)
    aliases = TopicAliases(1)
    ids = range(1, RUN + 1)

    def encode_by_alias() -> int:
        _, left_out = encode_aliased(
            aliases, same, ids, dup=False, now_us=0, packet_bytes_max=PACKET_BYTES_MAX
        )
        return RUN - len(left_out)

    yield Row("encode PUBLISH, Topic Alias", RUN, encode_by_alias)
    run = Ack(PacketType.PUBACK, tuple(ids))
    yield Row(f"encode PUBACK in a run of {RUN}", RUN, lambda: len(encode(run, MQTT_5)) // 4)
    alone = Ack(PacketType.PUBACK, (1,))
    yield each("encode PUBACK alone", lambda ack: encode(ack, MQTT_5), [alone] * RUN)


def publishes_row(
    name: str, version: int, outgoing: Sequence[Outgoing], write_messages: int = RUN
) -> Row:
    parts = [outgoing[at : at + write_messages] for at in range(0, len(outgoing), write_messages)]
    packet_ids = range(1, write_messages + 1)

    def encode_run() -> int:
        done = 0
        for part in parts:
            _, left_out = encode_publishes(
                version, part, packet_ids, dup=False, now_us=0, packet_bytes_max=PACKET_BYTES_MAX
            )
            done += len(part) - len(left_out)
        return done

    return Row(f"encode {name}", len(outgoing), encode_run)


def message(topic: str) -> Message:
    return Message(topic, PAYLOAD, 1, False, "publisher", 0)


# What they remember, and what it costs to make it


def each(name: str, call: Callable[[Any], object], arguments: Sequence[Any]) -> Row:
    """A call for each argument."""

    def call_all() -> int:
        for argument in arguments:
            call(argument)
        return len(arguments)

    return Row(name, len(arguments), call_all)


def parts_of_decoding() -> Iterator[Row]:
    encoded_topics = [f"bench/{n:05}".encode() for n in range(RUN)]
    names = TopicNames(LIMITS.topic_bytes_max, LIMITS.topic_levels_max)
    yield each("Topic Name remembered", names.__getitem__, encoded_topics)
    yield each("Topic Name made", names.__missing__, encoded_topics)
    short, long = content_type("text/plain"), content_type("x" * 100)
    kind = PacketType.PUBLISH
    yield each("properties remembered", lambda s: message_properties(s, kind), [short] * RUN)
    yield each("properties made, one of them", lambda s: message_properties(s, kind), [long] * FEW)
    pairs = property_section({Property.USER_PROPERTY: [("key", "value")] * FEW}, b"")[2:]

    def split() -> int:
        properties = message_properties(pairs, kind)
        return FEW if properties.forwarded == pairs else 0

    yield Row(f"a User Property, one of {FEW}", FEW, split)

    def by_slots() -> int:
        new = object.__new__
        for number in range(RUN):
            made = new(Publish)
            made.topic = TOPIC
            made.payload = PAYLOAD
            made.qos = 1
            made.retain = False
            made.dup = False
            made.packet_id = number
            made.properties = b""
            made.message_expiry_s = None
        return RUN

    def by_constructor() -> int:
        for number in range(RUN):
            Publish(TOPIC, PAYLOAD, 1, False, False, number)
        return RUN

    yield Row("Publish by its slots", RUN, by_slots)
    yield Row("Publish by its constructor", RUN, by_constructor)


def parts_of_encoding() -> Iterator[Row]:
    headers, of_lengths = Headers(), [length << 8 | 0x32 for length in range(RUN)]
    yield each("fixed header remembered", headers.__getitem__, of_lengths)
    yield each("fixed header made", headers.__missing__, of_lengths)
    prefixes, names = TopicPrefixes(), [f"bench/{n:05}" for n in range(RUN)]
    yield each("topic prefix remembered", prefixes.__getitem__, names)
    yield each("topic prefix made", prefixes.__missing__, names)
    known = [u16(packet_id) for packet_id in range(RUN)]
    yield each("Packet Identifier remembered", known.__getitem__, range(RUN))
    yield each("Packet Identifier made", u16, range(RUN))


def topics() -> Iterator[Row]:
    names = [f"home/floor{n % 3}/room{n}/temperature" for n in range(RUN)]
    yield each("Topic Name validated", validate_name, names)
    yield each("Topic Filter validated", validate_filter, [f"home/+/room{n}/#" for n in range(RUN)])
    tree: TopicTree[int, int] = TopicTree()
    for number, kind in zip(range(TREE_FILTERS), cycle(("home/+/room{}/#", "home/floor1/room{}"))):
        tree.add(kind.format(number), number, number)
    yield each(f"topic matched, {TREE_FILTERS} filters", tree.match, names)


# Around MQTT: WebSocket frames and rows of SQLite


def frames() -> Iterator[Row]:
    """Of one byte each, as some clients send them."""
    data = (bytes((FIN | BINARY, MASKED | 1)) + MASK + b"x") * FEW
    reader = FrameReader()

    def by_ours() -> int:
        payloads: list[bytes] = []
        reader.feed(data)
        reader.next(payloads)
        return len(payloads)

    library = ServerProtocol(state=State.OPEN)

    def by_the_library() -> int:
        library.receive_data(data)
        return len(library.events_received())

    yield Row("WebSocket frame", FEW, by_ours)
    yield Row("WebSocket frame, by the library", FEW, by_the_library)


def inserts() -> Iterator[Row]:
    """Into a table in memory, without an index: what Python and the GIL make of it."""
    columns = ",".join(f"c{number}" for number in range(COLUMNS))
    row = f"({','.join('?' * COLUMNS)})"
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute(f"CREATE TABLE t({columns})")
    insert = f"INSERT INTO t({columns}) VALUES "
    numbers = [1] * (COLUMNS - 1)

    def inserted(parameters: list[Any], rows_each: int) -> Callable[[], int]:
        step = COLUMNS * rows_each

        def call() -> int:
            database.execute("BEGIN")
            for at in range(0, len(parameters), step):
                insert_rows(database, insert, row, "", COLUMNS, parameters[at : at + step])
            count: int
            (count,) = database.execute("SELECT count(*) FROM t").fetchone()
            database.execute("ROLLBACK")
            return count

        return call

    bound = (*numbers, bytearray(PAYLOAD)) * RUN
    yield Row(f"row inserted, {RUN} in one call", RUN, inserted(list(bound), RUN))
    yield Row("row inserted, one in each call", RUN, inserted(list(bound), 1))
    adapted = (*numbers, PAYLOAD) * RUN
    yield Row("row inserted, one value adapted", RUN, inserted(list(adapted), RUN))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.codec",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="rows that have it in their name"
    )
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each row")
    options = parser.parse_args(arguments)
    chosen = [row for row in rows() if options.only in row.name]
    if not chosen:
        parser.error(f"no row has {options.only!r} in its name")
    fastest_us = [float("inf")] * len(chosen)
    for _ in range(ROUNDS):
        for number, row in enumerate(chosen):
            fastest_us[number] = min(fastest_us[number], row.fastest_us(options.seconds / ROUNDS))
    print(f"{'':<{NAME_WIDTH}}{'µs each':>9}")
    for row, each_us in zip(chosen, fastest_us, strict=True):
        print(f"{row.name:<{NAME_WIDTH}}{each_us:>9.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
