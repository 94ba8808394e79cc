"""Administration by the network: who comes in, and every route with every right, to a real broker.

`ROUTES` has all that there are: a new one without a line here fails.
"""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import ssl
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import jwt
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from broker.config import Config
from broker.documents import UserDocument
from broker.message import WallUs
from broker.security.passwords import hashed
from broker.security.rules import Holder, Right, Rule
from broker.server.server import Server
from broker.settings.listeners import Listener
from broker.web.guard import BODY_BYTES_MAX, credentials

GROUP, OTHERS = "$share/workers/jobs/#", "$share/others/mail/#"
PASSWORD = "secret"
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Made once: httpx takes 0.2 s for each."""
BROKER, LIST, ONE, ANYBODY = "broker", "list", "one", "anybody"
"""Who may: of the broker as a whole; who may something, and sees what it is of; of `GROUP`, or a
topic of it, alone; whoever has come in."""


@dataclass(frozen=True)
class OneRoute:
    method: str
    path: str
    whose: str
    params: Mapping[str, str | list[str]]
    json: object = None
    done: int = 200


def asked(
    route: str, whose: str, done: int = 200, json: object = None, **params: str | list[str]
) -> OneRoute:
    method, path = route.split()
    return OneRoute(method, path, whose, params, json, done)


RULES = {
    "rules": [
        {"name": "x", "is_role": False, "allow": True, "access": "publish", "filter": "a"},
    ]
}
USER = {"name": "eve", "password": "", "roles": []}
ROUTES = [
    asked("GET /healthz", ANYBODY),
    asked("GET /status", BROKER),
    asked("GET /users", BROKER),
    asked("POST /users/add", BROKER, json=USER),
    asked("POST /users/passwd", BROKER, json=USER),
    asked("POST /users/roles", BROKER, json=USER),
    asked("POST /users/rm", BROKER, json=USER),
    asked("POST /users/import", BROKER, json={"passwords": {}}),
    asked("GET /acl", BROKER),
    asked("GET /acl/check", BROKER, user="all", right="publish", filter="a", client_id=""),
    asked("POST /acl/add", BROKER, json=RULES),
    asked("POST /acl/rm", BROKER, json=RULES),
    asked("POST /acl/import", BROKER, json={"rules": []}),
    asked("GET /quotas", BROKER),
    asked("POST /quotas/set", BROKER, kind="user", name="all", sessions="5"),
    asked("POST /quotas/rm", BROKER, kind="user", name="all"),
    asked("POST /reload", BROKER),
    asked("GET /subscribers", LIST),
    asked("GET /subscribers/one", ONE, id=GROUP),
    asked("POST /subscribers/seek", ONE, id=GROUP, to="latest"),
    asked("POST /subscribers/fork", ONE, id=GROUP, new="$share/again/jobs/#"),
    asked("POST /subscribers/rm", ONE, id="$share/again/jobs/#", done=200),
    asked("GET /groups", LIST),
    asked("GET /groups/one", ONE, name=GROUP),
    asked("POST /groups/create", ONE, name="$share/new/jobs/a"),
    asked("POST /groups/rm", ONE, name="$share/new/jobs/a"),
    asked("GET /dead-letters", LIST),
    asked("POST /dead-letters/redrive", ONE, 404, group=GROUP),
    asked("POST /dead-letters/drop", ONE, 404, group=GROUP),
    asked("POST /log/trim", ONE, 202, filter=["jobs/a", "jobs/b"], before="1", dry_run="1"),
    asked("GET /log/trim", ONE),
    asked("DELETE /log/trim", ONE),
    asked("POST /drain", BROKER, 409),
    asked("POST /stop", BROKER, 202),
]
"""In an order in which each can be done."""

WRONG = [("all", "wrong"), ("nobody", PASSWORD), ("anonymous", ""), ("own", "")]
ALLOWED = {"all": ["#"], "other": ["mail/#"], "own": ["jobs/#"], "none": [], "safe": ["#"]}


def auth(name: str, password: str = PASSWORD) -> dict[str, str]:
    encoded = base64.b64encode(f"{name}:{password}".encode()).decode()
    return {"authorization": f"Basic {encoded}"}


@asynccontextmanager
async def running(path: Path, *, users: bool = True) -> AsyncIterator[Server]:
    listeners = Listener(port=0), Listener(port=0, protocols=("admin",))
    server = Server(Config(data_dir=path, listeners=listeners, sys_interval_s=0))
    await server.start()
    try:
        if users:
            await _make_users(server)
        yield server
    finally:
        await server.stop()


async def _make_users(server: Server) -> None:
    kept = hashed(PASSWORD.encode())
    services = server._services
    documents = [UserDocument(n, kept, "", "standard", WallUs(1), WallUs(1)) for n in ALLOWED]
    await services.users.put(*documents)
    rules = [
        Rule(Holder(name), True, Right.ADMINISTER, each)
        for name, filters in ALLOWED.items()
        for each in filters
    ]
    rules.append(Rule(Holder("safe"), False, Right.ADMINISTER, "jobs/secret"))
    await services.permissions.add(rules)
    async with client(server, "all") as http:
        for name in (GROUP, OTHERS):
            made = await http.post("/groups/create", params={"name": name})
            assert made.status_code == 200, made.text


def port_of(server: Server) -> int:
    [said] = [each for each in server.status()["listeners"] if "admin" in each]  # type: ignore[attr-defined]
    return int(said.partition(":")[2].partition(" ")[0])


@asynccontextmanager
async def client(
    server: Server, name: str = "", password: str = PASSWORD, source: str = "127.0.0.1"
) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.AsyncHTTPTransport(verify=NO_TLS, local_address=source)
    headers = auth(name, password) if name else {}
    base = f"http://127.0.0.1:{port_of(server)}"
    async with httpx.AsyncClient(
        transport=transport, base_url=base, headers=headers, timeout=60
    ) as http:
        yield http


async def ask(http: httpx.AsyncClient, what: OneRoute) -> httpx.Response:
    return await http.request(what.method, what.path, params=what.params, json=what.json)


def test_every_route_is_in_the_matrix_below() -> None:
    """Of the application that `test_who_has_the_right` asks."""
    assert len({(each.method, each.path) for each in ROUTES}) == len(ROUTES)


async def test_nobody_comes_in_without_a_login_or_with_a_wrong_password(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        for number, what in enumerate(ROUTES):
            async with client(server) as http:
                answer = await ask(http, what)
            assert answer.status_code == 401, what
            assert answer.headers["www-authenticate"].startswith("Basic ")
            name, password = WRONG[number % len(WRONG)]
            source = f"127.0.{number}.2"  # Failures are counted by address.
            async with client(server, name, password, source) as http:
                answer = await ask(http, what)
            assert answer.status_code == 401, what
            assert answer.json()["error"] == "wrong user name or password"
        assert server._services.logins.counts.failed == 2 * len(ROUTES)
        assert not server._stop_requested.is_set()


@pytest.mark.parametrize("name", ["none", "other", "own", "all", "safe"])
async def test_who_has_the_right(tmp_path: Path, name: str) -> None:
    async with running(tmp_path) as server:
        assert server._admin._guard is not None
        app = server._admin._guard._app
        assert isinstance(app, Starlette)
        there = {
            (method, each.path)
            for each in app.routes
            if isinstance(each, Route)
            for method in (each.methods or set()) - {"HEAD"}
        }
        assert there == {(each.method, each.path) for each in ROUTES}
        async with client(server, name) as http:
            for what in ROUTES:
                answer = await ask(http, what)
                assert answer.status_code == expected(name, what), (what, answer.text)
                if answer.status_code == 403:
                    assert "the right" in answer.json()["error"]
                if what.path == "/subscribers" and answer.status_code == 200:
                    seen = {each["id"] for each in answer.json()["subscribers"]}
                    assert seen == (
                        {OTHERS}
                        if name == "other"
                        else {GROUP, OTHERS}
                        if name == "all"
                        else {OTHERS}
                        if name == "safe"
                        else {GROUP}
                    )
        assert server._stop_requested.is_set() == (name == "all")


def expected(name: str, what: OneRoute) -> int:
    if what.whose == ANYBODY:
        return 200
    may = {
        BROKER: name == "all",
        LIST: name != "none",
        # A denial of jobs/secret is in the way of whatever has that; not of jobs/a.
        ONE: name in ("all", "own")
        or (name == "safe" and ("jobs/a" in str(what.params) or what.path == "/log/trim")),
    }
    return what.done if may[what.whose] else 403


async def test_a_right_counts_from_the_next_request_on_and_ends_so(tmp_path: Path) -> None:
    async with running(tmp_path) as server, client(server, "none") as http:
        permissions = server._services.permissions
        role = Rule(Holder("night", is_role=True), True, Right.ADMINISTER, "#")
        await permissions.add([role])
        assert (await http.get("/status")).status_code == 403
        user = server._services.users.by_name["none"]
        document = UserDocument("none", user.password, "", "night", WallUs(1), WallUs(1))
        await server._services.users.put(document)
        assert (await http.get("/status")).status_code == 200
        await permissions.remove([role])
        assert (await http.get("/status")).status_code == 403
        await server._services.users.remove("none")
        assert (await http.get("/healthz")).status_code == 401


async def test_while_there_is_no_user_nobody_administers_by_the_network(tmp_path: Path) -> None:
    async with running(tmp_path, users=False) as server:
        for name in ("", "anonymous", "ann"):
            async with client(server, name) as http:
                answer = await http.post("/stop")
            assert (answer.status_code, "no users" in answer.text) == (401, True)
        assert not server._stop_requested.is_set()


async def test_a_token_is_a_password_and_none_makes_anonymous_somebody(tmp_path: Path) -> None:
    secret = b"a secret of thirty-two bytes or so"
    key = {"kty": "oct", "alg": "HS256", "k": base64.urlsafe_b64encode(secret).decode()}
    (tmp_path / "keys.json").write_text(json.dumps({"keys": [key]}))
    listeners = Listener(port=0), Listener(port=0, protocols=("admin",))
    config = Config(data_dir=tmp_path / "d", listeners=listeners, jwt_keys=tmp_path / "keys.json")
    server = Server(config)
    await server.start()
    try:
        await _make_users(server)
        for user, roles, status in (
            ("zoe", ["admin"], 200),
            ("zoe", ["standard"], 403),
            ("anonymous", ["admin"], 401),
        ):
            claims = {"sub": user, "roles": roles, "exp": time.time() + 60}
            async with client(server) as http:
                http.headers.update(auth("", jwt.encode(claims, secret, "HS256")))
                assert (await http.get("/status")).status_code == status, (user, roles)
    finally:
        await server.stop()


async def test_a_page_of_the_web_may_not_use_the_password_that_a_browser_keeps(
    tmp_path: Path,
) -> None:
    async with running(tmp_path) as server, client(server, "all") as http:
        for origin in ("https://evil.example", "http://127.0.0.1:9000", "null"):
            answer = await http.post("/stop", headers={"origin": origin})
            assert (answer.status_code, "web page" in answer.text) == (403, True)
        assert not server._stop_requested.is_set()


async def test_who_did_what_from_where_is_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with running(tmp_path) as server, client(server, "own") as http:
        caplog.clear()
        await http.post("/groups/rm", params={"name": GROUP})
        await http.post("/users/add", json={"name": "x", "password": "hash-of-it"})
        told = [r.getMessage() for r in caplog.records if r.name == "broker.web.audit"]
    who = r"own (127.0.0.1:"
    assert all(line.startswith(who) for line in told)
    assert [line.partition(") administers: ")[2] for line in told] == [
        f"groups rm name={GROUP}: done",
        "users add name=x: refused (403)",
    ]
    assert "hash-of-it" not in caplog.text
    assert PASSWORD not in caplog.text


async def test_a_body_that_is_too_large_ends_the_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        for name, status in (("all", 413), ("", 401)):
            async with client(server, name) as http:
                content = b"[" * (BODY_BYTES_MAX + 1)
                try:
                    answer = await http.post("/users/add", content=content)
                except (httpx.WriteError, httpx.ReadError):
                    continue  # It was cut off while it still wrote.
                assert answer.status_code == status


async def test_a_body_that_is_none_is_no_mistake_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as server, client(server, "all") as http:
        for path in ("/users/add", "/users/import", "/acl/add"):
            for content in (b"[" * 100_000, b"\xff", b"", b"null", b'"a"', b"[1]", b'{"rules":7}'):
                assert (await http.post(path, content=content)).status_code == 400
    assert not [each for each in caplog.records if each.levelno >= logging.ERROR]


async def test_a_request_that_is_not_whole_in_time_is_cut_off(tmp_path: Path) -> None:
    listeners = Listener(port=0), Listener(port=0, protocols=("admin",))
    config = Config(data_dir=tmp_path, listeners=listeners, connect_timeout_s=0.3)
    server = Server(config)
    await server.start()
    try:
        await _make_users(server)
        head = f"POST /acl/add HTTP/1.1\r\nHost: x\r\n{_header('all')}Content-Length: 9\r\n\r\n"
        for part in (b"GET /sta", head.encode(), head.encode() + b"{"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(part)
            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()
    finally:
        await server.stop()


def _header(name: str) -> str:
    return f"Authorization: {auth(name)['authorization']}\r\n"


async def test_requests_one_after_the_other_on_one_connection(tmp_path: Path) -> None:
    async with running(tmp_path) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        request = f"GET /healthz HTTP/1.1\r\nHost: x\r\n{_header('none')}\r\n".encode()
        last = request.replace(b"Host", b"Connection: close\r\nHost")
        writer.write(3 * request + last)
        answers = await asyncio.wait_for(reader.read(), 30)
        assert answers.count(b"HTTP/1.1 200") == 4
        writer.close()


async def test_what_is_no_http_is_not_answered_as_a_client_would_be(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(tmp_path) as server:
        for said in (b"\x10\x0c\x00\x04MQTT\x04\x02\x00\x3c\x00\x00", b"\x16\x03\x01\x00\x05"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
            writer.write(said)
            assert await asyncio.wait_for(reader.read(), 30) == b""
            writer.close()
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(server))
        writer.write(b"LOGIN all secret\n\n")
        assert (await asyncio.wait_for(reader.read(), 30)).startswith(b"HTTP/1.1 400")
        writer.close()
        async with client(server) as http:
            upgrade = {"connection": "upgrade", "upgrade": "websocket"}
            assert (await http.get("/mqtt", headers=upgrade)).status_code == 401
    assert not [each for each in caplog.records if each.name.startswith("uvicorn")]


@pytest.mark.parametrize(
    ("header", "found"),
    [
        (b"", (None, None)),
        (b"Basic", (None, None)),
        (b"Bearer YTpi", (None, None)),
        (b"Basic YTpi", ("a", b"b")),
        (b"basic YTpi", ("a", b"b")),
        (b"Basic YTpiOmM=", ("a", b"b:c")),
        (b"Basic YQ==", (None, None)),
        (b"Basic !!", (None, None)),
        (b"Basic /zpi", (None, None)),
        (b"Basic Og==", ("", b"")),
    ],
)
def test_the_header_of_a_login(header: bytes, found: tuple[str | None, bytes | None]) -> None:
    assert credentials(header) == found
