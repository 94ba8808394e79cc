"""A broker without clients and sockets, and what stands in for them."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import replace
from typing import TypeVar

from broker.clients.asking import asking_of
from broker.clock import Alarm
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import (
    CursorDocument,
    Operation,
    Place,
    Put,
    SubscriptionDocument,
    WillDocument,
)
from broker.errors import StoreError, StoreFull
from broker.log.log import Log
from broker.log.waking import CURSOR_COMMIT_DELAY_S
from broker.message import Grant, Message, Offset, Outgoing
from broker.registry.access.logins import Logins
from broker.registry.access.permissions import Permissions
from broker.registry.access.quotas import Quotas
from broker.registry.access.users import Users
from broker.registry.administration import Administration
from broker.registry.brokers import Brokers
from broker.registry.elsewhere import Accounts, Elsewhere
from broker.registry.faces import Owner
from broker.registry.groups.groups import Groups
from broker.registry.groups.leased_again import LeasedAgain
from broker.registry.ownership import Shared
from broker.registry.references import References
from broker.registry.sessions import Sessions
from broker.registry.wills import Wills
from broker.session.session import Session
from broker.store import Read
from broker.store.memory import MemoryStore
from broker.store.shared.cluster import ClusterStore
from tests.support.clock import FakeClock
from tests.support.patience import PATIENCE_S

T = TypeVar("T")


def subscription(
    topic_filter: str = "t",
    qos: int = 1,
    *,
    client_id: str = "sub1",
    start: int = 0,
    until: int | None = None,
    no_local: bool = False,
    identifier: int | None = None,
    replaying: bool = False,
    retained_through: int = 0,
) -> SubscriptionDocument:
    return SubscriptionDocument(
        client_id,
        topic_filter,
        qos,
        no_local,
        retain_as_published=False,
        retain_handling=0,
        subscription_id=identifier,
        start_offset=Offset(start),
        until_offset=None if until is None else Offset(until),
        replaying=replaying,
        retained_through=Offset(retained_through),
    )


def payloads(outgoing: Sequence[Outgoing]) -> list[bytes]:
    return [message.payload for message, _ in outgoing]


class Disk(MemoryStore):
    """Can be full or broken, can be held up, and remembers commits and what was fetched."""

    def __init__(self, *, gaps: int = 0) -> None:
        super().__init__(gaps=gaps)
        self.full = False
        self.broken: StoreError | None = None
        self.commits: list[tuple[list[bytes], list[Operation], bool]] = []
        self.fetched: list[list[Message]] = []
        self.may_commit = asyncio.Event()
        self.may_commit.set()

    def backup(self) -> Disk:
        """Another one with the same content."""
        made = Disk()
        for name, value in vars(self.content).items():
            setattr(made.content, name, deepcopy(value))
        made.content.is_open = False
        return made

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        await self.may_commit.wait()
        if self.full:
            raise StoreFull("no space")
        if self.broken is not None:
            raise self.broken
        await super().append(batch, state, durable=durable, places=places)
        self.commits.append(([m.payload for m in batch], list(state), durable))

    async def fetch(self, offsets: Sequence[Offset], *, bytes_max: int = sys.maxsize) -> Read:
        read = await super().fetch(offsets, bytes_max=bytes_max)
        self.fetched.append(read.messages)
        return read


class Subscriber(Owner):
    """Takes what it gets, up to `limit` payload bytes at a time; acknowledges when told to."""

    def __init__(self, world: World, *, limit: int = 1 << 20) -> None:
        self.world = world
        self.limit = limit
        self.session: Session | None = None
        self.got: list[Outgoing] = []
        self.packet_ids: list[int] = []
        self.errors: list[Exception] = []
        self.lost = False
        self.takes_more = True
        self.payload_bytes_max = 1 << 30
        """Larger messages do not fit into the packets that it takes."""

    async def open(
        self,
        client_id: str = "sub1",
        *,
        clean_start: bool = False,
        expiry_s: int = 100,
        receive_maximum: int = 100,
        will: WillDocument | None = None,
    ) -> bool:
        """Returns Session Present."""
        self.session, present = await self.world.sessions.open(
            client_id,
            self,
            clean_start=clean_start,
            session_expiry_s=expiry_s,
            receive_maximum=receive_maximum,
            will=will,
            now=self.world.clock.now(),
        )
        return present

    def subscribe(self, document: SubscriptionDocument) -> None:
        assert self.session is not None
        self.world.delivery.subscribe(self.session, document)
        self.world.log.append([], operations=[Put(replace(document))])
        self.world.log.changed(self.session)

    def wake(self) -> None:
        session = self.session
        assert session is not None
        while self.limit and session.supply.waiting:
            taken = session.supply.take(0, self.limit)
            if not taken.outgoing:
                break
            self.got += taken.outgoing
            self.packet_ids += taken.packet_ids
            self.world.groups.settle(session)
        self.world.delivery.drained(session)
        self.world.groups.drained(session)

    async def acknowledge(self) -> None:
        """All it has. Returns when that is stored and what it made room for has come."""
        assert self.session is not None
        self.session.in_flight.puback(self.packet_ids)
        self.packet_ids = []
        self.world.log.changed(self.session)
        self.world.groups.settle(self.session)
        await self.world.flushed()
        self.wake()
        await self.world.settled()

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        session = self.session
        if session is None:
            return not outgoing
        if (
            not self.limit
            or session.supply.aside
            or (session.outbox and not session.supply.may_pass())
        ):
            return False
        self.got += outgoing
        return True

    @property
    def limits_packets(self) -> bool:
        return self.payload_bytes_max < 1 << 30

    def fits(self, message: Message, grant: Grant) -> bool:
        return len(message.payload) <= self.payload_bytes_max

    def broken(self, error: StoreError) -> None:
        self.errors.append(error)

    def failed(self, error: Exception) -> None:
        self.errors.append(error)

    def taken_over(self) -> None:
        self.lost = True
        self.close()

    def close(self) -> None:
        session, self.session = self.session, None
        if session is not None:
            self.world.groups.detach(session)
            self.world.sessions.close(session, self, self.world.clock.now())


def placed(of: Subscriber) -> Session:
    """The session of a subscriber that is there."""
    assert of.session is not None
    return of.session


class World:
    """What `Server` puts together, on a `Disk` and on a clock that stands still."""

    def __init__(
        self, disk: Disk, config: Config, clock: FakeClock, shared: ClusterStore | None = None
    ) -> None:
        self.disk = disk
        self.clock = clock
        self.alarm = Alarm(clock)
        self.counters = Counters()
        store = shared or disk
        ownership = None if shared is None else Shared(shared, clock)
        self.log = Log(store, self.counters, clock, append_bytes_max=config.append_bytes_max)
        self.users = Users(self.log)
        self.permissions = Permissions(self.log, self.users)
        self.logins = Logins(self.users, clock, config, self.alarm.deadline_moved)
        self.quotas = Quotas(self.log, self.users, self.alarm.deadline_moved)
        self.delivery = Delivery(self.log, self.counters, config, clock)
        moved = self.alarm.deadline_moved
        grace_s = config.will_restart_grace_s
        self.wills = Wills(self.log, self.counters, clock, moved, restart_grace_s=grace_s)
        self.sessions = Sessions(self.log, self.delivery, self.wills, config, moved, ownership)
        self.asking = asking_of(config, self.log, clock, self.counters, moved)
        self.groups = Groups(
            self.log, self.delivery, self.sessions, self.counters, config, clock, moved
        )
        asking = self.asking
        self.alarm.watch(
            self.wills, self.sessions.expiry, self.groups.times, asking.delayed, asking.dedup
        )
        self.alarm.watch(self.logins, self.quotas.slowing)
        self.sessions.kept.quota_of = self.quotas.of
        self.references = References(config)
        self.sessions.kept.full = self.references.full
        self.wills.may_publish = asking.delayed.may_publish = self.permissions.may_publish
        self.wills.retained = asking.delayed.retained = self.quotas.retained
        self.brokers = None
        if shared is not None:
            self.brokers = Brokers(
                shared, clock, self.sessions, asking.delayed, self.groups, self.references
            )
            self.elsewhere = Elsewhere(
                *(shared, self.log, self.sessions, self.groups, asking.dedup),
                Accounts(self.users, self.permissions, self.quotas),
                clock,
            )
        self.administration = Administration(
            self.log, self.delivery, self.sessions, self.groups, self.counters, clock
        )

    async def publish(self, *messages: Message) -> None:
        """Returns when they are stored and routed."""
        self.log.append(messages)
        await self.settled()

    def is_live(self, of: Subscriber) -> bool:
        return placed(of).position is self.delivery.live

    async def passing_time(self, awaited: Awaitable[T]) -> T:
        """Wait for this; time passes as far as that needs it."""
        async with asyncio.timeout(PATIENCE_S):
            future = asyncio.ensure_future(awaited)
            while not future.done():
                for _ in range(20):
                    await asyncio.sleep(0)
                if not future.done():
                    self.clock.advance(CURSOR_COMMIT_DELAY_S)
            return await future

    async def flushed(self) -> None:
        """Return when nothing waits for the log."""
        await self.passing_time(self.log.flushed())

    async def settled(self) -> None:
        await self.flushed()
        async with asyncio.timeout(PATIENCE_S):
            while self.delivery.live.through < self.disk.high_watermark:  # noqa: ASYNC110  No event.
                await asyncio.sleep(0)
        for _ in range(20):  # What readers do takes turns, and none of it waits for anything else.
            await asyncio.sleep(0)


@asynccontextmanager
async def running(
    disk: Disk,
    config: Config | None = None,
    clock: FakeClock | None = None,
    shared: ClusterStore | None = None,
) -> AsyncIterator[World]:
    """A broker from start to crash: nothing is saved at the end that was not before. Where the log
    is `shared`, `disk` is the copy."""
    await (shared or disk).open()
    clock = clock or FakeClock()
    world = World(disk, config or Config(), clock, shared)
    await world.log.start()
    await world.users.start()
    await world.permissions.start(world.delivery, LeasedAgain(world.groups))
    await world.groups.start()
    await world.sessions.start(clock.now())
    await world.wills.start(world.sessions.ownership)
    await world.asking.start()
    world.wills.listening(world.sessions.has_durable, clock.now())
    before = asyncio.all_tasks()
    working: set[asyncio.Task[None]] = set()
    for work in (
        world.log.commit_forever(),
        world.delivery.deliver_forever(),
        world.alarm.expire_forever(),
        world.wills.publish_forever(),
        world.asking.delayed.publish_forever(),
        world.groups.dead_letters.tell_forever(),
        *([world.elsewhere.read_accounts_forever()] if shared is not None else []),
    ):
        working.add(asyncio.create_task(work))
    try:
        yield world
    finally:
        world.logins.stop()
        tasks = asyncio.all_tasks() - before - {asyncio.current_task()}
        if shared is not None:
            tasks &= working  # The others may be those of brokers that were started later.
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def leave_in_flight(world: World, *messages: Message, qos: int = 1) -> None:
    """A connection of `sub1` was sent these, acknowledged none and is gone."""
    earlier = Subscriber(world)
    await earlier.open()
    earlier.subscribe(subscription(qos=qos))
    await world.publish(*messages)
    assert len(earlier.got) == len(messages)
    earlier.close()
    await world.settled()


async def cursor(world: World, client_id: str = "sub1") -> Offset:
    await world.settled()
    document = await world.disk.get(CursorDocument, (client_id,))
    return Offset(0) if document is None else document.offset
