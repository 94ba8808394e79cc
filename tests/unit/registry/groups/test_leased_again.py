"""What waits for a member goes to another one when rights change."""

from __future__ import annotations

import pytest

from broker.registry.groups.group import Group
from broker.registry.groups.leased_again import LeasedAgain
from broker.security.rights import Rights
from tests.support.messages import message
from tests.support.rulebook import Rulebook
from tests.support.world import Disk, Subscriber, placed, running, subscription

GROUP = "$share/g/#"


async def test_what_waits_for_a_member_goes_to_one_that_may_read_it() -> None:
    async with running(Disk()) as world:
        books = {name: Rulebook("allow subscribe #") for name in ("slow", "other")}
        members: dict[str, Subscriber] = {}
        for name, book in books.items():
            member = members[name] = Subscriber(world, limit=0 if name == "slow" else 1 << 20)
            await member.open(name)
            assert member.session is not None
            member.session.grants.allow(Rights(book, "anna", None, name))
            document = subscription(GROUP, client_id=name)
            await world.groups.join(member.session, document, member)
        for n in range(2):
            world.log.append([message(str(n), "a")])
        await world.settled()
        assert [m.payload for m, _ in members["other"].got] == [b"1"]
        books["slow"].write()
        LeasedAgain(world.groups).rights_changed(limited=True)
        await world.settled()
        assert [m.payload for m, _ in members["other"].got] == [b"1", b"0"]


async def test_of_many_groups_only_those_with_something_unplaced_are_woken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """To wake thousands takes longer than a turn of the loop may."""
    async with running(Disk()) as world:
        member = Subscriber(world, limit=0)
        await member.open("m")
        for topic_filter in "ab":
            document = subscription(f"$share/g/{topic_filter}", client_id="m")
            await world.groups.join(placed(member), document, member)
        for n in range(2):
            world.log.append([message(str(n), "a")])
        await world.settled()
        woken: list[str] = []
        monkeypatch.setattr(Group, "wake", lambda group: woken.append(group.name))
        LeasedAgain(world.groups).rights_changed(limited=True)
    assert {*woken} == {"$share/g/a"}
