"""Allowance: what is counted of a session's subscriptions, and what is not."""

from __future__ import annotations

import pytest

from broker.clients.allowance import Allowance
from broker.config import Config
from broker.security.quotas import Quota
from tests.support.world import Subscriber, World, subscription


@pytest.fixture
async def subscriber(world: World) -> Subscriber:
    """Of `a/+` and `b`."""
    subscriber = Subscriber(world)
    await subscriber.open()
    for topic_filter in ("a/+", "b"):
        subscriber.subscribe(subscription(topic_filter))
    return subscriber


@pytest.mark.parametrize(
    ("most", "made", "wanted", "too_many"),
    [
        (3, (), "c", ""),
        (2, (), "c", "2 subscriptions"),
        (2, (), "b", ""),
        (3, ("c",), "d", "3 subscriptions"),
        (3, ("c",), "c", ""),
        (3, ("b",), "c", ""),
        (0, (), "c", "0 subscriptions"),
    ],
)
def test_a_subscription_counts_once(
    subscriber: Subscriber, most: int, made: tuple[str, ...], wanted: str, too_many: str
) -> None:
    assert subscriber.session is not None
    allowance = Allowance(Config(subscriptions_per_session_max=most))
    assert allowance.too_many(subscriber.session, wanted, made) == too_many


@pytest.mark.parametrize(
    ("quota", "too_many"), [(None, ""), (2, "2 subscriptions"), (3, ""), (9, "")]
)
def test_a_user_may_have_fewer(subscriber: Subscriber, quota: int | None, too_many: str) -> None:
    assert subscriber.session is not None
    allowance = Allowance(Config(subscriptions_per_session_max=3))
    allowance.quota_of = lambda user: Quota(subscriptions=quota)
    assert allowance.too_many(subscriber.session, "c") == too_many


@pytest.mark.parametrize(
    ("made", "wanted", "too_many"),
    [
        ((), "+/a", "1 pattern of wildcards"),
        ((), "c/+", ""),
        ((), "c", ""),
        ((), "$share/g/+/a", ""),
        (("c",), "+/a", "1 pattern of wildcards"),
    ],
)
def test_a_pattern_of_wildcards_counts_once_and_a_group_has_its_own(
    subscriber: Subscriber, made: tuple[str, ...], wanted: str, too_many: str
) -> None:
    assert subscriber.session is not None
    allowance = Allowance(Config(wildcard_patterns_per_session_max=1))
    assert allowance.too_many(subscriber.session, wanted, made) == too_many
