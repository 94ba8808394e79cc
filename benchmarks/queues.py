"""How fast a queue is: `python -m benchmarks.queues [--messages 20000] [--poison 1]`.

A group that `pubsub group create` made, a backlog of messages, and 1, 10 or 100 workers in this one
process, MQTT 5 with QoS 1. Each refuses `--poison` percent of the messages, always the same ones:
these are tried `--attempts` times, and end as dead letters. What is told is the rate of messages
that were done, from the first worker to the last message, and when the last dead letter was there.
"""

from __future__ import annotations

import argparse
import asyncio
import struct
import subprocess
import sys
import time

from benchmarks import brokers
from benchmarks.brokers import BrokerProcess
from cli.bench.packets import packet, text

WORKERS = (1, 10, 100)
GROUP = "$share/workers/jobs"
CONNECT, PUBLISH, PUBACK, SUBSCRIBE = 0x10, 0x32, 0x40, 0x82
REFUSED = 0x80
ATTEMPTS = 3
TIMEOUT_S = 120.0


class Queue:
    """What the workers of one run share."""

    def __init__(self, messages: int, poison_percent: float) -> None:
        self.messages = messages
        self.every = round(100 / poison_percent) if poison_percent else 0
        self.left = {n for n in range(messages) if not self.is_poison(n)}
        self.done = asyncio.Event()
        self.refusals_left = ATTEMPTS * (messages - len(self.left))
        self.given_up = asyncio.Event()
        if not self.refusals_left:
            self.given_up.set()

    def is_poison(self, number: int) -> bool:
        return bool(self.every) and number % self.every == 0

    def deal_with(self, number: int) -> int:
        """The Reason Code."""
        if self.is_poison(number):
            self.refusals_left -= 1
            if not self.refusals_left:
                self.given_up.set()
            return REFUSED
        self.left.discard(number)
        if not self.left:
            self.done.set()
        return 0


class Worker(asyncio.Protocol):
    def __init__(self, name: str, receive_maximum: int, queue: Queue) -> None:
        self._name = name
        self._receive_maximum = receive_maximum
        self._queue = queue
        self._buffer = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        properties = struct.pack(">BBH", 3, 0x21, self._receive_maximum)
        body = text("MQTT") + struct.pack(">BBH", 5, 2, 60) + properties + text(self._name)
        transport.write(packet(CONNECT, body))
        transport.write(packet(SUBSCRIBE, b"\0\1\0" + text(GROUP) + b"\1"))

    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        position, answers = 0, bytearray()
        while (end := _end(data, position)) is not None:
            if data[position] & 0xF0 == 0x30:
                answers += self._answer(data[position:end])
            position = end
        self._buffer = data[position:]
        if answers:
            self._transport.write(answers)

    def _answer(self, publish: bytes) -> bytes:
        at = 2 if publish[1] < 128 else 3
        at += 2 + int.from_bytes(publish[at : at + 2])
        packet_id = publish[at : at + 2]
        at += 3 + publish[at + 2]
        code = self._queue.deal_with(int(publish[at:]))
        return packet(PUBACK, packet_id + bytes([code]) if code else packet_id)


def _end(data: bytes, position: int) -> int | None:
    """Where the packet that begins there ends, if it is whole."""
    if position + 2 > len(data):
        return None
    length, at = data[position + 1], position + 2
    if length > 127:
        if at >= len(data):
            return None
        length, at = (length & 127) + (data[at] << 7), at + 1
    return at + length if at + length <= len(data) else None


async def measure(running: BrokerProcess, workers: int, queue: Queue, window: int) -> float:
    """Seconds until everything was done."""
    loop = asyncio.get_running_loop()
    host, port = running.address.host, running.address.port
    began = time.monotonic()
    transports = []
    for number in range(workers):
        transport, _ = await loop.create_connection(
            lambda number=number: Worker(f"worker{number}", window, queue),  # type: ignore[misc]
            host,
            port,
        )
        transports.append(transport)
    async with asyncio.timeout(TIMEOUT_S):
        await queue.done.wait()
        took_s = time.monotonic() - began
        await queue.given_up.wait()
    print(f"  the last refusal came {time.monotonic() - began - took_s:.1f} s after the last job")
    for transport in transports:
        transport.close()
    return took_s


def run(workers: int, messages: int, poison: float, window: int) -> None:
    with brokers.running("pubsub") as running:
        pubsub = [sys.executable, "-m", "cli.main"]
        where = ["--data-dir", str(running.database.parent)]
        made = ["group", "create", "workers", "--filter", "jobs", "--attempts", str(ATTEMPTS)]
        subprocess.run([*pubsub, *made, "--backoff", "100ms..1s", *where], check=True)
        payloads = "".join(f"{n}\n" for n in range(messages)).encode()
        publish = [*pubsub, "pub", "jobs", "-l", "--port", str(running.address.port)]
        subprocess.run(publish, input=payloads, check=True, capture_output=True)
        cpu_s = running.cpu_s()
        queue = Queue(messages, poison)
        took_s = asyncio.run(measure(running, workers, queue, window))
        cpu_us = (running.cpu_s() - cpu_s) / messages * 1e6
        rate = messages / took_s
        of = f"{workers:>4} workers, window {window:>4}, {poison:g} % poison"
        peak_mb = running.memory_peak_mb()
        print(f"{of}: {rate:,.0f} jobs/s, broker {cpu_us:.1f} us each, {peak_mb:.0f} MB at most")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--poison", type=float, nargs="*", default=[0, 1])
    parser.add_argument("--window", type=int, nargs="*", default=[100, 1])
    options = parser.parse_args()
    for window in options.window:
        for poison in options.poison:
            for workers in WORKERS:
                run(workers, options.messages, poison, window)


if __name__ == "__main__":
    main()
