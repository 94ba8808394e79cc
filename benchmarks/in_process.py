"""The whole broker in one process, without a socket and without a clock.

It is the real `Server`, on either store. A connection is what its listener would make of one, from
`data_received` to the transport's `write`, with our `Wire` for the transport. Peers hand it fixed
reads and react only when all that is due has come, and its clock stands still: what makes up each
commit is known, however loaded the machine is.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

from broker.config import Config
from broker.documents import Operation
from broker.errors import PubSubError
from broker.log.qos0 import LAZY_COMMIT_S
from broker.log.waking import CURSOR_COMMIT_DELAY_S
from broker.message import Message
from broker.server.server import Server
from broker.store import Store
from broker.store.sqlite import stop_watch
from broker.store.sqlite.in_loop import InLoop, is_small
from tests.support.clock import FakeClock

TOPIC = b"bench/topic"
PAYLOAD = b"x" * 128
PUBACK, PUBREC, PUBREL, PUBCOMP = 0x40, 0x50, 0x62, 0x70
ACK_BYTES = 4
HANG_S = 120.0
"""A message that the broker lost would be waited for: then the run ends with an error."""

T = TypeVar("T")
NewProtocol = Callable[[], asyncio.Protocol]


@dataclass(frozen=True)
class Workload:
    name: str
    qos: int
    batch: int = 100
    """Messages in one read, and so in one commit."""
    batches: int = 10
    subscribers: int = 1
    away: bool = False
    """The subscriber was away, and the broker restarted since: it is served from the disk."""

    @property
    def messages(self) -> int:
        return self.batch * self.batches


class Unexpected(PubSubError):
    """The broker did something else than its work: there are no counts."""


class Loop(asyncio.SelectorEventLoop):
    """One that knows how its listeners make a protocol for a connection."""

    def __init__(self) -> None:
        super().__init__()
        self.protocols: list[NewProtocol] = []

    async def create_server(
        self, protocol_factory: Any, *args: Any, **kwargs: Any
    ) -> asyncio.Server:
        self.protocols.append(protocol_factory)
        return await super().create_server(protocol_factory, *args, **kwargs)


class Wire(asyncio.Transport):
    """Where a socket would be: counts what is written, and keeps it until it is taken."""

    def __init__(self) -> None:
        super().__init__({"socket": socket.socket(socket.AF_UNIX)})
        self.writes = 0
        self.bytes = 0
        self._chunks: list[bytes] = []
        self._waiting = 0
        self._wrote = asyncio.Event()

    async def take(self, count: int) -> bytes:
        """The next `count` bytes, which must be all that comes."""
        while self._waiting < count:
            self._wrote.clear()
            await self._wrote.wait()
        if self._waiting > count:
            raise Unexpected(f"{self._waiting} bytes came, not {count}")
        data = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting = 0
        return data

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.writes += 1
        self.bytes += len(data)
        self._chunks.append(bytes(data))  # No copy where it is bytes.
        self._waiting += len(data)
        self._wrote.set()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class Peer:
    """One connected MQTT 3.1.1 client. It acknowledges by stride, and has no code of the broker's:
    that would be counted."""

    def __init__(self, protocol: asyncio.Protocol) -> None:
        self.wire = Wire()
        self._connection = protocol
        protocol.connection_made(self.wire)

    def send(self, data: bytes | bytearray) -> None:
        self._connection.data_received(bytes(data))

    def leave(self) -> None:
        self.send(packet(0xE0, b""))
        self._connection.connection_lost(None)

    async def expect(self, wanted: bytes | bytearray) -> None:
        came = await self.wire.take(len(wanted))
        if came != wanted:
            raise Unexpected(f"{came[:16].hex()}... came, not {wanted[:16].hex()}...")

    async def connect(self, client_id: bytes, *, clean: bool, present: bool = False) -> None:
        body = text(b"MQTT") + bytes((4, 0x02 if clean else 0, 0, 0)) + text(client_id)
        self.send(packet(0x10, body))
        await self.expect(packet(0x20, bytes((present, 0))))

    async def subscribe(self, qos: int) -> None:
        self.send(packet(0x82, b"\0\1" + text(TOPIC) + bytes((qos,))))
        await self.expect(packet(0x90, bytes((0, 1, qos))))

    async def receive(self, qos: int, count: int) -> bytearray:
        """Take `count` messages; their Packet Identifiers as a run of PUBACK or PUBREC."""
        length = len(publish(qos, 1))
        data = await self.wire.take(count * length)
        if data[::length] != data[:1] * count:
            raise Unexpected("something else came than messages")
        acks = answers(PUBACK if qos == 1 else PUBREC, count)
        if qos:
            at = length - len(PAYLOAD) - 2
            acks[2::ACK_BYTES], acks[3::ACK_BYTES] = data[at::length], data[at + 1 :: length]
        return acks


def packet(header: int, body: bytes) -> bytes:
    length = len(body)
    encoded = (length,) if length < 128 else (length & 0x7F | 0x80, length >> 7)
    return bytes((header, *encoded)) + body


def text(encoded: bytes) -> bytes:
    return struct.pack(">H", len(encoded)) + encoded


def publish(qos: int, packet_id: int) -> bytes:
    identifier = struct.pack(">H", packet_id) if qos else b""
    return packet(0x30 | qos << 1, text(TOPIC) + identifier + PAYLOAD)


def answers(header: int, count: int) -> bytearray:
    """`count` acknowledgements with the Packet Identifiers 1, 2, 3 ..."""
    return bytearray().join([struct.pack(">BBH", header, 2, n + 1) for n in range(count)])


class Broker:
    """A running one."""

    def __init__(self, server: Server, clock: FakeClock, new_protocol: NewProtocol) -> None:
        self._server = server
        self._clock = clock
        self._new_protocol = new_protocol
        self._lasting = asyncio.all_tasks()

    def peer(self) -> Peer:
        return Peer(self._new_protocol())

    def let_pass(self, seconds: float) -> None:
        """Timers that are due by then fire."""
        self._clock.advance(seconds)

    @property
    def commits(self) -> int:
        return self._server.counters.commits

    async def committed(self, commits: int) -> None:
        """Return when there were so many. Nobody tells us, and it cannot be long."""
        while self.commits < commits:  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def settled(self) -> None:
        """Return when nothing is done any more that began since the start: what a SUBSCRIBE sets
        off (a look at the retained messages) goes on after the SUBACK, in the readers' threads."""
        while passing := asyncio.all_tasks() - self._lasting:
            await asyncio.wait(passing)


@asynccontextmanager
async def broker(directory: Path, store: Store | None = None) -> AsyncIterator[Broker]:
    """One on a `Loop`, with its data in `directory`, or on `store`."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    clock = FakeClock()
    server = Server(Config(port=0, data_dir=directory), clock=clock)
    # As on a quick disk, whatever this one is: what is done must not depend on the time.
    with (
        mock.patch.object(InLoop, "suits", _suits),
        mock.patch.object(stop_watch, "QUICK_S", HANG_S),
    ):
        if store is None:
            await server.start()
        else:
            with mock.patch("broker.server.open_store.SqliteStore", return_value=store):
                await server.start()
        try:
            yield Broker(server, clock, loop.protocols[-1])
        finally:
            stopping = asyncio.create_task(server.stop())
            while not stopping.done():
                clock.advance(CURSOR_COMMIT_DELAY_S)
                await asyncio.sleep(0.001)
            await stopping


def _suits(
    in_loop: InLoop, batch: Sequence[Message], state: Sequence[Operation], *, durable: bool
) -> bool:
    return is_small(batch, state)


class Exchange:
    """A publisher and its subscribers, batch after batch."""

    def __init__(self, broker: Broker, workload: Workload) -> None:
        self._broker = broker
        self._qos = workload.qos
        self._count = workload.batch
        self._packets = b"".join([publish(self._qos, n + 1) for n in range(self._count)])
        self.publisher = broker.peer()
        self.subscribers = [broker.peer() for _ in range(workload.subscribers)]

    async def connect(self) -> None:
        await self.publisher.connect(b"pub", clean=True)
        for number, subscriber in enumerate(self.subscribers):
            await subscriber.connect(b"sub%d" % number, clean=not self._qos)
            await subscriber.subscribe(self._qos)
        await self._broker.settled()

    def publish(self) -> None:
        self._commits = self._broker.commits
        self.publisher.send(self._packets)

    async def acknowledged(self) -> None:
        """All of a batch is stored."""
        if self._qos:
            header = PUBACK if self._qos == 1 else PUBREC
            await self.publisher.expect(answers(header, self._count))
        else:
            self._broker.let_pass(LAZY_COMMIT_S)
            await self._broker.committed(self._commits + 1)

    async def delivered(self) -> None:
        """All of a batch has arrived, and is acknowledged in its turn."""
        qos, count = self._qos, self._count
        acks = [await subscriber.receive(qos, count) for subscriber in self.subscribers]
        if qos == 2:
            self.publisher.send(answers(PUBREL, count))
        if qos:
            for subscriber, run in zip(self.subscribers, acks, strict=True):
                subscriber.send(run)
        if qos == 2:
            await self.publisher.expect(answers(PUBCOMP, count))
            for subscriber, run in zip(self.subscribers, acks, strict=True):
                run[0::ACK_BYTES] = bytes((PUBREL,)) * count
                await subscriber.expect(run)
                run[0::ACK_BYTES] = bytes((PUBCOMP,)) * count
                subscriber.send(run)

    async def batch(self) -> None:
        self.publish()
        await self.acknowledged()
        await self.delivered()

    @property
    def wires(self) -> list[Wire]:
        return [self.publisher.wire, *(subscriber.wire for subscriber in self.subscribers)]


def run(work: Coroutine[None, None, T]) -> T:
    """Run a coroutine on a `Loop`; not for ever."""

    async def guarded() -> T:
        task = asyncio.create_task(work)
        loop = asyncio.get_running_loop()
        timer = threading.Timer(HANG_S, lambda: loop.call_soon_threadsafe(task.cancel))
        timer.daemon = True
        timer.start()
        try:
            return await task
        except asyncio.CancelledError as error:
            raise Unexpected(f"something did not come in {HANG_S:.0f} s") from error
        finally:
            timer.cancel()

    with asyncio.Runner(loop_factory=Loop) as runner:
        return runner.run(guarded())
