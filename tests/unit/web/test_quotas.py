"""Quotas over HTTP."""

from __future__ import annotations

import httpx
from starlette.applications import Starlette

from broker.security.quotas import Quota
from broker.web.permitted import trusted
from broker.web.quotas import routes
from tests.support.passwords import user
from tests.support.world import World

NOTHING = dict.fromkeys(("sessions", "groups", "subscriptions", "packet_bytes"))


def client(world: World) -> httpx.AsyncClient:
    app = trusted(Starlette(routes=routes(world.quotas)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://broker")


async def test_a_quota_is_set_listed_and_removed(world: World) -> None:
    await world.users.put(user("ann"))
    subject = {"kind": "role", "name": "standard"}
    limits = {"connections": 3, "publish_per_s": 5}
    everything = {**subject, **NOTHING, **limits, "publish_bytes_per_s": None, "retained": None}
    async with client(world) as asking:
        made = await asking.post("/quotas/set", params={**subject, **limits})
        assert made.json() == everything
        assert world.quotas.of("ann") == Quota(connections=3, publish_per_s=5)
        assert (await asking.get("/quotas")).json() == {"quotas": [everything]}
        assert (await asking.post("/quotas/rm", params=subject)).json() == subject
        assert (await asking.get("/quotas")).json() == {"quotas": []}


async def test_what_cannot_be_done_is_said(world: World) -> None:
    async with client(world) as asking:
        for path, asked, status in (
            ("/quotas/rm", {"kind": "user", "name": "ann"}, 404),
            ("/quotas/set", {"kind": "user", "name": "a:b", "connections": "1"}, 400),
            ("/quotas/set", {"kind": "user", "name": "ann", "connections": "0"}, 400),
            ("/quotas/set", {"kind": "user", "name": "ann", "connections": "x"}, 400),
            ("/quotas/set", {"kind": "group", "name": "ann", "connections": "1"}, 400),
            ("/quotas/set", {"name": "ann"}, 400),
        ):
            answer = await asking.post(path, params=asked)
            assert answer.status_code == status, (path, asked, answer.text)
            assert answer.json()["error"]
