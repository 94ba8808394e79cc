"""Who administered what, over the real socket: told once it is answered."""

from __future__ import annotations

import logging
import os
import pwd
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.web.admin import AdminServer, create_app

ME = f"{pwd.getpwuid(os.getuid()).pw_name} (uid {os.getuid()})"


@asynccontextmanager
async def administered(path: Path) -> AsyncIterator[httpx.AsyncClient]:
    async def change(request: Request) -> JSONResponse:
        await request.body()
        if request.query_params.get("id") == "broken":
            raise RuntimeError("no way")
        return JSONResponse({}, status_code=404 if request.query_params["id"] == "none" else 200)

    paths = "/users/passwd", "/subscribers/seek", "/log/trim"
    routes = [Route(each, change, methods=["POST", "DELETE"]) for each in paths]
    server = AdminServer(create_app(dict, lambda: None, routes), path / "admin.sock")
    await server.start()
    transport = httpx.AsyncHTTPTransport(uds=str(path / "admin.sock"))
    try:
        async with httpx.AsyncClient(transport=transport, base_url="http://broker") as http:
            yield http
    finally:
        await server.stop()


@pytest.fixture(autouse=True)
def _all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def told(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [r.getMessage() for r in caplog.records if r.name == "broker.web.audit"]


async def test_what_changes_something_is_told_with_who_did_it_and_how_it_ended(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with administered(tmp_path) as http:
        await http.post("/users/passwd?id=ann&empty=")
        await http.post("/users/passwd?id=none")
        await http.delete("/users/passwd?id=a%0Ab")
        await http.post("/stop")
    assert told(caplog) == [
        f"{ME} administers: users passwd id=ann empty=: done",
        f"{ME} administers: users passwd id=none: refused (404)",
        f"{ME} administers: delete users passwd id=a\nb: done",
        f"{ME} administers: stop: done",
    ]


async def test_what_only_looks_is_not_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with administered(tmp_path) as http:
        await http.get("/status")
        await http.post("/subscribers/seek?id=ann&dry_run=true")
        await http.post("/log/trim?id=ann&dry_run=1")
    assert told(caplog) == []


@pytest.mark.parametrize(
    "asked",
    [
        "/users/passwd?id=ann&dry_run=true",
        "/users/passwd?id=ann&dry_run=1",
        "/subscribers/seek?id=ann&dry_run=1",
        "/log/trim?id=ann&dry_run=true",
        "/log/trim?id=ann&dry_run=1&dry_run=0",
    ],
)
async def test_what_is_done_all_the_same_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, asked: str
) -> None:
    """Whoever adds that it is only a look does not hide it by that."""
    async with administered(tmp_path) as http:
        await http.post(asked)
    assert len(told(caplog)) == 1


async def test_to_end_a_trim_is_never_a_look(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with administered(tmp_path) as http:
        await http.delete("/log/trim?id=ann&dry_run=1")
    assert told(caplog) == [f"{ME} administers: delete log trim id=ann dry_run=1: done"]


async def test_a_body_that_cannot_be_read_hides_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with administered(tmp_path) as http:
        for body in (b"[" * 60_000, b"\xff", b'{"name": '):
            await http.post("/users/passwd?id=ann", content=body)
    assert told(caplog) == [f"{ME} administers: users passwd id=ann: done"] * 3


async def test_a_body_is_never_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with administered(tmp_path) as http:
        await http.post("/users/passwd?id=ann", content=b"secret")
        await http.post("/users/passwd?id=broken", json={"password": "secret"})
    assert told(caplog)[1] == f"{ME} administers: users passwd id=broken: failed"
    assert "secret" not in caplog.text


async def test_of_a_body_only_what_names_the_object_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with administered(tmp_path) as http:
        asked = {"name": "ann", "password": "secret", "roles": ["a", "b"]}
        await http.post("/users/passwd?id=x", json=asked)
        await http.post("/users/passwd?id=y", json={"name": "x" * 70_000})
        await http.post("/users/passwd?id=z", json=["name"])
    prefix = f"{ME} administers: users passwd"
    assert told(caplog) == [
        f"{prefix} id=x name=ann roles=['a', 'b']: done",
        f"{prefix} id=y: done",
        f"{prefix} id=z: done",
    ]


async def test_a_uid_without_a_name_is_told_by_its_number(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(uid: int) -> None:
        raise KeyError(uid)

    monkeypatch.setattr("pwd.getpwuid", unknown)
    async with administered(tmp_path) as http:
        await http.post("/users/passwd?id=ann")
    assert told(caplog) == [f"uid {os.getuid()} administers: users passwd id=ann: done"]
