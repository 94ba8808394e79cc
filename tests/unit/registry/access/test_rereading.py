"""What other brokers have changed is read again, and what is changed here meanwhile stays."""

from __future__ import annotations

import asyncio
from typing import Any

from broker.documents import UserDocument
from broker.message import WallUs
from broker.security.quotas import Quota
from broker.security.rules import Holder, Right, Rule
from tests.support.two_brokers import two_brokers

USER = UserDocument("u", "p", "", "", WallUs(1), WallUs(1))


async def test_what_is_changed_here_while_that_of_others_is_read_stays() -> None:
    async with two_brokers() as (a, b):
        for world in (a, b):
            await world.permissions.start()
        scan, may_go_on = b.disk.scan, asyncio.Event()
        b.disk.scan = slowly(scan, may_go_on)  # type: ignore[method-assign]
        b.disk.get = slowly(b.disk.get, may_go_on)  # type: ignore[method-assign]
        readings = [
            asyncio.create_task(reading)
            for reading in (
                b.users.read_again({"u"}),
                b.permissions.read_again(),
                b.quotas.read_again(),
            )
        ]
        rule = Rule(Holder("u"), allow=True, right=Right.PUBLISH, filter="t")
        await b.passing_time(b.permissions.add([rule]))
        await b.passing_time(b.users.put(USER))
        await b.passing_time(b.quotas.put("user", "u", Quota(connections=3)))
        may_go_on.set()
        await asyncio.wait(readings)
        assert b.users.get("u") == USER
        assert b.permissions.listed() == [rule]
        assert b.quotas.of("u").connections == 3


def slowly(scan: Any, may_go_on: asyncio.Event) -> Any:
    """It reads at once, and answers later."""

    async def scanned(*args: Any) -> Any:
        found = await scan(*args)
        await may_go_on.wait()
        return found

    return scanned
