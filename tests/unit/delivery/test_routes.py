"""What is remembered of routes is what would be found anew, and is found anew only if it must."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.delivery import routes
from broker.delivery.routes import RouteTable
from broker.documents import SubscriptionDocument
from broker.message import Offset
from broker.session.grants import merge_grants
from broker.session.session import Session
from broker.topics import matches
from tests.support.patience import PATIENCE_S
from tests.support.world import subscription

NAMES = ("a", "a/b", "a/c", "b", "$x")
FILTERS = ("#", "+", "a/#", "a/+", "+/b", *NAMES)


def session(client_id: str) -> Session:
    return Session(client_id, created_at_us=0, start=Offset(0), inflight_max=10)


SESSIONS = [session("sub1"), session("sub2")]
OPERATION = st.tuples(
    st.sampled_from(["add", "remove", "ask", "ask", "ask"]),
    st.sampled_from(SESSIONS),
    st.sampled_from(FILTERS),
    st.sampled_from(NAMES),
    st.integers(0, 2),
    st.booleans(),
)


@given(st.lists(OPERATION, max_size=60), st.integers(1, 4), st.integers(1, 6))
def test_remembered_routes_are_right_after_any_change(
    operations: list[tuple[str, Session, str, str, int, bool]],
    changed_max: int,
    remembered_max: int,
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(routes, "CHANGED_MAX", changed_max)
        patch.setattr(routes, "REMEMBERED_MAX", remembered_max)
        table = RouteTable()
        subscribed: dict[tuple[Session, str], SubscriptionDocument] = {}
        for what, who, topic_filter, topic, qos, no_local in operations:
            if what == "add":
                made = replace(subscription(topic_filter, qos), no_local=no_local)
                subscribed[who, topic_filter] = made
                table.add(who, made)
            elif what == "remove":
                subscribed.pop((who, topic_filter), None)
                table.remove(who, topic_filter)
            else:
                found = {who: (others, own) for who, others, own in table.of(topic)}
                wanted = {}
                for who in SESSIONS:
                    matching = [
                        s for (of, f), s in subscribed.items() if of is who and matches(f, topic)
                    ]
                    if matching:
                        others = [s for s in matching if not s.no_local]
                        wanted[who] = (merge_grants(matching), merge_grants(others))
                assert found == wanted
            assert len(table) == len(subscribed)


@pytest.fixture
def found_anew(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The topics whose routes were found through the tree."""
    topics: list[str] = []
    find = RouteTable._find

    def noting(table: RouteTable, topic: str) -> routes.Routes:
        topics.append(topic)
        return find(table, topic)

    monkeypatch.setattr(RouteTable, "_find", noting)
    return topics


def test_a_change_makes_only_matching_topics_be_found_anew(found_anew: list[str]) -> None:
    table = RouteTable()
    who = SESSIONS[0]
    table.add(who, subscription("#"))
    names = [f"home/{n}/t" for n in range(100)]
    before = [table.of(name) for name in names]
    found_anew.clear()
    for _ in range(1000):
        table.add(who, subscription("home/7/+"))
        table.remove(who, "home/7/+")
        assert [table.of(name) for name in names] == before
    assert set(found_anew) == {"home/7/t"}


def test_after_many_changes_nothing_is_remembered_of_who_is_gone(found_anew: list[str]) -> None:
    table = RouteTable()
    gone = session("gone")
    table.add(gone, subscription("t"))
    table.of("t")
    table.remove(gone, "t")
    for n in range(routes.CHANGED_MAX):
        table.add(SESSIONS[0], subscription(f"other/{n}"))
    assert not table._doubtful
    assert not table._interned
    found_anew.clear()
    assert table.of("t") == ()
    assert found_anew == ["t"]


def test_routes_that_no_topic_has_any_more_are_not_kept_without_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As when clients with the same filter come and go."""
    monkeypatch.setattr(routes, "REMEMBERED_MAX", 50)
    table = RouteTable()
    for n in range(200):
        visitor = session(f"visitor {n}")
        table.add(visitor, subscription("#"))
        assert [who for who, _, _ in table.of("t")] == [visitor]
        table.remove(visitor, "#")
        assert table.of("t") == ()
    assert len(table._interned) <= 50


def test_routes_of_long_topics_are_bounded_by_what_they_take_in_memory() -> None:
    """100,000 of 4 KiB took 400 MB."""
    table = RouteTable()
    table.add(SESSIONS[0], subscription("#"))
    most = routes.REMEMBERED_LENGTH_MAX // 65_000 + 1
    for n in range(1000):
        assert table.of(f"{n}/{'x' * 65_000}") != ()
        if n == 100:
            table.add(SESSIONS[1], subscription("other"))  # All are in doubt.
        assert len(table._routes) + len(table._doubtful) <= most
    assert len(table._routes) > 50


def test_equal_routes_are_the_same_object() -> None:
    table = RouteTable()
    table.add(SESSIONS[0], subscription("#"))
    assert table.of("a") is table.of("b")


async def test_many_subscriptions_take_turns_also_of_who_is_back_before_they_are_gone(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(routes, "AT_ONCE_MAX", 10)
    table, one = RouteTable(), session("sub1")
    for n in range(95):
        one.subscribe(subscription(f"t/{n}/+"))

    def attach() -> None:
        for made in one.subscriptions.values():
            table.add(one, made)

    attach()
    assert len(table) == 95
    failures: list[Exception] = []
    table.detach(one, failures.append)
    assert len(table) == 85
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert 0 < len(table) < 85
    await table.detached(one)
    attach()
    assert len(table) == 95
    assert [who for who, _, _ in table.of("t/94/x")] == [one]
    table.detach(one, failures.append)
    async with asyncio.timeout(PATIENCE_S):
        while len(table):  # noqa: ASYNC110  No event.
            await asyncio.sleep(0)
    assert failures == []
