"""Logins: a thousand clients that come back at once, and wrong logins beside a bystander.

    python -m benchmarks.logins [--clients 1000] [--wrong 100000] [--addresses 100] [--seconds 240]

Cold: nobody was there since the broker's start, so each login costs an argon2id. Warm: all were
there before. The wrong logins come from so many addresses of this machine in turn, 1000 at a time,
and stop after `--seconds`; the bystander sends itself a message each 20 ms all along. With few
addresses most of them are refused unread, as others from there wait already; with `--addresses
100000` none has to wait for its address, and each takes its turn to be hashed.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from statistics import quantiles

from broker.mqtt.encode import encode
from broker.mqtt.packets import (
    MQTT_5,
    Connect,
    Publish,
    Subscribe,
    SubscriptionRequest,
)
from broker.security.passwords import hashed

AT_ONCE = 1000
PAUSE_S = 0.02
TIMEOUT_S = 300.0
LIMIT = 1 << 20


def connect(client_id: str, user: str, password: bytes) -> bytes:
    packet = Connect(MQTT_5, client_id, True, 0, username=user, password=password)
    return encode(packet, MQTT_5)


async def login(
    port: int, packet: bytes, host: str = "127.0.0.1"
) -> tuple[int, asyncio.StreamReader, asyncio.StreamWriter]:
    """The Reason Code, and the connection."""
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", port, limit=LIMIT, local_addr=(host, 0)
    )
    writer.write(packet)
    head = await asyncio.wait_for(reader.readexactly(4), TIMEOUT_S)
    return head[3], reader, writer


async def wave(port: int, clients: int, what: str) -> None:
    began = time.perf_counter()
    packets = [connect(f"c{n}", f"u{n}", b"secret") for n in range(clients)]
    entered = await asyncio.gather(*[login(port, packet) for packet in packets])
    took_s = time.perf_counter() - began
    codes = Counter(code for code, *_ in entered)
    print(f"{what}: {clients} clients are in after {took_s:.2f} s, Reason Codes {dict(codes)}")
    for _, _, writer in entered:
        writer.close()
    await asyncio.sleep(1)


async def bystander(port: int, latencies_ms: list[float]) -> None:
    """Until cancelled."""
    _, reader, writer = await login(port, connect("bystander", "u0", b"secret"))
    request = Subscribe(1, [SubscriptionRequest("bystander", 0)])
    writer.write(encode(request, MQTT_5))
    await reader.read(LIMIT)
    while True:
        began = time.perf_counter()
        writer.write(encode(Publish("bystander", b"x", 0, False, False, 0), MQTT_5))
        await reader.read(LIMIT)
        latencies_ms.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(PAUSE_S)


async def wrong(
    port: int, numbers: Iterator[int], most: int, addresses: int, codes: Counter[str]
) -> None:
    while (number := next(numbers)) < most:
        address = number % addresses
        host = f"127.{1 + address // 62_500}.{address // 250 % 250}.{1 + address % 250}"
        try:
            packet = connect(f"w{number}", f"u{number % 1000}", b"wrong")
            code, _, writer = await login(port, packet, host)
        except (OSError, asyncio.IncompleteReadError) as error:
            codes[type(error).__name__] += 1
        else:
            codes[f"0x{code:02X}"] += 1
            writer.close()


def told(latencies_ms: list[float]) -> str:
    cuts = quantiles(latencies_ms, n=1000)
    return (
        f"{len(latencies_ms)} messages, p50 {cuts[499]:.1f} ms, p99 {cuts[989]:.1f} ms,"
        f" most {max(latencies_ms):.1f} ms"
    )


async def attack(port: int, most: int, addresses: int, seconds: float) -> None:
    quiet_ms: list[float] = []
    busy_ms: list[float] = []
    alone = asyncio.create_task(bystander(port, quiet_ms))
    await asyncio.sleep(5)
    alone.cancel()
    beside = asyncio.create_task(bystander(port, busy_ms))
    numbers, codes = count(), Counter[str]()
    began = time.perf_counter()
    attackers = [
        asyncio.create_task(wrong(port, numbers, most, addresses, codes)) for _ in range(AT_ONCE)
    ]
    await asyncio.wait(attackers, timeout=seconds)
    took_s = time.perf_counter() - began
    for task in (beside, *attackers):
        task.cancel()
    await asyncio.gather(beside, *attackers, return_exceptions=True)
    print(f"{codes.total()} wrong logins in {took_s:.0f} s: {dict(codes)}")
    print(f"bystander alone: {told(quiet_ms)}")
    print(f"bystander beside them: {told(busy_ms)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--wrong", type=int, default=100_000)
    parser.add_argument("--addresses", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=240)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        data_dir, passwords = Path(directory) / "data", Path(directory) / "passwords"
        kept = hashed(b"secret")
        passwords.write_text("".join(f"u{n}:{kept}\n" for n in range(options.clients)))
        pubsub = [sys.executable, "-m", "cli.main"]
        where = ["--data-dir", str(data_dir)]
        subprocess.run([*pubsub, "user", "import", str(passwords), *where], check=True)
        port = 19_321
        start = [*pubsub, "broker", "start", "--port", str(port), "--log-level", "error", *where]
        broker = subprocess.Popen(start)
        try:
            time.sleep(5)
            asyncio.run(wave(port, options.clients, "cold"))
            asyncio.run(wave(port, options.clients, "warm"))
            if options.wrong:
                asyncio.run(attack(port, options.wrong, options.addresses, options.seconds))
        finally:
            broker.terminate()
            broker.wait()


if __name__ == "__main__":
    main()
