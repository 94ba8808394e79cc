"""TLS beside plain TCP: what messages, handshakes and idle connections cost the broker.

One broker listens with and without TLS, and both are measured in turn, so that whatever else the
machine does concerns both. CPU is of the broker's process. The certificate is what `pubsub cert
create` makes; `--rsa` takes RSA of 2048 bits, as many public CAs' certificates are.
"""

from __future__ import annotations

import argparse
import json
import socket
import ssl
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.brokers import ROOT, BrokerProcess, free_port, running, scratch
from cli.bench.packets import packet, text

ROUNDS = 5
SECONDS = 4.0
HANDSHAKES = 1000
IDLE = 1000
CONNECT = packet(0x10, text("MQTT") + bytes((4, 2, 0, 0)) + text(""))


@dataclass(frozen=True)
class Rate:
    """Of one run: messages published, acknowledged and delivered a second, and CPU of each."""

    per_s: float
    cpu_us: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rsa", action="store_true")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    with broker(rsa=options.rsa) as measured:
        for name, more in (
            ("window 1000, 128 B", ()),
            ("window 1000, 1 KiB", ("--size", "1024")),
            ("10 publishers, 10 subscribers", ("--publishers", "10", "--subscribers", "10")),
        ):
            print(compared(name, measured, options.rounds, more), flush=True)
        print(handshakes(measured), flush=True)
        print(idle(measured), flush=True)


@dataclass(frozen=True)
class TlsBroker:
    """It listens twice: with TLS, and on `port` without."""

    process: BrokerProcess
    port: int
    tls_port: int
    ca: Path

    @property
    def cpu_s(self) -> float:
        return self.process.cpu_s()

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)


@contextmanager
def broker(*, rsa: bool) -> Iterator[TlsBroker]:
    with scratch("tls") as directory:
        (make_rsa if rsa else make)(directory)
        tls_port = free_port()

        def command(port: int, data: Path) -> list[str]:
            settings = data / "pubsub.toml"
            settings.write_text(
                f"[[listeners]]\nport = {tls_port}\n"
                f'tls_certificate = "{data}/server.crt"\ntls_key = "{data}/server.key"\n'
                f"[[listeners]]\nport = {port}\n"
            )
            start = [sys.executable, "-m", "cli.main", "broker", "start"]
            return [*start, "--config", str(settings), "--data-dir", str(data / "data")]

        with running("pubsub", directory, command=command) as process:
            port = process.address.port
            yield TlsBroker(process, port, tls_port, directory / "ca.crt")


def make(directory: Path) -> None:
    create = [sys.executable, "-m", "cli.main", "cert", "create", "localhost", "127.0.0.1"]
    subprocess.run([*create, "--dir", str(directory)], check=True, capture_output=True, cwd=ROOT)


def make_rsa(directory: Path) -> None:
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=localhost"]
    command += ["-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1", "-days", "2"]
    command += ["-keyout", str(directory / "server.key"), "-out", str(directory / "server.crt")]
    subprocess.run(command, check=True, capture_output=True)
    (directory / "ca.crt").write_bytes((directory / "server.crt").read_bytes())


def compared(name: str, measured: TlsBroker, rounds: int, more: tuple[str, ...]) -> str:
    plain, secure = [], []
    for _ in range(rounds):
        plain.append(rate(measured, f"mqtt://127.0.0.1:{measured.port}", more))
        where = f"mqtts://127.0.0.1:{measured.tls_port}"
        secure.append(rate(measured, where, ("--cafile", str(measured.ca), *more)))
    faster = statistics.median(s.per_s / p.per_s for p, s in zip(plain, secure, strict=True))
    dearer = statistics.median(s.cpu_us / p.cpu_us for p, s in zip(plain, secure, strict=True))
    return (
        f"{name}: plain {_median(plain)}; TLS {_median(secure)};"
        f" rate {faster:.2f}x, CPU {dearer:.2f}x"
    )


def _median(rates: list[Rate]) -> str:
    per_s = statistics.median(each.per_s for each in rates)
    cpu_us = statistics.median(each.cpu_us for each in rates)
    return f"{per_s:,.0f}/s, {cpu_us:.1f} us"


def rate(measured: TlsBroker, url: str, more: tuple[str, ...]) -> Rate:
    command = [sys.executable, "-m", "cli.main", "bench", "-L", url, "--seconds", str(SECONDS)]
    before_s = measured.cpu_s
    done = subprocess.run([*command, "--json", *more], capture_output=True, cwd=ROOT, check=True)
    told = json.loads(done.stdout)
    return Rate(
        told["delivered_per_s"], (measured.cpu_s - before_s) * 1e6 / told["delivered_messages"]
    )


def handshakes(measured: TlsBroker) -> str:
    """One after the other: connect, shake hands, leave."""
    context = measured.context()
    before_s = measured.cpu_s
    for _ in range(HANDSHAKES):
        plain(measured.port).close()
    middle_s = measured.cpu_s
    for _ in range(HANDSHAKES):
        secure(measured.tls_port, context).close()
    each_s = (measured.cpu_s - middle_s) / HANDSHAKES
    without_s = (middle_s - before_s) / HANDSHAKES
    return (
        f"connection and CONNECT: {without_s * 1e6:.0f} us of CPU; with a handshake"
        f" {each_s * 1e6:.0f} us: {1 / each_s:,.0f} a second and core"
    )


def plain(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    return _connected(connection)


def secure(port: int, context: ssl.SSLContext) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    return _connected(context.wrap_socket(connection, server_hostname="localhost"))


def _connected(connection: socket.socket) -> socket.socket:
    connection.sendall(CONNECT)
    assert connection.recv(4)[:1] == b"\x20"
    return connection


def idle(measured: TlsBroker) -> str:
    """What it holds in memory for connections that say nothing."""
    context = measured.context()
    without = grown_kib(measured, lambda: plain(measured.port))
    with_tls = grown_kib(measured, lambda: secure(measured.tls_port, context))
    return f"idle connection: {without:.1f} KiB; with TLS {with_tls:.1f} KiB"


def grown_kib(measured: TlsBroker, connect: Callable[[], socket.socket]) -> float:
    """Of each; what only the first ones need does not count."""
    with ExitStack() as connections:
        for _ in range(IDLE // 10):
            connections.enter_context(connect())
        before_mb = measured.process.memory_mb()
        for _ in range(IDLE):
            connections.enter_context(connect())
        return (measured.process.memory_mb() - before_mb) * 1024 / IDLE


if __name__ == "__main__":
    main()
