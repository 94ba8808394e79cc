"""Groups and dead letters over HTTP."""

from __future__ import annotations

from pathlib import Path

import httpx
from starlette.applications import Starlette

from broker.documents.queues import GroupDocument
from broker.registry.groups.queues import Queues
from broker.web.permitted import trusted
from broker.web.queues import routes
from tests.support.world import World

GROUP = "$share/workers/jobs/#"


def client(world: World) -> httpx.AsyncClient:
    app = trusted(Starlette(routes=routes(Queues(world.log, world.groups, world.clock), Path())))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://broker")


async def test_a_group_is_made_and_removed(world: World) -> None:
    async with client(world) as asking:
        asked = {"name": GROUP, "attempts": "7", "from": "earliest"}
        made = await world.passing_time(asking.post("/groups/create", params=asked))
        assert made.json() == {"name": GROUP, "begins_at": 1, "taken_over": False}
        [document] = await world.disk.scan(GroupDocument)
        assert (document.attempts_max, document.lease_ms) == (7, 300_000)
        gone = await world.passing_time(asking.post("/groups/rm", params={"name": GROUP}))
        assert gone.json() == {"name": GROUP}


async def test_what_cannot_be_done_is_said(world: World) -> None:
    async with client(world) as asking:
        for path, asked, status in (
            ("/groups/rm", {"name": GROUP}, 404),
            ("/groups/create", {"name": "t"}, 400),
            ("/groups/create", {"name": GROUP, "lease_ms": "0"}, 400),
            ("/groups/create", {"name": "$share/g/$share/h/t"}, 400),
            ("/groups/create", {}, 400),
            ("/groups/create", {"name": GROUP, "attempts": "x"}, 400),
            ("/groups/create", {"name": GROUP, "from": "nowhere"}, 400),
            ("/dead-letters/drop", {"group": GROUP}, 404),
            ("/dead-letters/redrive", {"group": GROUP, "offset": "1"}, 409),
        ):
            answer = await world.passing_time(asking.post(path, params=asked))
            assert answer.status_code == status, (path, asked, answer.text)
            assert answer.json()["error"]
