"""The subscribers over HTTP."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest

from broker.errors import StoreDenied, StoreFull
from broker.web.admin import create_app
from broker.web.permitted import trusted
from broker.web.subscribers import routes_of
from tests.support.messages import message
from tests.support.world import Subscriber, World, subscription


@pytest.fixture
async def http(world: World) -> AsyncIterator[httpx.AsyncClient]:
    subscriber = Subscriber(world)
    await subscriber.open()
    subscriber.subscribe(subscription())
    await world.publish(message("1"), message("2"))
    await subscriber.acknowledge()
    subscriber.close()
    await world.settled()
    parts = world.log, world.delivery, world.sessions, world.groups, world.counters, world.clock
    app = create_app(dict, lambda: None, routes_of(*parts))
    transport = httpx.ASGITransport(trusted(app))
    async with httpx.AsyncClient(transport=transport, base_url="http://broker") as http:
        yield http


async def test_a_page_and_one_alone(http: httpx.AsyncClient) -> None:
    page = (await http.get("/subscribers", params={"limit": 1})).json()
    assert (page["high_watermark"], page["next"]) == (2, None)
    assert [record["id"] for record in page["subscribers"]] == ["sub1"]
    one = (await http.get("/subscribers/one", params={"id": "sub1"})).json()
    assert one["lag"] == 0
    assert [s["filter"] for s in one["subscriptions"]] == ["t"]


async def test_what_an_operator_asks_for_is_done(http: httpx.AsyncClient, world: World) -> None:
    seek = {"id": "sub1", "to": "2"}
    dry = await world.passing_time(
        http.post("/subscribers/seek", params=seek | {"dry_run": "true"})
    )
    done = await world.passing_time(http.post("/subscribers/seek", params=seek))
    assert dry.json() == done.json()
    assert done.json()["again"] == 1
    params = {"id": "sub1", "new": "a/b c"}
    forked = await world.passing_time(http.post("/subscribers/fork", params=params))
    assert forked.json()["filters"] == ["t"]
    removed = await world.passing_time(http.post("/subscribers/rm", params={"id": "a/b c"}))
    assert removed.json() == {"id": "a/b c", "connected": False, "unread": 1}


@pytest.mark.parametrize(
    ("path", "params", "status", "says"),
    [
        ("seek", {"id": "sub9", "to": "1"}, 404, "no subscriber sub9"),
        ("seek", {"id": "sub1", "to": "1:2"}, 400, "one place"),
        ("seek", {"id": "sub1"}, 400, "not complete"),
        ("fork", {"id": "sub1", "new": "sub1"}, 409, "already"),
        ("rm", {}, 400, "not complete"),
    ],
)
async def test_what_cannot_be_done_is_said(
    http: httpx.AsyncClient, path: str, params: dict[str, str], status: int, says: str
) -> None:
    answer = await http.post(f"/subscribers/{path}", params=params)
    assert answer.status_code == status
    assert says in answer.json()["error"]
    assert "remedy" in answer.json()


@pytest.mark.parametrize(
    ("error", "status"), [(StoreFull("no space"), 507), (StoreDenied("not yours"), 503)]
)
async def test_a_log_that_cannot_be_used_is_no_mistake(
    http: httpx.AsyncClient, world: World, error: Exception, status: int
) -> None:
    world.disk.full = status == 507
    world.disk.broken = None if status == 507 else StoreDenied("not yours")
    answer = await world.passing_time(
        http.post("/subscribers/fork", params={"id": "sub1", "new": "sub2"})
    )
    assert answer.status_code == status
    assert str(error)


async def test_a_number_that_is_none_is_said(http: httpx.AsyncClient) -> None:
    assert (await http.get("/subscribers", params={"limit": "x"})).status_code == 400
