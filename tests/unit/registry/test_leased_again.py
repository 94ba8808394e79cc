"""What waits for a member goes to another one when rights change."""

from __future__ import annotations

from broker.registry.leased_again import LeasedAgain
from broker.security.rights import Rights
from tests.support.messages import message
from tests.support.rulebook import Rulebook
from tests.support.world import Disk, Subscriber, running, subscription

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
