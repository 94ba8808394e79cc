"""Rules over HTTP."""

from __future__ import annotations

import httpx
import pytest
from starlette.applications import Starlette

from broker.documents import RuleDocument
from broker.web.acl import routes_of, rule_from
from broker.web.permitted import trusted
from tests.support.permitted import make_user
from tests.support.world import World

RULE = {"name": "anna", "is_role": False, "allow": True, "access": "publish", "filter": "a/#"}


def test_a_rule_is_whole_or_refused() -> None:
    assert rule_from(RULE) == RuleDocument("anna", False, True, "publish", "a/#")
    for wrong in ({}, {**RULE, "name": 1}, {**RULE, "allow": "yes"}, "anna"):
        with pytest.raises((ValueError, KeyError)):
            rule_from(wrong)


async def test_rules_are_added_asked_for_and_removed(world: World) -> None:
    await world.passing_time(make_user(world, "anna"))
    app = trusted(Starlette(routes=routes_of(world.permissions, world.users)))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://broker") as asking:
        rules = {"rules": [RULE]}
        question = {"user": "anna", "right": "publish", "filter": "a/1", "client_id": ""}
        added = await world.passing_time(asking.post("/acl/add", json=rules))
        assert added.json() == {"count": 1, "unknown": []}
        assert RULE | {"built_in": False} in (await asking.get("/acl")).json()["rules"]
        checked = (await asking.get("/acl/check", params=question)).json()
        assert (checked["allowed"], checked["rule"]["filter"]) == (True, "a/#")
        taken = await world.passing_time(asking.post("/acl/import", json=rules))
        assert taken.json() == {"left": []}
        removed = await world.passing_time(asking.post("/acl/rm", json=rules))
        assert removed.json() == {"count": 1}
        assert not (await asking.get("/acl/check", params=question)).json()["allowed"]
        no_topic = await asking.get("/acl/check", params=question | {"filter": ""})
        assert no_topic.status_code == 400
        for path, body, status in (
            ("/acl/rm", rules, 404),
            ("/acl/add", {"rules": [RULE | {"filter": "a#"}]}, 400),
            ("/acl/add", {"rules": [RULE | {"access": "admin", "filter": "%c/#"}]}, 400),
            ("/acl/add", {"rules": "anna"}, 400),
            ("/acl/add", ["rules"], 400),
            ("/acl/add", {"rules": [RULE | {"access": "swim"}]}, 400),
            ("/acl/add", {}, 400),
        ):
            answer = await world.passing_time(asking.post(path, json=body))
            assert answer.status_code == status, (path, body, answer.text)
            assert answer.json()["error"]
