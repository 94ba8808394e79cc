"""What other brokers that share the log have changed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.config import Config
from broker.documents import (
    Author,
    DedupDocument,
    DelayedDocument,
    Delete,
    Put,
    UserDocument,
)
from broker.documents.queues import DeadLetterDocument, DeadNoticeDocument, GroupDocument
from broker.documents.quotas import QuotaDocument
from broker.errors import PeerError, StoreUnavailable
from broker.message import Offset, WallUs
from broker.registry.elsewhere import OF_ACCOUNTS, RETRY_S
from broker.security.names import Login
from broker.security.quotas import Quota
from broker.settings.dedup import DedupRule
from broker.store.shared.memory_log import MemoryLog
from tests.support.messages import message
from tests.support.two_brokers import (
    both_settled,
    logged,
    one_more,
    opened,
    pass_away,
    two_brokers,
)
from tests.support.world import World

HOUR = Config(dedup=(DedupRule(filter="#", window="1h"),), will_restart_grace_s=0)


class DismissedGuest:
    def __init__(self) -> None:
        self.errors: list[PeerError] = []

    def dismiss(self, error: PeerError) -> None:
        self.errors.append(error)

    def failed(self, error: Exception) -> None:
        raise error


def user(name: str, password: str = "p") -> UserDocument:
    return UserDocument(name, password, "", "", WallUs(1), WallUs(1))


async def test_users_quotas_and_rules_are_in_force_everywhere() -> None:
    async with two_brokers() as (a, b):
        for world in (a, b):
            await world.permissions.start()
        await a.passing_time(a.users.put(user("u")))
        await a.passing_time(a.quotas.put("user", "u", Quota(connections=3)))
        await both_settled(a, b)
        assert b.users.get("u") == user("u")
        assert b.quotas.of("u").connections == 3
        version = b.permissions.version
        await a.passing_time(a.users.remove("u"))
        await both_settled(a, b)
        assert not b.users.exist
        assert b.quotas.of("u").connections is None
        assert await b.disk.scan(QuotaDocument) == []
        assert b.permissions.version > version


@pytest.mark.parametrize("same", [True, False])
async def test_a_password_of_another_broker_ends_connections_unless_it_is_the_same(
    same: bool,
) -> None:
    """Kept in another form, as a login does that finds it in that of another program."""
    async with two_brokers() as (a, b):
        await a.passing_time(a.users.put(user("u")))
        await both_settled(a, b)
        guest = DismissedGuest()
        b.users.enter(guest, Login("u", by_password=True))
        before = a.users.get("u")
        assert before is not None
        if same:
            await a.passing_time(a.users.rehashed(before, replace(before, password="another")))
        else:
            other = replace(before, password="another", changed_at_us=WallUs(2))
            await a.passing_time(a.users.put(other))
        await both_settled(a, b)
        assert b.users.get("u") == a.users.get("u") != before
        assert bool(guest.errors) == (not same)


async def test_messages_that_wait_at_two_brokers_do_not_replace_each_other() -> None:
    async with two_brokers() as (a, b):
        for world, name in ((a, "a"), (b, "b")):
            await delay(world, name, 10)
        await both_settled(a, b)
        assert len(await a.disk.scan(DelayedDocument)) == 2
        assert (len(a.asking.delayed), len(b.asking.delayed)) == (1, 1)
        a.clock.advance(11)
        await both_settled(a, b)
        assert sorted(logged(a)) == sorted(logged(b)) == [b"a", b"b"]
        assert await a.disk.scan(DelayedDocument) == []


async def delay(world: World, name: str, delay_s: int) -> None:
    accepted = world.asking.delayed.after(message(name), delay_s, None, Author())
    await world.passing_time(world.log.commit_now(accepted.operations))
    world.asking.delayed.settle(accepted, None)


async def test_what_waits_at_a_broker_that_dies_comes_once() -> None:
    log = MemoryLog()
    async with two_brokers(log=log) as (a, b):
        async with one_more(log, "c", a.clock) as c:
            for n in range(5):
                await delay(c, str(n), 60)
            await both_settled(a, b, c)
        await pass_away(a, b)
        assert len(a.asking.delayed) + len(b.asking.delayed) == 5
        a.clock.advance(60)
        await both_settled(a, b)
        assert sorted(logged(a)) == [b"%d" % n for n in range(5)]


async def test_a_key_that_came_at_one_is_known_at_the_other() -> None:
    async with two_brokers(HOUR) as (a, b):
        known, operation = a.asking.dedup.add("p", "t", "k", 100, None)
        await a.passing_time(a.log.commit_now([operation]))
        a.asking.dedup.settle(known, None, None)
        await both_settled(a, b)
        found = b.asking.dedup.find("p", "t", "k")
        assert found is not None
        assert found.stored
        a.clock.advance(101)
        await both_settled(a, b)
        assert b.asking.dedup.find("p", "t", "k") is None
        assert await b.disk.scan(DedupDocument) == []


async def test_a_group_that_a_command_made_is_known_everywhere() -> None:
    async with two_brokers() as (a, b):
        name = "$share/g/t"
        await opened(a, name)
        a.log.append([], operations=[Put(GroupDocument.asked({"name": name}))])
        await both_settled(a, b)
        assert name in b.groups.created
        a.log.append([], operations=[Delete(GroupDocument, (name,))])
        await both_settled(a, b)
        assert name not in b.groups.created


async def test_only_the_broker_that_has_a_group_tells_of_its_dead_letters() -> None:
    async with two_brokers() as (a, b):
        name = "$share/g/t"
        await opened(a, name)
        await a.publish(message("poison", "t"))
        letter = DeadLetterDocument(name, Offset(1), 1, "why", "worker", a.log.time.aged_us())  # type: ignore[arg-type]
        a.log.append([], operations=[Put(letter), Put(DeadNoticeDocument(name, Offset(1)))])
        await both_settled(a, b)
        b.groups.dead_letters.look()
        await both_settled(a, b)
        assert logged(b) == [b"poison"]
        for world in (a, b):
            world.groups.dead_letters.look()
        await both_settled(a, b)
        assert logged(b) == [b"poison", b"poison"], "and one that tells of it"


async def test_of_many_users_only_those_are_read_that_another_has_changed() -> None:
    async with two_brokers() as (a, b):
        for world in (a, b):
            await world.permissions.start()
        await a.passing_time(a.users.put(*[user(f"u{n}") for n in range(20)]))
        await both_settled(a, b)
        asked: list[tuple[type, object]] = []
        get, scan = b.disk.get, b.disk.scan

        async def noted_get(kind: Any, key: Any) -> Any:
            asked.append((kind, key))
            return await get(kind, key)

        async def noted_scan(kind: Any, key: Any = ()) -> Any:
            asked.append((kind, key))
            return await scan(kind, key)

        b.disk.get, b.disk.scan = noted_get, noted_scan  # type: ignore[method-assign]
        await a.passing_time(a.users.put(user("u7", "other")))
        await both_settled(a, b)
        assert b.users.get("u7") == user("u7", "other")
        assert {(kind, key) for kind, key in asked if kind in OF_ACCOUNTS} == {
            (UserDocument, ("u7",))
        }


async def test_what_cannot_be_read_now_is_read_later(caplog: pytest.LogCaptureFixture) -> None:
    async with two_brokers() as (a, b):
        failures, get = [StoreUnavailable("disk I/O error")], b.disk.get

        async def failing(kind: Any, key: Any) -> Any:
            if kind is UserDocument and failures:
                raise failures.pop()
            return await get(kind, key)

        b.disk.get = failing  # type: ignore[method-assign]
        await a.passing_time(a.users.put(user("u")))
        await both_settled(a, b)
        assert b.users.get("u") is None
        assert "is read later: disk I/O error" in caplog.text
        b.clock.advance(RETRY_S)
        await both_settled(a, b)
        assert b.users.get("u") == user("u")


async def test_one_of_them_drops_dead_letters_that_are_too_old() -> None:
    async with two_brokers() as (a, b):
        await both_settled(a, b)
        assert [world.groups.dead_letters.forgets() for world in (a, b)] == [True, False]
