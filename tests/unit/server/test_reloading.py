"""What is read again while the broker runs, what that changes, and that nothing wrong ever does."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import jwt
import pytest

from broker.config import Config
from broker.errors import ConfigError
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Disconnect, Publish
from broker.security.tokens import TokenRefused
from broker.server.reloading import LOOK_S, Source
from broker.server.server import Server
from broker.settings.dedup import DedupRule
from broker.settings.listeners import Listener
from broker.settings.retention import RetentionRule
from tests.support.broker_process import free_port
from tests.support.certificates import Files, Network
from tests.support.clock import FakeClock
from tests.support.raw_client import connect_packet


class Settings:
    """A file that somebody edits."""

    def __init__(self, config: Config) -> None:
        self.now = config
        self.level = ""
        self.error: ConfigError | None = None
        self.fault: Exception | None = None
        """What nobody thought of."""
        self.reads = 0

    def read(self) -> Config:
        self.reads += 1
        if self.fault is not None:
            raise self.fault
        if self.error is not None:
            raise self.error
        return self.now

    def edit(self, **changed: object) -> None:
        self.now = replace(self.now, **changed)  # type: ignore[arg-type]

    def tell_from(self, level: str) -> None:
        self.level = level


@asynccontextmanager
async def running(settings: Settings) -> AsyncIterator[Server]:
    server = Server(settings.now, source=Source(settings.read, settings.tell_from))
    async with asyncio.timeout(30):
        await server.start()
        try:
            yield server
        finally:
            await server.stop()


async def ended(server: Server) -> None:
    """What reloads were asked for."""
    name = "Reloading.try_reload"
    asked = [t for t in server._tasks if getattr(t.get_coro(), "__qualname__", "") == name]
    await asyncio.gather(*asked)
    await asyncio.sleep(0)


@pytest.fixture
def network(tmp_path: Path) -> Network:
    return Network(tmp_path)


@pytest.fixture
def settings(tmp_path: Path, network: Network) -> Settings:
    plain, tls = Listener(port=0), replace(network.listener(), host="localhost")
    return Settings(Config(data_dir=tmp_path / "data", listeners=(plain, tls)))


def tls_port(server: Server) -> int:
    _, listening = server._listening._open[1]
    port = listening.sockets[0].getsockname()[1]
    assert isinstance(port, int)
    return port


async def serial_of(server: Server, network: Network) -> object:
    """Of the certificate that a client gets now."""
    _, writer = await asyncio.open_connection(
        "localhost", tls_port(server), ssl=network.client_context()
    )
    certificate = writer.get_extra_info("peercert")
    writer.close()
    return certificate["serialNumber"]


async def test_where_the_log_is_does_not_change_at_once(settings: Settings) -> None:
    async with running(settings) as server:
        settings.edit(
            store="nats://host/name",
            store_replicas_min=1,
            store_keep_bytes=1 << 30,
            durability="os",
        )
        reloaded = await server.reloading.reload()
        assert reloaded.changed == []
        assert reloaded.restart == ["durability", "store", "store_replicas_min", "store_keep_bytes"]


async def test_what_can_change_at_once_does_and_the_rest_is_named(settings: Settings) -> None:
    async with running(settings) as server:
        settings.edit(keep_alive_max_s=30, packet_bytes_max=5000, append_bytes_max=77)
        settings.edit(log_level="debug", connections_max=10, unfinished_bytes_max=999)
        reloaded = await server.reloading.reload()
        assert set(reloaded.changed) == {
            *("keep_alive_max_s", "packet_bytes_max", "log_level", "connections_max"),
            "unfinished_bytes_max",
        }
        assert reloaded.restart == ["append_bytes_max"]
        assert settings.level == "debug"
        assert server._connections.unfinished.bytes_max == 999
        assert server.status()["connections_max"] == 10
        entrance, _ = server._listening._open[0]
        assert entrance.services.limits.packet_bytes_max == 5000
        assert entrance.services.config.keep_alive_max_s == 30
        assert server.config.append_bytes_max == Config().append_bytes_max
        again = await server.reloading.reload()
        assert (again.changed, again.restart) == ([], ["append_bytes_max"])


async def test_a_listeners_terms_change_and_its_place_does_not(settings: Settings) -> None:
    async with running(settings) as server:
        plain, tls = settings.now.listeners
        settings.edit(listeners=(replace(plain, protocols=("mqtt",)), tls))
        assert (await server.reloading.reload()).changed == ["listeners"]
        reader, writer = await asyncio.open_connection(*server.address)
        writer.write(b"CONFIRM\n")
        assert await reader.read() == b""
        writer.close()


async def test_listeners_come_and_go_and_nobody_is_lost(settings: Settings, tmp_path: Path) -> None:
    _, tls = settings.now.listeners
    one, more = Listener(port=free_port()), Listener(unix_socket=tmp_path / "more.sock")
    settings.edit(listeners=(one, tls))
    async with running(settings) as server:
        reader, writer = await asyncio.open_connection(*server.address)
        settings.edit(listeners=(more, tls))
        assert (await server.reloading.reload()).changed == ["listeners"]
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", one.port)
        _, other = await asyncio.open_unix_connection(more.unix_socket)
        other.close()
        writer.write(b"CONFIRM\n")
        assert await reader.readline() == b"OK\n"
        writer.close()
        elsewhere = replace(one, host="0.0.0.0", allow_anonymous=True)
        settings.edit(listeners=(one, tls))
        await server.reloading.reload()
        assert not (tmp_path / "more.sock").exists()
        settings.edit(listeners=(elsewhere, tls))
        await server.reloading.reload()
        assert server._listening.address[0] in ("0.0.0.0", "127.0.0.1")
        _, other = await asyncio.open_connection("127.0.0.1", one.port)
        other.close()


async def test_if_one_cannot_listen_all_stay_where_they_are(settings: Settings) -> None:
    _, tls = settings.now.listeners
    one = Listener(port=free_port())
    settings.edit(listeners=(one, tls))
    async with running(settings) as server:
        with socket.create_server(("127.0.0.2", one.port or 0)):
            moved = replace(one, host="127.0.0.2"), tls, Listener(port=free_port())
            settings.edit(listeners=moved, keep_alive_max_s=30)
            with pytest.raises(ConfigError, match="is in use"):
                await server.reloading.reload()
            assert server.config.keep_alive_max_s == 0
            _, writer = await asyncio.open_connection("127.0.0.1", one.port)
            writer.close()
        await server.reloading.reload()
        _, writer = await asyncio.open_connection("127.0.0.2", one.port)
        writer.close()


async def test_without_users_nobody_is_let_in_from_elsewhere(settings: Settings) -> None:
    plain, tls = settings.now.listeners
    async with running(settings) as server:
        settings.edit(listeners=(replace(plain, host="0.0.0.0"), tls))
        with pytest.raises(ConfigError, match="others could connect without a password"):
            await server.reloading.reload()
        settings.edit(listeners=(replace(plain, host="nohost.invalid"), tls))
        with pytest.raises(
            ConfigError, match=r"listeners\.host = .nohost.invalid.: does not resolve"
        ):
            await server.reloading.reload()
        assert server.address[0] == "127.0.0.1"


async def test_retention_dedup_and_the_disks_rest_change_at_once(settings: Settings) -> None:
    async with running(settings) as server:
        settings.edit(
            retention=(RetentionRule("a", count=2),),
            disk_free_min=5,
            dedup=(DedupRule(filter="orders/#", window="10m"),),
            dead_letter_age_s=9,
        )
        assert server._services.asking._window_s("orders/1") == 0
        reloaded = await server.reloading.reload()
        assert reloaded.restart == []
        assert "a" in server._care.retaining.status()["rules"]  # type: ignore[operator]
        assert server._services.asking._window_s("orders/1") == 600
        assert server._care._space.most == 5


async def test_what_nobody_thought_of_ends_no_broker(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(settings) as server:
        settings.fault = ValueError("embedded null byte")
        with pytest.raises(ConfigError, match="embedded null byte"):
            await server.reloading.reload()
        server.reload()
        await ended(server)
        assert caplog.text.count("what was in force stays in force") == 2
        assert not server._stop_requested.is_set()


async def test_many_hang_ups_are_one_or_two(settings: Settings) -> None:
    async with running(settings) as server:
        reads, before = settings.reads, len(server._tasks)
        for _ in range(100):
            server.reload()
        await ended(server)
        assert len(server._tasks) == before
        assert 1 <= settings.reads - reads <= 2


async def test_a_new_certificate_is_shown_to_who_comes_and_nobody_is_lost(
    settings: Settings, network: Network
) -> None:
    async with running(settings) as server:
        reader, writer = await asyncio.open_connection(
            "localhost", tls_port(server), ssl=network.client_context()
        )
        writer.write(encode(connect_packet("a"), MQTT_5))
        assert (await reader.readexactly(2))[0] == 0x20
        await reader.read(1000)
        before = await serial_of(server, network)
        network.renewed()
        await server.reloading.reload()
        assert await serial_of(server, network) != before
        writer.write(encode(Publish("t", b"", 1, False, False, 1), MQTT_5))
        assert (await reader.readexactly(1)) == b"\x40"
        writer.write(encode(Disconnect(), MQTT_5))
        writer.close()


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda network: network.server.certificate.unlink(), "No such file"),
        (lambda network: network.server.key.write_bytes(b"junk"), "is it PEM"),
        (
            lambda network: network.server.key.write_bytes(network.client("x").key.read_bytes()),
            "is not the key of",
        ),
    ],
)
async def test_if_anything_is_wrong_all_stays_as_it_was(
    settings: Settings,
    network: Network,
    damage: Callable[[Network], object],
    why: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(settings) as server:
        before = await serial_of(server, network)
        damage(network)
        settings.edit(keep_alive_max_s=30)
        with pytest.raises(ConfigError, match=why):
            await server.reloading.reload()
        assert server.config.keep_alive_max_s == 0
        assert await serial_of(server, network) == before
        network.renewed()
        settings.error = ConfigError("port", 1, "is odd")
        await server.reloading.try_reload()
        assert await serial_of(server, network) == before
        assert caplog.messages[-1] == "what was in force stays in force: port = 1: is odd"
        settings.error = None
        assert (await server.reloading.reload()).changed == ["keep_alive_max_s"]
        assert await serial_of(server, network) != before


async def test_what_else_is_read_again_can_refuse_too(settings: Settings) -> None:
    async def refuse(config: Config) -> Callable[[], None]:
        raise ConfigError("jwks", "file", "is none")

    async with running(settings) as server:
        settings.edit(keep_alive_max_s=30)
        server.reloading.also.append(refuse)
        with pytest.raises(ConfigError, match="is none"):
            await server.reloading.reload()
        assert server.config.keep_alive_max_s == 0


async def test_an_expired_certificate_is_told(
    settings: Settings, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    """It counts nevertheless: the clock of this machine may be wrong, and not all clients care."""
    async with running(settings) as server:
        network.renewed(-1)
        (doubt,) = (await server.reloading.reload()).doubts
        assert doubt == f"{network.server.certificate}: certificate has expired"
        assert f"careful clients will not connect: {doubt}" in caplog.messages
        file = str(network.server.certificate)
        assert server.status()["certificates"] == {file: "certificate has expired"}
        with pytest.raises(ssl.SSLCertVerificationError):
            await serial_of(server, network)


async def test_a_certificate_that_was_replaced_is_read_when_its_file_has_come_to_rest(
    settings: Settings, network: Network, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock = WatchersClock()
    async with running(settings) as server:
        watching = asyncio.create_task(server.reloading.watch_forever(clock))
        await clock.asleep.wait()
        before = await serial_of(server, network)
        key = network.server.key.read_bytes()
        for _ in range(3):
            await clock.looked()
        network.renewed()
        new_key = network.server.key.read_bytes()
        network.server.key.write_bytes(key)  # Whoever renews it has not written the key yet.
        await clock.looked()
        network.server.key.write_bytes(new_key)
        await clock.looked()
        assert await serial_of(server, network) == before
        await clock.looked()
        assert await serial_of(server, network) != before
        network.server.certificate.write_bytes(b"junk")
        for _ in range(5):
            await clock.looked()
        told = [text for text in caplog.messages if "certificates or keys have changed" in text]
        assert told[0] == "certificates or keys have changed and are read again"
        assert "the old stay in force" in told[1]
        assert len(told) == 2
        watching.cancel()


async def test_keys_of_tokens_that_were_replaced_are_read_too(
    settings: Settings, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    clock, path = WatchersClock(), tmp_path / "keys.json"

    def write(secret: bytes) -> None:
        k = base64.urlsafe_b64encode(secret).decode()
        path.write_text(json.dumps({"keys": [{"kty": "oct", "alg": "HS256", "k": k}]}))

    def opens(secret: bytes) -> bool:
        token = jwt.encode({"sub": "zoe", "exp": 1 << 40}, secret, "HS256").encode()
        tokens = server._services.logins._tokens
        assert tokens is not None
        try:
            return tokens.login(token, 0).user == "zoe"
        except TokenRefused:
            return False

    old, new = b"o" * 32, b"n" * 40
    write(old)
    settings.edit(jwt_keys=path)
    async with running(settings) as server:
        watching = asyncio.create_task(server.reloading.watch_forever(clock))
        await clock.asleep.wait()
        assert opens(old)
        write(new)
        for _ in range(2):
            await clock.looked()
        assert (opens(old), opens(new)) == (False, True)
        path.write_text("{")
        for _ in range(3):
            await clock.looked()
        assert opens(new), "what is broken changes nothing"
        assert "the old stay in force" in caplog.messages[-1]
        watching.cancel()


class WatchersClock(FakeClock):
    """Nobody but the watcher of files sleeps by it."""

    def __init__(self) -> None:
        super().__init__()
        self.asleep = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        self.asleep.set()
        await super().sleep(seconds)

    async def looked(self) -> None:
        """The files have been looked at, and what that led to is done."""
        self.asleep.clear()
        self.advance(LOOK_S)
        await self.asleep.wait()


async def test_a_reload_while_the_broker_stops_listens_nowhere(settings: Settings) -> None:
    async with running(settings) as server:
        _, port = server.address
        server.reload()
        await asyncio.sleep(0)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection("127.0.0.1", port)
    assert server._listening._open == []


async def test_whose_certificate_is_revoked_must_go_and_nobody_else(
    tmp_path: Path, network: Network
) -> None:
    lost, kept = network.client("lost"), network.client("kept")
    crl = network.revocations()
    asks = network.listener(
        tls_client_ca=network.ca, tls_client_certificates="optional", tls_crl=crl
    )
    asks = replace(asks, host="localhost")
    lax = replace(asks, tls_crl=None, connections_max=99)
    settings = Settings(
        Config(
            data_dir=tmp_path / "data",
            listeners=(Listener(port=0), asks, replace(lax, host="127.0.0.1")),
        )
    )

    async def came(client_id: str, shown: Files | None, *, where: int = 1) -> asyncio.StreamReader:
        host, port = server._listening._open[where][1].sockets[0].getsockname()[:2]
        reader, writer = await asyncio.open_connection(
            host, port, ssl=network.client_context(shown), server_hostname="localhost"
        )
        if client_id:
            writer.write(encode(connect_packet(client_id), MQTT_5))
            assert (await reader.readexactly(1)) == b"\x20"
            await reader.read(1000)
        writers.append(writer)
        return reader

    writers: list[asyncio.StreamWriter] = []
    async with running(settings) as server:
        goes, says_nothing = await came("a", lost), await came("", lost)
        stays, shows_none = await came("b", kept), await came("c", None)
        elsewhere = await came("d", lost, where=2)
        await server.reloading.reload()
        network.revocations(lost)
        await server.reloading.reload()
        assert (await goes.read())[:3:2] == b"\xe0\x87"
        assert await says_nothing.read() == b""
        for reader, writer in zip((stays, shows_none, elsewhere), writers[2:], strict=True):
            writer.write(b"\xc0\0")
            assert await reader.readexactly(2) == b"\xd0\0"
        for writer in writers:
            writer.close()
