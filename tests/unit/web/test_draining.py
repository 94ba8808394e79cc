from __future__ import annotations

import httpx
from starlette.applications import Starlette

from broker.errors import CommandRefused
from broker.web.draining import routes
from broker.web.permitted import trusted


async def test_it_is_asked_for_and_may_be_refused() -> None:
    asked: list[bool] = []

    def drain(*, for_good: bool) -> None:
        if asked:
            raise CommandRefused("there is no other broker", "stop it")
        asked.append(for_good)

    transport = httpx.ASGITransport(trusted(Starlette(routes=routes(drain))))
    async with httpx.AsyncClient(transport=transport, base_url="http://broker") as client:
        assert (await client.post("/drain?for_good=true")).status_code == 202
        refused = await client.post("/drain")
        assert (refused.status_code, refused.json()["error"]) == (409, "there is no other broker")
    assert asked == [True]
