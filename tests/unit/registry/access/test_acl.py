"""What an operator does to rules."""

from __future__ import annotations

import pytest

from broker.documents import RuleDocument, UserDocument
from broker.errors import CommandRefused, NotFound
from broker.message import WallUs
from broker.registry.access.acl import Acl, Listed
from tests.support.permitted import make_user
from tests.support.world import Disk, World, running

ALLOWED = RuleDocument("anna", False, True, "publish", "a/#")


def acl(world: World) -> Acl:
    return Acl(world.permissions, world.users)


async def test_rules_are_added_listed_and_removed() -> None:
    async with running(Disk()) as world:
        assert await acl(world).add([ALLOWED]) == 1
        assert await acl(world).add([ALLOWED]) == 0
        made = [rule for rule in acl(world).all() if not rule.built_in]
        assert made == [Listed("anna", False, True, "publish", "a/#")]
        assert {rule.name for rule in acl(world).all() if rule.built_in} == {"standard", "admin"}
        await acl(world).remove([ALLOWED])
        with pytest.raises(NotFound):
            await acl(world).remove([ALLOWED])
        with pytest.raises(ValueError, match="swim"):
            await acl(world).add([RuleDocument("anna", False, True, "swim", "a")])


async def test_a_check_tells_which_rule_decided() -> None:
    async with running(Disk()) as world:
        everything = acl(world).check("anonymous", "publish", "a", "")
        assert (everything.allowed, everything.rule) == (True, None)
        await make_user(world, "anna", "allow publish d/%c", roles="standard")
        checked = acl(world).check("anna", "publish", "a/1", "c1")
        assert checked.allowed
        assert checked.rule is not None
        assert (checked.rule.name, checked.rule.built_in, checked.roles) == (
            *("standard", True),
            ("standard",),
        )
        own = acl(world).check("anna", "publish", "d/c1", "c1").rule
        assert own is not None
        denied = acl(world).check("anna", "read-history", "#", "c1")
        assert (denied.allowed, denied.rule) == (False, None)
        with pytest.raises(NotFound, match="there is no user ben"):
            acl(world).check("ben", "publish", "a", "")


@pytest.mark.parametrize(
    ("right", "topic_filter", "missing"),
    [
        ("publish", "$delayed/5/a/1", ""),
        ("publish", "$delayed/5/b", "publish"),
        ("subscribe", "$share/g/a/#", ""),
        ("subscribe", "$share/g/b", "subscribe"),
        ("subscribe", "$replay/earliest/a/1", ""),
        ("subscribe", "$replay/-1/a/2", "read-history"),
        ("subscribe", "$replay/-1/b", "subscribe"),
        ("read-history", "a/1", ""),
        ("read-history", "b", "subscribe"),
    ],
)
async def test_a_check_judges_as_a_client_is_judged(
    right: str, topic_filter: str, missing: str
) -> None:
    async with running(Disk()) as world:
        await make_user(
            *(world, "anna", "allow publish a/#", "allow publish $#", "allow subscribe $#"),
            *("deny publish b", "allow subscribe a/#", "allow read-history a/1"),
            "allow read-history b",
        )
        checked = acl(world).check("anna", right, topic_filter, "")
        assert checked.allowed == (not missing)
        assert checked.access == (missing or right)


@pytest.mark.parametrize(
    ("right", "topic_filter"),
    [
        ("publish", ""),
        ("subscribe", "a/b/##"),
        ("subscribe", "$replay/earliest/"),
        ("publish", "$delayed/soon/a"),
        ("admin", "a/#/b"),
    ],
)
async def test_what_no_client_can_ask_for_is_not_judged(right: str, topic_filter: str) -> None:
    async with running(Disk()) as world:
        await make_user(world, "anna")
        with pytest.raises(CommandRefused):
            acl(world).check("anna", right, topic_filter, "")


async def test_rules_that_nobody_has_are_told() -> None:
    async with running(Disk()) as world:
        await make_user(world, "anna", roles="night")
        names = [("anna", False), ("anan", False), ("anonymous", False), ("night", True)]
        names += [("nigth", True), ("standard", True), ("everyone", True)]
        rules = [RuleDocument(name, role, True, "publish", "a") for name, role in names]
        assert [rule.name for rule in acl(world).unknown(rules)] == ["anan", "nigth"]


async def test_with_imported_rules_nobody_has_the_role_that_allows_all() -> None:
    async with running(Disk()) as world:
        await make_user(world, "anna", roles="standard night")
        await make_user(world, "root", roles="admin")
        assert await acl(world).take([ALLOWED]) == ["anna"]
        anna, root = world.users.get("anna"), world.users.get("root")
        assert isinstance(anna, UserDocument)
        assert isinstance(root, UserDocument)
        assert (anna.roles, root.roles, anna.created_at_us) == ("night", "admin", WallUs(1))
        assert acl(world).check("anna", "publish", "a/1", "").allowed
        assert not acl(world).check("anna", "publish", "b", "").allowed
