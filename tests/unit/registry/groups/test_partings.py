"""A client leaves many groups: what it had goes to others, in several turns of the loop."""

from __future__ import annotations

import pytest

from tests.support.groups import numbers
from tests.support.messages import message
from tests.support.world import Disk, Subscriber, placed, running, subscription


async def test_who_leaves_many_groups_returns_what_it_has_in_several_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And may be back before that is done."""
    monkeypatch.setattr("broker.registry.groups.partings.LEFT_AT_ONCE_MAX", 1)
    async with running(Disk()) as world:
        names = [f"$share/g{n}/t" for n in range(4)]

        async def joined(client_id: str) -> Subscriber:
            joining = Subscriber(world)
            await joining.open(client_id, expiry_s=100)
            for name in names:
                document = subscription(name, client_id=client_id)
                await world.groups.join(placed(joining), document, joining)
            return joining

        first = await joined("first")
        await world.publish(message("1", "t"))
        assert numbers(first) == [1] * 4
        other = await joined("other")
        first.close()
        await joined("first")
        await world.settled()
        assert world.groups.open_count == 4
        other.close()
        await world.settled()
        back = placed(await joined("back"))
        assert back.in_flight.unfinished() == []
        assert world.groups.open_count == 4
