"""The whole broker in this process, from start to stop."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from broker import __version__
from broker.config import ADMIN_SOCKET, DATABASE, LOCK, Config
from broker.documents import Operation, Place
from broker.errors import ConfigError, StoreUnavailable
from broker.message import Message
from broker.mqtt.encode import encode
from broker.mqtt.packets import MQTT_5, Connect, Publish, Subscribe, SubscriptionRequest, Will
from broker.server.open_store import Opened
from broker.server.server import Server
from broker.store.shared.cluster import ClusterStore
from broker.store.shared.memory_log import MemoryLog
from broker.store.sqlite.store import SqliteStore
from tests.support.clock import FakeClock
from tests.support.patience import PATIENCE_S
from tests.support.raw_client import connect_packet
from tests.support.shared import brokers
from tests.support.sqlite import ask

SHUTTING_DOWN = bytes.fromhex("E0 01 8B")


class BrokenStore(SqliteStore):
    error: Exception = StoreUnavailable("the disk is gone")

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        raise self.error


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(
        port=0, data_dir=tmp_path / "data", unix_socket=tmp_path / "mqtt.sock", connections_max=100
    )


@pytest.fixture
async def server(config: Config) -> AsyncIterator[Server]:
    server = Server(config)
    await server.start()
    yield server
    await server.stop()


async def connect(
    server: Server, packet: Connect | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Returns when it is accepted."""
    reader, writer = await asyncio.open_connection(*server.address)
    writer.write(encode(packet or connect_packet("client"), MQTT_5))
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readexactly(2))[0] == 0x20
        await reader.read(1000)
    return reader, writer


def is_locked(data_dir: Path) -> bool:
    with (data_dir / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


async def turns() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


# Start


async def test_the_data_directory_is_its_users_alone_and_says_who_has_it(
    server: Server, config: Config
) -> None:
    assert stat.S_IMODE(config.data_dir.stat().st_mode) == 0o700
    assert (config.data_dir / LOCK).read_text() == f"{os.getpid()}\n"
    assert is_locked(config.data_dir)
    assert (config.data_dir / DATABASE).exists()
    assert (config.data_dir / ADMIN_SOCKET).is_socket()


async def test_each_directory_that_it_makes_outlives_a_power_cut(
    config: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry of a directory is on the disk once the one that it is in was synced."""
    synced: list[Path] = []
    fsync = os.fsync

    def noted(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noted)
    server = Server(replace(config, data_dir=tmp_path / "a" / "b" / "data"))
    await server.start()
    await server.stop()
    assert {tmp_path, tmp_path / "a", tmp_path / "a" / "b"} <= set(synced)


async def test_a_second_broker_leaves_the_directory_to_the_first(
    server: Server, config: Config
) -> None:
    with pytest.raises(ConfigError) as raised:
        await Server(config).start()
    assert raised.value.key == "data_dir"
    assert f"is in use by another broker (pid {os.getpid()})" in raised.value.remedy
    _, writer = await connect(server)
    writer.close()


async def test_what_a_broker_that_died_wrote_into_the_lock_is_replaced(config: Config) -> None:
    config.data_dir.mkdir()
    (config.data_dir / LOCK).write_text("1234567890\n")
    server = Server(config)
    await server.start()
    await server.stop()
    assert (config.data_dir / LOCK).read_text() == f"{os.getpid()}\n"


async def test_a_directory_that_cannot_be_is_refused(config: Config) -> None:
    config.data_dir.write_text("a file")
    with pytest.raises(ConfigError) as raised:
        await Server(config).start()
    assert (raised.value.key, raised.value.value) == ("data_dir", str(config.data_dir))
    assert raised.value.remedy.startswith("cannot be written: ")


async def test_a_start_that_fails_leaves_nothing_behind(
    server: Server, config: Config, tmp_path: Path
) -> None:
    """Its port is taken, which it finds out last."""
    before = asyncio.all_tasks()
    other = replace(
        config,
        port=server.address[1],
        data_dir=tmp_path / "other",
        unix_socket=tmp_path / "other.sock",
    )
    with pytest.raises(ConfigError) as raised:
        await Server(other).start()
    assert raised.value.key == "port"
    assert other.unix_socket is not None
    assert not other.unix_socket.exists()
    assert not (other.data_dir / ADMIN_SOCKET).exists()
    assert not is_locked(other.data_dir)
    assert asyncio.all_tasks() == before
    again = Server(replace(other, port=0))
    await again.start()
    await again.stop()


async def test_messages_flow_and_the_broker_tells_about_itself(config: Config) -> None:
    server = Server(replace(config, sys_interval_s=0.01))
    await server.start()
    reader, writer = await connect(server)
    filters = [SubscriptionRequest("t", 1), SubscriptionRequest("$SYS/broker/messages/stored", 0)]
    writer.write(encode(Subscribe(1, filters), MQTT_5))
    writer.write(encode(Publish("t", b"payload", 1, False, False, 1), MQTT_5))
    received = b""
    async with asyncio.timeout(PATIENCE_S):
        while b"payload" not in received or b"$SYS/broker/messages/stored" not in received:
            received += await reader.read(1000)
    writer.close()
    await server.stop()


async def test_status_is_a_snapshot(server: Server, config: Config) -> None:
    reader, writer = await connect(server)
    writer.write(encode(Publish("t", b"", 1, False, False, 1), MQTT_5))
    async with asyncio.timeout(PATIENCE_S):
        assert (await reader.readexactly(2))[0] == 0x40
    status = server.status()
    writer.close()
    host, port = server.address
    expected = {
        "version": __version__,
        "pid": os.getpid(),
        "address": f"{host}:{port}",
        "listeners": [str(config.unix_socket), f"{host}:{port}"],
        "certificates": {},
        "data_dir": str(config.data_dir),
        "durability": "fsync",
        "high_watermark": 1,
        "waiting": {"messages": 0, "sessions": 0, "disk": None},
        "log_start": 1,
        "damaged_offsets": 0,
        "scrub": {"offset": 0, "rounds": 0},
        "connections": 1,
        "connections_max": 100,
        "sessions_connected": 1,
        "sessions_durable": 0,
        "groups": 0,
        "delayed_messages": 0,
        "delayed_bytes": 0,
        "dedup_keys": 0,
        "repeats": 0,
        "messages_in": 1,
        "messages_out": 0,
        "redeliveries": 0,
        "attempts_failed": 0,
        "dead_letters": 0,
        "commits": 1,
        "append_failures": 0,
        "protocol_errors": 0,
        "evicted": 0,
        "line_errors_left_out": 0,
        "gaps_left_out": 0,
        "removed_unread": 0,
        "refused_connects": 0,
        "logins_failed": 0,
        "logins_delayed": 0,
        "logins_refused": 0,
        "dropped": {},
    }
    assert {name: status[name] for name in expected} == expected
    rates = {"messages_in_per_s", "messages_out_per_s"}  # There once they were counted.
    more = status.keys() - expected.keys() - rates
    assert more == {"uptime_s", "sqlite_version", "retention", "disk"}


# Stop


async def test_what_was_received_is_acknowledged_before_it_stops(config: Config) -> None:
    """P1"""
    server = Server(config)
    await server.start()
    reader, writer = await connect(server)
    writer.write(encode(Publish("t", b"payload", 1, False, False, 1), MQTT_5))
    async with asyncio.timeout(PATIENCE_S):
        while not server.counters.messages_in:  # noqa: ASYNC110  (it has no event)
            await asyncio.sleep(0)
        await server.stop()
        said = await reader.read()
    writer.close()
    assert said[:1] == b"\x40"
    assert said.endswith(SHUTTING_DOWN)


async def test_it_waits_until_somebody_asks_it_to_stop(server: Server) -> None:
    waiting = asyncio.create_task(server.wait_stopped())
    await asyncio.sleep(0)
    assert not waiting.done()
    server.request_stop()
    async with asyncio.timeout(PATIENCE_S):
        await waiting


@pytest.mark.parametrize("jump_s", [-31 * 86_400, 0, 31 * 86_400])
async def test_a_restart_gives_clients_time_to_come_back_before_their_wills(
    config: Config, jump_s: int
) -> None:
    """[MQTT-3.1.2-8, MQTT3-3.1.2-8] It begins when clients can connect."""
    clock = FakeClock()
    server = Server(config, clock=clock)
    await server.start()
    clients = []
    for name in ("back", "away"):
        offline = Will(f"{name}/online", b"0", 1, True)
        clients.append(await connect(server, replace(connect_packet(name), will=offline)))
    await server.stop()
    clock.set_wall(1_000_000_000 + jump_s)
    server = Server(config, clock=clock)
    await server.start()
    clients.append(await connect(server, connect_packet("back")))
    clock.advance(config.will_restart_grace_s - 1)
    await turns()
    assert ask(config.data_dir / DATABASE, "SELECT topic FROM history") == []
    clock.advance(1)
    await turns()
    await server.stop()
    assert ask(config.data_dir / DATABASE, "SELECT topic FROM history") == [("away/online",)]
    for _, writer in clients:
        writer.close()


async def test_without_that_time_a_stop_publishes_the_wills_of_its_clients(config: Config) -> None:
    server = Server(replace(config, will_restart_grace_s=0))
    await server.start()
    clients = []
    for n in range(3):
        offline = Will(f"{n}/online", b"0", 1, True)
        clients.append(await connect(server, replace(connect_packet(f"c{n}"), will=offline)))
    await server.stop()
    topics = ask(config.data_dir / DATABASE, "SELECT topic FROM history ORDER BY topic")
    assert topics == [("0/online",), ("1/online",), ("2/online",)]
    assert ask(config.data_dir / DATABASE, "SELECT count(*) FROM will_deadlines") == [(0,)]
    for _, writer in clients:
        writer.close()


async def test_nothing_is_left_when_it_stopped(config: Config) -> None:
    before = asyncio.all_tasks()
    server = Server(config)
    await server.start()
    address = server.address
    _, writer = await connect(server)
    await server.stop()
    writer.close()
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(*address)
    assert config.unix_socket is not None
    assert not config.unix_socket.exists()
    assert not (config.data_dir / ADMIN_SOCKET).exists()
    assert not is_locked(config.data_dir)
    assert asyncio.all_tasks() == before


async def test_who_shares_its_log_takes_leave_when_nothing_of_it_runs_any_more(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else what it still stores, and hears that it may not, makes a failure of the stop."""
    log = MemoryLog()
    running: list[object] = []

    async def opened(config: Config, *args: object, **kwargs: object) -> Opened:
        copy = SqliteStore(config.data_dir / DATABASE, is_copy=True)
        shared = ClusterStore(log, copy)
        await shared.open()
        leave = shared.leave

        async def noted() -> None:
            running.extend(sharing._tasks)
            await leave()

        shared.leave = noted  # type: ignore[method-assign]
        return Opened(shared, copy, shared)

    monkeypatch.setattr("broker.server.server.open_store", opened)
    sharing = Server(config)
    await sharing.start()
    await sharing.stop()
    assert running == []
    assert [record for record in caplog.records if record.levelname == "CRITICAL"] == []
    (other,) = brokers(log, 1)
    await other.open()
    assert len(other.dead) == 1
    await other.close()


async def test_a_socket_that_somebody_removed_is_no_fault_when_it_stops(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    server = Server(config)
    await server.start()
    assert config.unix_socket is not None
    config.unix_socket.unlink()
    await server.stop()
    assert "stopping: 0 connections are closed" in caplog.messages


async def test_a_log_that_takes_nothing_holds_up_the_stop_for_so_long_only(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is no success to who started it."""
    server = Server(replace(config, drain_timeout_s=0.01))
    await server.start()
    monkeypatch.setattr("broker.log.log.Log.flushed", lambda log: asyncio.Event().wait())
    said = "in 0.01 s the log did not take 0 messages, and changes of 0 sessions"
    with pytest.raises(StoreUnavailable, match=said):
        async with asyncio.timeout(PATIENCE_S):
            await server.stop()
    assert not is_locked(config.data_dir)


@pytest.mark.parametrize("expected", [True, False])
async def test_a_log_that_failed_stops_the_broker_which_acknowledges_nothing_more(
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    expected: bool,
) -> None:
    """P6. Only what nobody thought of is shown with its traceback."""
    error = BrokenStore.error if expected else ZeroDivisionError("a mistake")
    monkeypatch.setattr(BrokenStore, "error", error)
    monkeypatch.setattr("broker.server.open_store.SqliteStore", BrokenStore)
    server = Server(config)
    await server.start()
    reader, writer = await connect(server)
    writer.write(encode(Publish("t", b"payload", 1, False, False, 1), MQTT_5))
    async with asyncio.timeout(PATIENCE_S):
        await server.wait_stopped()
        with pytest.raises(type(error), match=str(error)):
            await server.stop()
        assert await reader.read() == SHUTTING_DOWN
    writer.close()
    (record,) = [each for each in caplog.records if each.name == "broker.server.server"]
    assert record.getMessage() == f"the broker stops: {error}"
    assert (record.exc_info is None) == expected
    assert not is_locked(config.data_dir)


async def test_a_disk_that_does_not_answer_does_not_keep_the_broker(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Neither the log, nor the answers of administration, nor the store's threads."""

    async def hang(*args: object) -> None:
        await asyncio.Event().wait()

    server = Server(replace(config, drain_timeout_s=0.01))
    await server.start()
    for name in ("ADMIN_TIMEOUT_S", "CLOSE_TIMEOUT_S"):
        monkeypatch.setattr(f"broker.server.server.{name}", 0.01)
    with monkeypatch.context() as patch:
        patch.setattr("broker.log.log.Log.flushed", hang)
        patch.setattr("broker.web.admin.AdminServer.stop", hang)
        patch.setattr(SqliteStore, "close", hang)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StoreUnavailable, match=r"does not answer: the log was not closed"):
                await server.stop()
    assert not is_locked(config.data_dir)
    await server._admin.stop()
    await server._opened.store.close()


async def test_a_socket_that_cannot_be_removed_does_not_keep_the_broker(
    config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(path: Path, missing_ok: bool = False) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    server = Server(config)
    await server.start()
    _, writer = await connect(server)
    with monkeypatch.context() as patch:
        patch.setattr("broker.net.unix.Path.unlink", fail)
        with contextlib.suppress(StoreUnavailable):
            await server.stop()
    writer.close()
    assert not is_locked(config.data_dir)
    assert [message.split(" ", 1)[1] for message in caplog.messages if "stays" in message] == [
        "stays behind: Input/output error"
    ] * 2
