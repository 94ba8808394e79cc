"""Users over HTTP."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette

from broker.registry.access.accounts import Accounts
from broker.web.permitted import trusted
from broker.web.users import routes
from tests.support.passwords import ARGON2ID, SHA512
from tests.support.world import World


def client(world: World) -> httpx.AsyncClient:
    app = trusted(Starlette(routes=routes(Accounts(world.users, world.clock))))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://broker")


async def test_users_are_added_changed_listed_and_removed(world: World) -> None:
    async with client(world) as asking:
        anna = {"name": "anna", "password": ARGON2ID, "roles": ["admin"]}
        assert (await asking.post("/users/add", json=anna)).json()["first"]
        taken = {"passwords": {"bob": SHA512, "anna": SHA512}}
        assert (await asking.post("/users/import", json=taken)).json() == {"known": ["anna"]}
        changed = {"name": "anna", "password": SHA512}
        assert (await asking.post("/users/passwd", json=changed)).json()["kept_as"] == "6"
        listed = (await asking.get("/users")).json()["users"]
        assert [(one["name"], one["roles"]) for one in listed] == [
            ("anna", ["admin"]),
            ("bob", ["standard"]),
        ]
        assert SHA512 not in str(listed)
        others = {"name": "anna", "roles": ["day", "night"]}
        assert (await asking.post("/users/roles", json=others)).json()["roles"] == ["day", "night"]
        await asking.post("/users/rm", json={"name": "bob"})
        assert [*world.users.by_name] == ["anna"]


async def test_what_cannot_be_done_is_said(world: World) -> None:
    async with client(world) as asking:
        for path, asked, status in (
            ("/users/rm", {"name": "anna"}, 404),
            ("/users/passwd", {"name": "anna", "password": ARGON2ID}, 404),
            ("/users/add", {"name": "anna", "password": "secret"}, 400),
            ("/users/add", {"name": "a:b", "password": ARGON2ID}, 400),
            ("/users/add", {"name": 5, "password": ARGON2ID}, 400),
            ("/users/add", {"name": "anna", "password": ARGON2ID, "roles": [1]}, 400),
            ("/users/roles", {"name": "anna", "roles": []}, 404),
            ("/users/roles", {"name": "anna"}, 400),
            ("/users/roles", {"name": "anna", "roles": "night"}, 400),
            ("/users/import", {"passwords": {"a": 1}}, 400),
            ("/users/import", {"passwords": ["a"]}, 400),
            ("/users/rm", ["anna"], 400),
            ("/users/add", {}, 400),
        ):
            answer = await asking.post(path, json=asked)
            assert answer.status_code == status, (path, asked, answer.text)
            assert answer.json()["error"]
        assert not world.users.exist
