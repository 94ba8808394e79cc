"""No message reaches a client whose rules do not allow its topic, whatever the order of events.

Clients of three users connect, subscribe in every way that there is, publish, stall, acknowledge,
vanish and come back, while rules come and go. Each PUBLISH that the broker writes is held to the
rules of that moment.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from broker.mqtt.packets import Will
from tests.support.clock import FakeClock
from tests.support.permitted import VERSIONS, PermittedClient, allow, make_user, take_back
from tests.support.world import Disk, World, running

USERS = {"c1": "anna", "c2": "ben", "c3": "ben"}
FILTERS = ["#", "a/#", "b/1", "+/1", "a/2"]
ASKED = [
    *FILTERS,
    *[f"$share/g/{topic_filter}" for topic_filter in ("#", "a/#")],
    *[f"$replay/earliest/{topic_filter}" for topic_filter in ("#", "a/+")],
    *("$SYS/#", "$dead/#"),
]
RULES = [
    *("allow subscribe #", "allow subscribe a/#", "allow subscribe %c/#", "allow subscribe $SYS/#"),
    *("deny subscribe a/#", "deny subscribe b/1", "deny subscribe +/1", "deny subscribe #"),
    *("allow read-history a/#", "allow read-history #", "allow publish a/1"),
]

CLIENTS = st.sampled_from([*USERS])
PUBLISHED = st.sampled_from(["a/1", "a/2", "b/1"])
Step = tuple[str, *tuple[object, ...]]
KINDS: dict[str, tuple[int, st.SearchStrategy[tuple[object, ...]]]] = {
    "publish": (6, st.tuples(PUBLISHED, st.integers(0, 2), st.booleans())),
    "rule": (5, st.tuples(st.sampled_from(["anna", "ben"]), st.sampled_from(RULES))),
    "acknowledge": (3, st.tuples(CLIENTS)),
    "pass": (3, st.tuples(st.sampled_from([0.0, 0.0, 1.5, 40.0]))),
    "subscribe": (2, st.tuples(CLIENTS, st.sampled_from(ASKED), st.integers(0, 2))),
    "connect": (2, st.tuples(CLIENTS, st.sampled_from(VERSIONS), st.booleans(), st.booleans())),
    "stall": (2, st.tuples(CLIENTS, st.booleans())),
    "delayed": (1, st.tuples(PUBLISHED)),
    "leave": (1, st.tuples(CLIENTS, st.booleans())),
}
"""How often each is drawn, and what of."""
STEPS: st.SearchStrategy[Step] = st.sampled_from(
    [name for name, (often, _) in KINDS.items() for _ in range(often)]
).flatmap(lambda name: KINDS[name][1].map(lambda arguments: (name, *arguments)))


class Story:
    def __init__(self, world: World, clock: FakeClock) -> None:
        self.world = world
        self.clock = clock
        self.clients: dict[str, PermittedClient] = {}
        self.all: list[PermittedClient] = []
        self.rules: set[tuple[str, str]] = set()

    async def begin(self) -> None:
        for user in ("anna", "ben"):
            await make_user(self.world, user)
            await self._rule(user, "allow subscribe #")
            await self._rule(user, "allow read-history a/#")
            await self._rule(user, "allow publish a/1")  # For the Wills.
        await make_user(self.world, "root", roles="admin")
        self.publisher = PermittedClient(self.world, "root", client_id="p")
        assert await self.publisher.connected() == 0
        for number, client_id in enumerate(USERS):
            await self._connect(client_id, VERSIONS[number % 2], False, True)
            assert not self.clients[client_id].transport.closed.is_set()
            await self._subscribe(client_id, "$share/g/#" if number else "#", 2)

    async def do(self, step: Step) -> None:
        name, *arguments = step
        await getattr(self, f"_{name}")(*arguments)
        await asyncio.sleep(0)

    async def _rule(self, user: str, text: str) -> None:
        if (user, text) in self.rules:
            await take_back(self.world, user, text)
        else:
            await allow(self.world, user, text)
        self.rules ^= {(user, text)}

    async def _connect(self, client_id: str, version: int, clean: bool, leaves_will: bool) -> None:
        client = PermittedClient(self.world, USERS[client_id], version, client_id)
        self.clients[client_id] = client
        self.all.append(client)
        will = Will("a/1", b"will", 1, True) if leaves_will else None
        client.connect(clean=clean, will=will)
        await self.world.settled()

    async def _subscribe(self, client_id: str, topic_filter: str, qos: int) -> None:
        if client_id in self.clients:
            self.clients[client_id].subscribe(topic_filter, qos=qos)

    async def _publish(self, topic: str, qos: int, retain: bool) -> None:
        self.publisher.publish(topic, qos, retain=retain)

    async def _delayed(self, topic: str) -> None:
        self.publisher.publish(f"$delayed/1/{topic}")

    async def _stall(self, client_id: str, yes: bool) -> None:
        if client_id in self.clients:
            self.clients[client_id].stall(yes=yes)

    async def _acknowledge(self, client_id: str) -> None:
        if client_id in self.clients:
            self.clients[client_id].acknowledge()

    async def _leave(self, client_id: str, lost: bool) -> None:
        if client_id in self.clients:
            self.clients[client_id].leave(lost=lost)

    async def _pass(self, seconds: float) -> None:
        await self.world.settled()
        self.clock.advance(seconds)
        await self.world.settled()

    async def end(self) -> None:
        """All that is still on its way comes, or does not."""
        for client in self.clients.values():
            client.stall(yes=False)
        for _ in range(20):
            await self._pass(1.0)
            for client in self.clients.values():
                client.acknowledge()


async def tell(steps: Sequence[Step]) -> Story:
    clock = FakeClock()
    async with running(Disk(), clock=clock) as world:
        story = Story(world, clock)
        await story.begin()
        for step in steps:
            await story.do(step)
        await story.end()
        assert [client.forbidden for client in story.all if client.forbidden] == []
    return story


@given(st.lists(STEPS, min_size=30, max_size=90))
def test_nothing_reaches_who_may_not_read_it(steps: list[Step]) -> None:
    asyncio.run(tell(steps))
