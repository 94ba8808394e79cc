"""What one request may administer."""

from __future__ import annotations

import asyncio

import pytest
from starlette.requests import Request

from broker.errors import NotAuthorized, TopicFilterInvalid
from broker.security.rights import Rights
from broker.web.permitted import AT_ONCE_MAX, Permit, give, of_group, the_broker
from tests.support.rulebook import Rulebook


def request(*texts: str, query: bytes = b"") -> Request:
    scope: dict[str, object] = {"type": "http", "query_string": query}
    give(scope, Rights(Rulebook(*texts), "anna", None, ""))
    return Request(scope)


async def test_every_filter_must_be_allowed_and_the_one_that_is_not_is_named() -> None:
    permit = Permit(request("allow admin a/#", "allow admin b"))
    await permit.require(["a/1", "b", "$share/g/a/+"])
    for filters, missing in ((["a/1", "c"], "c"), (["#"], "#"), ([], "#"), (["$x"], r"\$x")):
        with pytest.raises(NotAuthorized, match=f"right to admin {missing} is missing"):
            await permit.require(filters)
        assert not await permit.allows(filters)


async def test_when_the_last_user_is_removed_who_asks_may_nothing_more() -> None:
    """Not what all may while there are no users: it came by the network."""
    book = Rulebook("allow admin jobs")
    asked = Request({"type": "http"})
    give(asked.scope, Rights(book, "anna", None, ""))
    permit = Permit(asked)
    await permit.require(["jobs"])
    book.open = True
    book.version += 1
    for filters in (["jobs"], ["a"], ["#"], []):
        assert not await permit.allows(filters)
    give(asked.scope, Rights.ALL)
    assert await Permit(asked).allows(["#", "a", "$x"])


async def test_who_may_everything_may_also_what_is_of_nothing() -> None:
    permit = Permit(request("allow admin #"))
    await permit.require([])
    await permit.require(the_broker(request()))
    assert not await permit.allows(["a", "$x/1"]), "those are for who may administer $#"
    safe = Permit(request("allow admin #", "deny admin a/secret"))
    assert not await safe.allows([])
    assert await safe.allows(["b/#"])


def test_who_may_nothing_is_told_so() -> None:
    Permit(request("allow admin a")).require_something()
    with pytest.raises(NotAuthorized, match="right admin is missing"):
        Permit(request("deny admin a", "allow publish #")).require_something()


@pytest.mark.parametrize("at_once", [1, 10 * AT_ONCE_MAX])
@pytest.mark.parametrize("allowed", [True, False])
async def test_many_filters_leave_others_their_turn(at_once: int, allowed: bool) -> None:
    """Also where one request asks for each of many groups."""
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    await asyncio.sleep(0)
    before = turns
    permit = Permit(request("allow admin a/#"))
    for _ in range(10 * AT_ONCE_MAX):
        assert await permit.allows(["a/b" if allowed else "c"] * at_once) is allowed
    assert turns - before >= 10
    task.cancel()


def test_a_group_is_of_its_filter() -> None:
    concerns = of_group("name")
    assert [*concerns(request(query=b"name=%24share/g/jobs/%23"))] == ["jobs/#"]
    for query in (b"", b"name=x", b"other=%24share/g/jobs"):
        assert [*concerns(request(query=query))] == ["#"]
    with pytest.raises(TopicFilterInvalid):
        concerns(request(query=b"name=%24share/%2B/jobs"))


def test_without_rights_nothing_is_asked() -> None:
    """A mistake of ours is no permission."""
    with pytest.raises(KeyError):
        Permit(Request({"type": "http"}))
