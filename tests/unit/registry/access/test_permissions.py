"""The rules of everybody: stored before they count, and counting at once."""

from __future__ import annotations

import pytest

from broker.documents import Author, RuleDocument, UserDocument
from broker.errors import CommandRefused, NotFound, QuotaExceeded, StoreFull
from broker.log.outage import FULL_RETRY_S
from broker.message import WallUs
from broker.registry.access import permissions as module
from broker.security.names import STANDARD
from broker.security.rules import Holder, Right, Rule
from tests.support.clock import FakeClock
from tests.support.world import Disk, World, running

ANNA, BEN, STAFF = Holder("anna"), Holder("ben"), Holder("staff", is_role=True)


def rule(text: str, holder: Holder = ANNA) -> Rule:
    effect, right, topic_filter = text.split(" ", 2)
    return Rule(holder, effect == "allow", Right(right), topic_filter)


async def with_users(world: World, **roles: str) -> None:
    for name, of_user in roles.items():
        await world.users.put(UserDocument(name, "", "", of_user, WallUs(1), WallUs(1)))


async def test_while_there_is_no_user_nothing_is_forbidden() -> None:
    async with running(Disk()) as world:
        rights = world.permissions.rights("anonymous", None, "c1")
        assert not rights.limited
        assert rights.may_publish("$SYS/x")
        await with_users(world, anna="")
        assert rights.limited
        assert not rights.may_publish("a")


async def test_rules_are_stored_and_found_again() -> None:
    disk = Disk()
    rules = [rule("allow publish a/#"), rule("deny subscribe b", STAFF)]
    async with running(disk) as world:
        assert await world.permissions.add(rules) == 2
        assert await world.permissions.add(rules) == 0
    async with running(disk) as world:
        assert world.permissions.listed() == rules
        await with_users(world, anna="staff", ben="")
        anna = world.permissions.rights("anna", None, "c1")
        assert anna.may_publish("a/b")
        assert not world.permissions.rights("ben", None, "c1").may_publish("a/b")
        await world.permissions.remove(rules[:1])
        assert not anna.may_publish("a/b")
        assert await world.disk.scan(RuleDocument) == [
            RuleDocument("staff", True, False, "subscribe", "b")
        ]


async def test_a_change_counts_at_once_and_is_told() -> None:
    async with running(Disk()) as world:
        await with_users(world, anna="")
        anna = world.permissions.rights("anna", None, "c1")
        assert not anna.may_publish("a")
        told: list[bool] = []

        class Hearing:
            def rights_changed(self, *, limited: bool) -> None:
                assert limited
                told.append(anna.may_publish("a"))

        await world.permissions.start(Hearing())
        await world.permissions.add([rule("allow publish a")])
        await world.permissions.remove([rule("allow publish a")])
        assert told == [False, True, False]


async def test_roles_are_those_of_now_or_those_that_were_shown() -> None:
    async with running(Disk()) as world:
        await world.permissions.add([rule("allow publish a", STAFF)])
        await with_users(world, anna="staff")
        anna = world.permissions.rights("anna", None, "c1")
        stranger = world.permissions.rights("zoe", ("staff",), "c1")
        assert anna.may_publish("a")
        assert stranger.may_publish("a")
        await with_users(world, anna="")
        assert not anna.may_publish("a")
        assert stranger.may_publish("a")


async def test_users_with_the_same_rules_share_what_is_remembered_of_them() -> None:
    async with running(Disk()) as world:
        await with_users(world, anna="staff", ben="staff")
        for text, shared in (("allow publish a", True), ("allow publish %u/#", False)):
            await world.permissions.add([rule(text, STAFF)])
            rules = [world.permissions.rules(name, None, "c1") for name in ("anna", "ben")]
            anna, ben = [found[0] for found in rules if found is not None]
            assert (anna is ben) == shared
            assert anna.verdict(Right.PUBLISH, "ben/x").allowed is not True


async def test_a_rule_of_the_client_identifier_is_for_that_one() -> None:
    async with running(Disk()) as world:
        await world.permissions.add([rule("allow publish d/%c"), rule("allow publish u/%u")])
        await with_users(world, anna="")
        for client_id in ("c1", "c2"):
            rights = world.permissions.rights("anna", None, client_id)
            assert rights.may_publish(f"d/{client_id}")
            assert not rights.may_publish("d/c3")
            assert rights.may_publish("u/anna")


async def test_a_built_in_role_can_be_narrowed() -> None:
    async with running(Disk()) as world:
        await with_users(world, anna=STANDARD)
        anna = world.permissions.rights("anna", None, "c1")
        assert anna.may_publish("secret/x")
        standard = Holder(STANDARD, is_role=True)
        await world.permissions.add([rule("deny publish secret/#", standard)])
        assert not anna.may_publish("secret/x")
        with pytest.raises(NotFound, match="always has"):
            await world.permissions.remove([rule("allow publish #", standard)])


async def test_what_cannot_be_stored_does_not_count() -> None:
    disk, clock = Disk(), FakeClock()
    async with running(disk, clock=clock) as world:
        await with_users(world, anna="")
        await world.permissions.add([rule("allow publish a")])
        disk.full = True
        with pytest.raises(StoreFull):
            await world.permissions.add([rule("allow publish b")])
        clock.advance(FULL_RETRY_S)
        with pytest.raises(StoreFull):
            await world.permissions.remove([rule("allow publish a")])
        assert world.permissions.listed() == [rule("allow publish a")]
        disk.full = False
        clock.advance(FULL_RETRY_S)


async def test_a_user_of_a_removed_ones_name_has_none_of_its_rules() -> None:
    async with running(Disk()) as world:
        permissions = world.permissions
        await permissions.add([rule("allow publish a"), rule("allow publish b", BEN)])
        await with_users(world, anna="", ben="")
        await world.users.remove("anna")
        assert permissions.listed() == [rule("allow publish b", BEN)]
        assert [d.name for d in await world.disk.scan(RuleDocument)] == ["ben"]


async def test_what_is_wrong_or_too_much_is_refused_as_a_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "RULES_PER_HOLDER_MAX", 2)
    monkeypatch.setattr(module, "RULES_MAX", 3)
    monkeypatch.setattr(module, "FILTERS_BYTES_MAX", 100)
    async with running(Disk()) as world:
        permissions = world.permissions
        for wrong in (
            rule("allow publish a+"),
            rule("allow publish a", Holder("a:b")),
            rule("allow publish a", Holder("a b", is_role=True)),
        ):
            with pytest.raises(CommandRefused):
                await permissions.add([rule("allow publish fine"), wrong])
        with pytest.raises(QuotaExceeded, match="user anna would have more than 2"):
            await permissions.add([rule(f"allow publish {n}") for n in range(3)])
        with pytest.raises(QuotaExceeded, match="100 bytes"):
            await permissions.add([rule("allow publish " + "x" * 101)])
        of_two = [rule(f"allow publish {n}", h) for n in range(2) for h in (ANNA, BEN)]
        with pytest.raises(QuotaExceeded, match="4 rules: 3 may be"):
            await permissions.add(of_two)
        with pytest.raises(NotFound, match="has no rule"):
            await permissions.remove(of_two[:1])
        assert permissions.listed() == []


async def test_who_left_a_message_for_later_is_asked_for_its_right_then() -> None:
    async with running(Disk()) as world:
        may_publish = world.permissions.may_publish
        assert may_publish(Author("anna"), "a"), "there are no users"
        await with_users(world, anna="")
        await world.permissions.add(
            [rule("allow publish a"), rule("allow publish d/%c"), rule("allow publish n", STAFF)]
        )
        assert may_publish(Author("anna"), "a")
        assert not may_publish(Author("anna"), "b")
        assert may_publish(Author("anna", None, "c1"), "d/c1")
        assert not may_publish(Author("anna", None, "c2"), "d/c1")
        assert not may_publish(Author("anna"), "n")
        assert may_publish(Author("anna", "night staff"), "n"), "a token said so"
        assert not may_publish(Author("ben"), "a")
        assert may_publish(Author(), "b"), "an older program kept it"
        await world.users.remove("anna")
        await with_users(world, ben="")
        assert not may_publish(Author("anna"), "a")


async def test_users_that_change_together_are_one_change() -> None:
    """Each change lets go of all that is remembered, and asks every group."""
    async with running(Disk()) as world:
        before = world.permissions.version
        users = [UserDocument(f"u{n}", "", "", "", WallUs(1), WallUs(1)) for n in range(50)]
        await world.users.put(*users)
        assert world.permissions.version == before + 1
