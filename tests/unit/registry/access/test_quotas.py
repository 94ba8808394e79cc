"""Quotas in force: by user and by role, at once, and as the log has them."""

from __future__ import annotations

import pytest

from broker.documents.quotas import QuotaDocument
from broker.errors import CommandRefused, NotFound, QuotaExceeded
from broker.registry.access.quotas import ROLE, USER, Quotas
from broker.security.names import Login
from broker.security.quotas import UNLIMITED, Quota
from tests.support.passwords import user
from tests.support.world import World


async def test_a_quota_counts_at_once_and_after_a_start(world: World) -> None:
    quotas = world.quotas
    await world.users.put(user("ann"), user("bob", roles=""))
    assert quotas.of("ann") == UNLIMITED
    await quotas.put(ROLE, "standard", Quota(connections=1, groups=2))
    assert quotas.of("ann") == Quota(connections=1, groups=2)
    assert quotas.of("bob") == quotas.of("") == UNLIMITED
    await quotas.put(USER, "ann", Quota(connections=7))
    assert quotas.of("ann") == Quota(connections=7, groups=2)
    again = Quotas(world.log, world.users, lambda: None)
    await again.start()
    assert again.of("ann") == Quota(connections=7, groups=2)
    assert (
        again.all()
        == quotas.all()
        == [
            QuotaDocument(ROLE, "standard", 1, None, 2),
            QuotaDocument(USER, "ann", 7),
        ]
    )
    await quotas.remove(ROLE, "standard")
    assert quotas.of("ann") == Quota(connections=7)
    with pytest.raises(NotFound, match="role standard has no quota"):
        await quotas.remove(ROLE, "standard")


async def test_a_role_that_is_taken_away_takes_its_quota_along(world: World) -> None:
    await world.users.put(user("ann"))
    await world.quotas.put(ROLE, "standard", Quota(connections=1))
    assert world.quotas.of("ann").connections == 1
    await world.users.put(user("ann", roles="other"))
    assert world.quotas.of("ann") == UNLIMITED


async def test_a_removed_user_takes_its_quota_along(world: World) -> None:
    """Or a new one of that name would have it."""
    await world.users.put(user("ann"), user("bob"))
    await world.quotas.put(USER, "ann", Quota(connections=1))
    await world.users.remove("ann")
    assert await world.disk.scan(QuotaDocument) == []
    assert world.quotas.all() == []
    await world.users.put(user("ann"))
    assert world.quotas.of("ann") == UNLIMITED


async def test_what_is_no_quota_is_refused(world: World) -> None:
    for kind, name, quota in (
        (USER, "a:b", Quota(connections=1)),
        (ROLE, "a b", Quota(connections=1)),
        (USER, "ann", Quota(connections=0)),
    ):
        with pytest.raises(CommandRefused):
            await world.quotas.put(kind, name, quota)
    assert world.quotas.all() == []


async def test_too_many_connections_are_refused_but_not_one_that_takes_anothers_place(
    world: World,
) -> None:
    class AnyGuest:
        def dismiss(self, error: Exception) -> None:
            raise AssertionError

    from broker.security.names import Login

    await world.users.put(user("ann"))
    world.quotas.refuse_connection("ann")
    await world.quotas.put(USER, "ann", Quota(connections=1))
    world.quotas.refuse_connection("ann")
    world.users.enter(AnyGuest(), Login("ann"))
    with pytest.raises(QuotaExceeded, match="ann may have 1 connections, and has 1"):
        world.quotas.refuse_connection("ann")
    world.quotas.refuse_connection("ann", replaces_one=True)


async def test_a_pace_is_shared_by_all_connections_of_a_user_until_it_is_changed(
    world: World,
) -> None:
    await world.users.put(user("ann"), user("bob"))
    assert world.quotas.pace_of("ann") is None
    await world.quotas.put(ROLE, "standard", Quota(publish_per_s=10))
    pace = world.quotas.pace_of("ann")
    assert pace is not None
    assert world.quotas.pace_of("ann") is pace
    assert world.quotas.pace_of("bob") is not pace
    await world.quotas.put(ROLE, "standard", Quota(publish_per_s=20))
    assert world.quotas.pace_of("ann") is not pace


async def test_the_roles_of_a_token_count_for_its_user(world: World) -> None:
    quotas = world.quotas
    await world.users.put(user("ann"))
    await quotas.put(ROLE, "sensors", Quota(connections=3, publish_per_s=5))
    await quotas.put(ROLE, "standard", Quota(connections=9))
    quotas.came(Login("kiln", ("sensors",)))
    assert quotas.of("kiln").connections == 3
    pace = quotas.pace_of("kiln")
    assert pace is not None
    quotas.came(Login("kiln", ("sensors",)))
    assert quotas.pace_of("kiln") is pace, "a token like the one before is no new beginning"
    quotas.came(Login("kiln", ()))
    assert quotas.of("kiln") == UNLIMITED
    quotas.came(Login("ann", ("sensors",)))
    assert quotas.of("ann").connections == 3
    quotas.came(Login("ann"))
    assert quotas.of("ann").connections == 9
