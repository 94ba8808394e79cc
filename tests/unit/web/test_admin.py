"""Administration over the Unix socket, with a real HTTP client."""

from __future__ import annotations

import asyncio
import signal
import stat
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from broker.errors import ConfigError
from broker.net.unix import reachable
from broker.web.admin import AdminServer, create_app
from tests.support.requirements import allowed, installed


def admin(path: Path, request_stop: Callable[[], None] = lambda: None) -> AdminServer:
    return AdminServer(create_app(lambda: {"messages_in": 7}, request_stop), path)


def client(path: Path) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        transport=httpx.AsyncHTTPTransport(uds=str(path)), base_url="http://broker"
    )


def test_uvicorn_is_a_version_that_was_tried() -> None:
    """These tests passed with 0.30.0, 0.34.3, 0.40.0, 0.47.0 and 0.54.0."""
    assert allowed("uvicorn") == ">=0.30,<0.55"
    assert (0, 30) <= installed("uvicorn") <= (0, 54)


async def test_status_is_the_snapshot_as_json(tmp_path: Path) -> None:
    server = admin(tmp_path / "admin.sock")
    await server.start()
    async with client(tmp_path / "admin.sock") as http:
        answer = await http.get("/status")
    await server.stop()
    assert (answer.status_code, answer.json()) == (200, {"messages_in": 7})


async def test_stop_is_asked_for_by_post_only_and_answered_first(tmp_path: Path) -> None:
    requests: list[str] = []
    server = admin(tmp_path / "admin.sock", lambda: requests.append("stop"))
    await server.start()
    async with client(tmp_path / "admin.sock") as http:
        assert (await http.get("/stop")).status_code == 405
        assert requests == []
        assert (await http.post("/stop")).status_code == 202
    await server.stop()
    assert requests == ["stop"]


async def test_health_is_ok_while_it_runs_and_nothing_else_is_there(tmp_path: Path) -> None:
    server = admin(tmp_path / "admin.sock")
    await server.start()
    async with client(tmp_path / "admin.sock") as http:
        assert (await http.get("/healthz")).status_code == 200
        assert (await http.get("/")).status_code == 404
    await server.stop()


async def test_only_the_owner_may_open_the_socket_and_it_goes_with_the_server(
    tmp_path: Path,
) -> None:
    server = admin(tmp_path / "admin.sock")
    await server.start()
    assert stat.S_IMODE((tmp_path / "admin.sock").stat().st_mode) == 0o600
    await server.stop()
    assert not (tmp_path / "admin.sock").exists()


async def test_a_stop_waits_only_where_somebody_is_connected(tmp_path: Path) -> None:
    server = admin(tmp_path / "admin.sock")
    await server.start()
    stopping = asyncio.create_task(server.stop())
    for _ in range(5):
        await asyncio.sleep(0)
    assert stopping.done()
    assert not (tmp_path / "admin.sock").exists()


async def test_a_socket_that_a_killed_broker_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "admin.sock").write_text("left behind")
    server = admin(tmp_path / "admin.sock")
    await server.start()
    async with client(tmp_path / "admin.sock") as http:
        assert (await http.get("/healthz")).status_code == 200
    await server.stop()


async def test_signals_stay_with_whoever_had_them(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    server = admin(tmp_path / "admin.sock")
    await server.start()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    await server.stop()
    assert len(asyncio.all_tasks()) == 1


async def test_a_long_path_is_reached_from_a_directory_near_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    near = tmp_path / ("d" * 120)
    near.mkdir()
    with pytest.raises(ConfigError, match="too long for a Unix socket"):
        reachable(near / "admin.sock")
    monkeypatch.chdir(near)
    server = admin(near / "admin.sock")
    await server.start()
    assert (near / "admin.sock").is_socket()
    await server.stop()
