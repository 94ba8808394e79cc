"""Sessions, log and delivery against a model, through drops, takeovers, crashes and full disks.

The broker's own objects run on a real store; around them is what a `Client` does, without bytes.
The model is what each device saw and answered, and what it has subscribed to:

- a durable subscriber gets every matching message above its start, in the order of its topic, at
  least once; what came as QoS 2 comes once; nothing comes that it did not ask for. (P3)
- QoS 0 comes at most once, also as it comes, before its commit; after a crash it does not come
  again if it was handed on like that and is in the log; what is not in the log is lost. (P9)
- what was acknowledged does not come again; after a crash, at most a window of it. (P4)
- no stored cursor speaks for a message that was not acknowledged.
- what a publisher was acknowledged is stored, QoS 2 once, in the publisher's order. (P1)

A crash forgets every object and keeps the store, at whatever await the machine happens to be.
"""

from __future__ import annotations

import asyncio
import math
import tempfile
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from broker.clock import Alarm
from broker.config import Config
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.documents import (
    CursorDocument,
    Delete,
    InFlightDocument,
    Operation,
    Place,
    Put,
    SessionDocument,
    SubscriptionDocument,
)
from broker.errors import StoreError, StoreFull
from broker.log.batch import nobody_waits
from broker.log.log import Log
from broker.message import Message, Offset, Outgoing
from broker.registry.faces import Owner
from broker.registry.sessions import Sessions
from broker.registry.wills import Wills
from broker.session.cursor import listed
from broker.session.exchange import Stage
from broker.session.session import Session
from broker.store import Store
from broker.store.memory import MemoryStore
from broker.store.sqlite.store import SqliteStore
from broker.topics import matches
from tests.support.clock import FakeClock
from tests.support.patience import PATIENCE_S
from tests.support.quick_disk import quick_disk

INFLIGHT_MAX = 4
EXPIRY_S = 1000
TOPICS = ("t/a", "t/b", "u")
FILTERS = {"t/+": 1, "t/a": 2, "#": 1, "u": 2, "t/b": 0}
"""And the QoS that each is subscribed with."""
GENERAL = ("a", "b")
REPLAYER = "r"
VISITOR = "v"
"""Its sessions end with the connection."""
DURABLE = (*GENERAL, REPLAYER)
DEVICES = (*DURABLE, VISITOR)

TURNS = st.sampled_from((0, 0, 1, 2, 3, 5, 20))
"""Of the loop."""

T = TypeVar("T")


class CrashableStore(Protocol):
    """A store that can be full, and that can be left as a crash leaves it."""

    full: bool

    async def crash(self) -> None: ...


class CrashableMemoryStore(MemoryStore):
    full = False
    _heard = True

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        await asyncio.sleep(0)  # So that a crash can come before it is stored, and after.
        if self.full:
            raise StoreFull("no space")
        self._heard = False
        try:
            await super().append(batch, state, durable=durable, places=places)
            await asyncio.sleep(0)
        finally:
            self._heard = True
            self._wake()

    def _wake(self) -> None:
        if self._heard:  # As the broker expects, it hears of an append before `tail` gives it.
            super()._wake()

    async def crash(self) -> None:
        pass


class CrashableSqliteStore(SqliteStore):
    full = False

    async def append(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation] = (),
        *,
        durable: bool = True,
        places: Sequence[Place] = (),
    ) -> None:
        if self.full:
            raise StoreFull("no space")
        await super().append(batch, state, durable=durable, places=places)

    def append_now(
        self,
        batch: Sequence[Message],
        state: Sequence[Operation],
        *,
        durable: bool,
        places: Sequence[Place],
        committed: Callable[[], None],
    ) -> bool:
        if self.full:
            raise StoreFull("no space")
        return super().append_now(batch, state, durable=durable, places=places, committed=committed)

    async def crash(self) -> None:
        self._failure = "crashed"  # So that `close` does not count as a clean stop.
        await self.close()


@dataclass
class Device:
    """The far end: what a correct client remembers, also while it is not connected."""

    name: str
    filters: dict[str, Offset] = field(default_factory=dict)
    """Subscribed since when."""
    ended: list[tuple[str, Offset, Offset]] = field(default_factory=list)
    """Subscriptions of the past: what they were owed may still come."""
    unsure: Counter[str] = field(default_factory=Counter)
    """How many SUBACKs and UNSUBACKs are due for a filter: a crash may bring either."""
    session: bool = False
    processed: dict[Offset, int] = field(default_factory=dict)
    """Offsets that came, with the QoS of the first time, in order of arrival."""
    newest: dict[tuple[str, bool], Offset] = field(default_factory=dict)
    """Of a topic, of QoS 0 or not: the order of these two is another. [MQTT-4.6.0-6]"""
    early: list[Message] = field(default_factory=list)
    """Came before their commit, and so have no offset yet, or had none when they came."""
    catching_up: list[Message] = field(default_factory=list)
    """Of these, what came when its commit had begun: the cursor says so one commit later."""
    held: dict[int, Offset] = field(default_factory=dict)
    """QoS 2 messages that are not released, by Packet Identifier."""
    answers: list[tuple[str, int, Offset]] = field(default_factory=list)
    """Due to the broker: kind, Packet Identifier, offset."""
    acknowledged: set[Offset] = field(default_factory=set)
    """By answers that reached the broker, or at QoS 0 by arriving; what a crash may have undone
    not included."""
    answered: set[Offset] = field(default_factory=set)
    """That included."""
    firm: set[Offset] = field(default_factory=set)
    """Of those, what not even a crash may bring back: a clean stop came after."""
    at_crash: set[Offset] = field(default_factory=set)
    repeats: int = 0
    repeats_max: float = INFLIGHT_MAX

    sent: int = 0
    unacknowledged: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    """QoS 2 messages without PUBREC, by Packet Identifier: payload and topic."""
    unreleased: list[int] = field(default_factory=list)
    accepted: list[tuple[bytes, int]] = field(default_factory=list)
    """Acknowledged to this publisher: payload and QoS."""

    def forget(self) -> None:
        """The session is over."""
        self.filters, self.ended, self.unsure, self.session = {}, [], Counter(), False
        self.processed, self.held, self.answers = {}, {}, []
        self.newest, self.early, self.catching_up = {}, [], []
        self.acknowledged, self.answered, self.firm = set(), set(), set()
        self.at_crash, self.repeats, self.repeats_max = set(), 0, INFLIGHT_MAX
        self.unacknowledged, self.unreleased = {}, []

    def wants(self, message: Message) -> int | None:
        """The QoS at which this is owed; None: it is not."""
        granted = [
            FILTERS[topic_filter]
            for topic_filter, start in self.filters.items()
            if start < message.offset and matches(topic_filter, message.topic)
        ]
        return min(message.qos, max(granted)) if granted else None

    def may_get(self, message: Message) -> bool:
        return self.wants(message) is not None or any(
            start < message.offset <= end and matches(topic_filter, message.topic)
            for topic_filter, start, end in self.ended
        )

    def publish_early(self, message: Message, *, commit_begun: bool) -> None:
        """A PUBLISH of QoS 0 arrives, before its commit is over."""
        assert message not in self.early, f"{self.name}: {message} came again"
        matching = [f for f in self.filters if matches(f, message.topic)]
        ended = [f for f, _, _ in self.ended if matches(f, message.topic)]
        assert matching or ended, f"{self.name} did not ask for {message}"
        self.early.append(message)
        if commit_begun:
            self.catching_up.append(message)

    def settle_early(self) -> None:
        """Some of these are committed: they have come, and not even a crash may bring them back."""
        done = [m for m in self.early if m.offset]
        self.early = [m for m in self.early if not m.offset]
        for message in done:
            offset = message.offset
            assert offset not in self.processed, f"{self.name}: {message} came again"
            self._in_order(message, 0)
            self.processed[offset] = 0
            self.acknowledge(offset)
            if message not in self.catching_up:
                self.firm.add(offset)  # The cursor is in the same commit.

    def _in_order(self, message: Message, qos: int) -> None:
        of = message.topic, message.qos > 0
        assert message.offset > self.newest.get(of, 0), f"{self.name}: {message} comes late"
        self.newest[of] = message.offset

    def publish(self, message: Message, qos: int, packet_id: int) -> None:
        """A PUBLISH arrives."""
        self.settle_early()
        offset = message.offset
        assert self.may_get(message), f"{self.name} did not ask for {message}"
        assert offset not in self.acknowledged, f"{self.name} had acknowledged {message}"
        if offset in self.at_crash:
            self.at_crash.discard(offset)
            self.repeats += qos > 0
            assert self.repeats <= self.repeats_max, f"{self.name}: more than a window is repeated"
        if qos == 2 and packet_id in self.held:
            assert self.held[packet_id] == offset, "the identifier is held for another message"
        elif offset not in self.processed:
            self._in_order(message, qos)
            self.processed[offset] = qos
        else:
            assert self.processed[offset] < 2, f"{self.name}: {message} came again as QoS {qos}"
        if qos == 0:
            self.acknowledge(offset)
        elif qos == 1:
            self.answers.append(("puback", packet_id, offset))
        else:
            self.held[packet_id] = offset
            self.answers.append(("pubrec", packet_id, offset))

    def acknowledge(self, offset: Offset) -> None:
        self.acknowledged.add(offset)
        self.answered.add(offset)

    def pubrel(self, packet_id: int) -> None:
        self.answers.append(("pubcomp", packet_id, self.held.pop(packet_id, Offset(0))))


class Link(Owner):
    """One connection of a device: what `Client` does, without bytes."""

    def __init__(self, broker: BrokerUnderTest, device: Device) -> None:
        self.broker = broker
        self.device = device
        self.session: Session | None = None
        self.resent = False
        self.held: deque[tuple[list[Outgoing], list[int]]] = deque()

    async def connect(self, *, clean_start: bool, session_expiry_s: int) -> bool:
        self.session, present = await self.broker.sessions.open(
            self.device.name,
            self,
            clean_start=clean_start,
            session_expiry_s=session_expiry_s,
            receive_maximum=3,
            will=None,
            now=self.broker.clock.now(),
        )
        return present

    async def resend(self) -> None:
        session = self.session
        assert session is not None
        unfinished = session.in_flight.unfinished()
        read = await self.broker.store.fetch([entry.offset for entry in unfinished])
        stored = read.messages
        if self.session is None:
            return
        messages = {message.offset: message for message in stored}
        for entry in unfinished:
            if entry.stage is Stage.RELEASED:
                self.device.pubrel(entry.packet_id)
            else:
                qos = 1 if entry.stage is Stage.SENT_QOS1 else 2
                self.device.publish(messages[entry.offset], qos, entry.packet_id)
        self.resent = True
        self.wake()

    def wake(self) -> None:
        session, log = self.session, self.broker.log
        if session is None or not self.resent:
            return
        while session.supply.waiting:
            taken = session.supply.take(0, 100)
            outgoing, packet_ids = taken.outgoing, taken.packet_ids
            if not outgoing:
                break
            if session.durable and 0 in packet_ids:
                log.changed(session)
            if self.held or taken.held:
                self.held.append((outgoing, packet_ids))
                log.changed(session, self._send_held)
            else:
                self._send(outgoing, packet_ids)
        self.broker.delivery.drained(session)

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        session = self.session
        if session is None or not self.resent or self.held or session.supply.aside:
            return False
        if session.outbox and not session.supply.may_pass():
            return False
        running = self.broker.log._running
        committing = [] if running is None else [m for a in running.appends for m in a.messages]
        for message, _ in outgoing:
            commit_begun = message.offset > 0 or message in committing
            self.device.publish_early(message, commit_begun=commit_begun)
        return True

    def _send_held(self, error: StoreError | None) -> None:
        if error is None and self.session is not None:
            self._send(*self.held.popleft())

    def _send(self, outgoing: list[Outgoing], packet_ids: list[int]) -> None:
        for (message, grant), packet_id in zip(outgoing, packet_ids, strict=True):
            self.device.publish(message, min(message.qos, grant.qos), packet_id)

    def answer(self, kind: str, packet_id: int, offset: Offset) -> None:
        session, log = self.session, self.broker.log
        assert session is not None
        if kind == "pubrec":
            assert session.in_flight.pubrec([packet_id], refused=False) == [packet_id]
            self.device.acknowledge(offset)
            if session.durable:
                log.changed(session, lambda error: self._release(packet_id, error))
            else:
                self._release(packet_id, None)
            return
        if kind == "puback":
            session.in_flight.puback([packet_id])
            self.device.acknowledge(offset)
        else:
            session.in_flight.pubcomp([packet_id])
        window = session.in_flight
        if session.durable and 2 * window.repeatable.uncommitted < window.inflight_max:
            log.unhurried.add(session, lambda error: self.wake(), nobody_waits)
        elif session.durable:
            log.changed(session, lambda error: self.wake(), urgent=False)
        self.wake()

    def _release(self, packet_id: int, error: StoreError | None) -> None:
        if error is None and self.session is not None:
            self.device.pubrel(packet_id)

    def publish(self, packet_id: int, payload: bytes, topic: str, qos: int) -> None:
        session, log, device = self.session, self.broker.log, self.device
        assert session is not None
        messages = [Message(topic, payload, qos, False, device.name, 0)]
        if qos == 2 and not session.received.receive(packet_id):
            messages = []

        def committed(error: StoreError | None) -> None:
            if isinstance(error, StoreFull):
                if messages and qos == 2:
                    session.received.release([packet_id])
                device.unacknowledged.pop(packet_id, None)
            elif error is None and qos < 2:
                device.accepted.append((payload, qos))
            elif error is None and self.session is not None:
                device.accepted.append((payload, qos))
                del device.unacknowledged[packet_id]
                device.unreleased.append(packet_id)

        if qos == 0:
            log.append(messages, durable=False)
            return
        log.append(messages, committed, keep_if_full=device.name != "a" or not messages)
        if qos == 2 and session.durable:
            log.changed(session)

    def release(self, packet_id: int) -> None:
        """The device's PUBREL."""
        session, device = self.session, self.device
        assert session is not None
        session.received.release([packet_id])

        def saved(error: StoreError | None) -> None:
            if error is None and self.session is not None and packet_id in device.unreleased:
                device.unreleased.remove(packet_id)

        self.broker.log.changed(session, saved)

    def subscribe(self, topic_filter: str, start: Offset, *, replaying: bool) -> None:
        session, device = self.session, self.device
        assert session is not None
        subscription = SubscriptionDocument(
            device.name,
            topic_filter,
            FILTERS[topic_filter],
            no_local=False,
            retain_as_published=False,
            retain_handling=0,
            subscription_id=None,
            start_offset=start,
            replaying=replaying,
        )
        self.broker.delivery.subscribe(session, subscription)
        device.filters[topic_filter] = start
        self._commit(topic_filter, Put(subscription))

    def unsubscribe(self, topic_filter: str) -> None:
        session, device = self.session, self.device
        assert session is not None
        self.broker.delivery.unsubscribe(session, topic_filter)
        start = device.filters.pop(topic_filter)
        device.ended.append((topic_filter, start, self.broker.store.high_watermark))
        self._commit(topic_filter, Delete(SubscriptionDocument, (device.name, topic_filter)))

    def _commit(self, topic_filter: str, operation: Operation) -> None:
        session, device = self.session, self.device
        assert session is not None
        if not session.durable:
            return

        def committed(error: StoreError | None) -> None:
            assert error is None
            device.unsure[topic_filter] -= 1

        device.unsure[topic_filter] += 1
        self.broker.log.append([], committed, operations=[operation])
        self.broker.log.changed(session)

    def broken(self, error: StoreError) -> None:
        raise AssertionError(error)

    def failed(self, error: Exception) -> None:
        raise AssertionError(error)

    def taken_over(self) -> None:
        self.drop()

    def drop(self) -> None:
        """The connection is lost."""
        session, self.session = self.session, None
        self.device.answers.clear()
        if session is not None:
            self.broker.sessions.close(session, self, self.broker.clock.now())


class BrokerUnderTest:
    """What `Server` puts together."""

    def __init__(self, store: Store, clock: FakeClock) -> None:
        config = Config(
            inflight_max=INFLIGHT_MAX, outbox_messages_max=5, outbox_bytes_max=200, sessions_max=10
        )
        self.store = store
        self.clock = clock
        self.alarm = Alarm(clock)
        self.log = Log(store, Counters(), clock, append_bytes_max=10_000)
        self.delivery = Delivery(self.log, Counters(), config, clock)
        moved = self.alarm.deadline_moved
        self.wills = Wills(self.log, Counters(), clock, moved, restart_grace_s=0)
        self.sessions = Sessions(self.log, self.delivery, self.wills, config, moved)
        self.alarm.watch(self.wills, self.sessions.expiry)
        self.tasks: list[asyncio.Task[None]] = []
        self.links: dict[str, Link] = {}

    async def start(self) -> None:
        await self.sessions.start(self.clock.now())
        for work in (
            self.log.commit_forever(),
            self.delivery.deliver_forever(),
            self.alarm.expire_forever(),
            self.wills.publish_forever(),
            self._let_time_pass(),
        ):
            self.tasks.append(asyncio.create_task(work))

    async def _let_time_pass(self) -> None:
        """A millisecond in each turn of the loop, or of the store's thread."""
        while True:
            await asyncio.sleep(0 if isinstance(self.store, MemoryStore) else 0.0003)
            self.clock.advance(0.001)


class SessionMachine(RuleBasedStateMachine):
    def __init__(self, store: Store) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.store = store
        self.clock = FakeClock()
        self.devices = {name: Device(name) for name in DEVICES}
        self.was_full = False
        """The disk, since the last clean stop. Subscribers are served on while it is full, so that
        after a crash more than a window may be repeated (P4)."""

    @property
    def disk(self) -> CrashableStore:
        disk: Any = self.store
        return disk  # type: ignore[no-any-return]

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(coroutine)

    @initialize()
    def begin(self) -> None:
        self.run(self._open())
        for name in GENERAL:
            self.connect(name, clean_start=False)
            self.subscribe(name, "t/+" if name == "a" else "t/a")

    async def _open(self) -> None:
        await self.store.open()
        self.broker = BrokerUnderTest(self.store, self.clock)
        await self.broker.start()

    # What happens

    def _let_pass(self, turns: int) -> None:
        async def turn() -> None:
            for _ in range(turns):
                await asyncio.sleep(0 if isinstance(self.store, MemoryStore) else 0.0003)

        self.run(turn())

    @rule(
        name=st.sampled_from(DEVICES),
        many=st.integers(1, 8),
        qos=st.sampled_from((0, 1, 2, 2)),
        topic=st.sampled_from(TOPICS),
        turns=TURNS,
    )
    def publish(self, name: str, many: int, qos: int, topic: str, turns: int) -> None:
        link, device = self.broker.links.get(name), self.devices[name]
        if link is None:
            return
        for _ in range(many):
            device.sent += 1
            payload = b"%s %06d" % (name.encode(), device.sent)
            taken = {*device.unacknowledged, *device.unreleased}
            packet_id = next(i for i in range(1, 1000) if i not in taken) if qos == 2 else 0
            if qos == 2:
                device.unacknowledged[packet_id] = payload, topic
            self._act(lambda p=payload, i=packet_id: link.publish(i, p, topic, qos))
        self._let_pass(turns)

    @rule(name=st.sampled_from(DEVICES))
    def release(self, name: str) -> None:
        link = self.broker.links.get(name)
        if link is not None:
            for packet_id in list(self.devices[name].unreleased):
                self._act(lambda i=packet_id: link.release(i))

    @rule(
        names=st.sets(st.sampled_from(DEVICES), min_size=1),
        many=st.integers(1, 12),
        first=st.sampled_from((0, 0, 1, 2)),
        turns=TURNS,
    )
    def answer(self, names: set[str], many: int, first: int, turns: int) -> None:
        """Leaving out the first ones: also in another order than the messages came."""
        for _ in range(many):
            for name in sorted(names & self.broker.links.keys()):
                link, device = self.broker.links[name], self.devices[name]
                if first < len(device.answers):
                    due = device.answers.pop(first)
                    self._act(lambda due=due, link=link: link.answer(*due))
            self._let_pass(turns)

    @rule(name=st.sampled_from(DEVICES), clean_start=st.sampled_from((False,) * 7 + (True,)))
    def connect(self, name: str, clean_start: bool) -> None:
        """Also when it is connected: that is a takeover."""
        device = self.devices[name]
        durable = name != VISITOR
        self.broker.links.pop(name, None)
        link = Link(self.broker, device)
        try:
            present = self.run(
                link.connect(clean_start=clean_start, session_expiry_s=EXPIRY_S if durable else 0)
            )
        except StoreFull:
            assert self.disk.full
            if not durable:
                device.forget()
            return
        if not durable or clean_start:
            device.forget()
        assert present == device.session, f"{name}: session present is {present}"
        device.session = durable
        self.broker.links[name] = link
        self.run(link.resend())
        if not present:
            device.unacknowledged.clear()
            device.unreleased.clear()
        for packet_id in list(device.unreleased):
            self._act(lambda i=packet_id: link.release(i))
        for packet_id, (payload, topic) in list(device.unacknowledged.items()):
            self._act(lambda i=packet_id, p=payload, t=topic: link.publish(i, p, t, 2))

    @rule(name=st.sampled_from((*GENERAL, VISITOR)), topic_filter=st.sampled_from([*FILTERS]))
    def subscribe(self, name: str, topic_filter: str) -> None:
        link, device = self.broker.links.get(name), self.devices[name]
        if link is not None and topic_filter not in device.filters:
            start = self.store.high_watermark
            self._act(lambda: link.subscribe(topic_filter, start, replaying=False))

    @rule(back=st.integers(0, 20))
    def replay(self, back: int) -> None:
        """Its only subscription, so that nothing is owed to it twice."""
        link, device = self.broker.links.get(REPLAYER), self.devices[REPLAYER]
        if link is not None and not device.filters and not device.ended:
            start = Offset(max(0, self.store.high_watermark - back))
            self._act(lambda: link.subscribe("t/a", start, replaying=True))

    @rule(name=st.sampled_from(GENERAL), topic_filter=st.sampled_from([*FILTERS]))
    def unsubscribe(self, name: str, topic_filter: str) -> None:
        link = self.broker.links.get(name)
        if link is not None and topic_filter in self.devices[name].filters:
            self._act(lambda: link.unsubscribe(topic_filter))

    @rule(name=st.sampled_from(DEVICES))
    def drop(self, name: str) -> None:
        link = self.broker.links.pop(name, None)
        if link is not None:
            self._act(link.drop)
            if name == VISITOR:
                self.devices[name].forget()

    @rule(what=st.sampled_from(("fill", "empty", "stop", "expire")), name=st.sampled_from(DURABLE))
    def disturb(self, what: str, name: str) -> None:
        if what == "stop":
            self._stop_and_start()
        elif what == "expire" and not self.disk.full:
            self._expire(name)
        else:
            self.disk.full = what == "fill"
            self.was_full |= self.disk.full

    def _expire(self, name: str) -> None:
        """It stays away for longer than its session lasts, and the others do not."""
        if name in self.broker.links or not self.devices[name].session:
            return
        away = [other for other in DURABLE if other not in self.broker.links and other != name]
        for other in away:
            if self.devices[other].session:
                self.connect(other, clean_start=False)
        before = self.broker.sessions.kept.client_count

        async def gone() -> None:
            self.clock.advance(EXPIRY_S + 1)  # Sessions expire on whole seconds.
            async with asyncio.timeout(PATIENCE_S):
                while self.broker.sessions.kept.client_count == before:  # noqa: ASYNC110  No event.
                    await asyncio.sleep(0.001)
                await self.broker.log.flushed()

        self.run(gone())
        self.devices[name].forget()

    def _stop_and_start(self) -> None:
        """A clean stop, as `Server.stop` does it."""
        self.disk.full = False

        async def stop() -> None:
            async with asyncio.timeout(PATIENCE_S):
                await self.broker.log.flushed()
                for link in self.broker.links.values():
                    link.drop()
                await self.broker.log.flushed()
            await self._check_cursors()
            await self._end_tasks()
            await self.store.close()

        self.run(stop())
        for device in self.devices.values():
            device.firm = set(device.acknowledged)
            assert not +device.unsure
        self.was_full = False
        self.devices[VISITOR].forget()
        self.run(self._open())

    @rule()
    def crash_and_start(self) -> None:
        async def crash() -> None:
            await self._end_tasks()
            self.devices[VISITOR].forget()
            await self.disk.crash()
            await self._open()
            await self._check_cursors()
            for device in self.devices.values():
                device.settle_early()
                device.early.clear()  # Lost: it was not logged yet.
                device.answers.clear()
                device.at_crash |= device.acknowledged - device.firm
                device.acknowledged, device.repeats = set(device.firm), 0
                if self.was_full:
                    device.repeats_max = math.inf
                await self._settle_doubts(device)

        self.run(crash())

    async def _settle_doubts(self, device: Device) -> None:
        """What was not answered before the crash may have been done, or not."""
        stored = await self.store.scan(SubscriptionDocument, (device.name,))
        unsure = +device.unsure
        assert device.filters.keys() - unsure.keys() <= {s.filter for s in stored}
        for topic_filter in unsure:
            start = device.filters.pop(topic_filter, None)
            if start is not None:
                device.ended.append((topic_filter, start, self.store.high_watermark))
        for subscription in stored:
            starts = [start for f, start, _ in device.ended if f == subscription.filter]
            if subscription.filter not in device.filters:
                assert subscription.filter in unsure
                device.filters[subscription.filter] = starts[-1]
        device.unsure.clear()

    async def _end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def _act(self, action: Any) -> None:
        """In the loop, as what comes from a socket is."""

        async def act() -> None:
            action()

        self.run(act())

    # What must be true

    @invariant()
    def the_broker_runs(self) -> None:
        for task in self.broker.tasks:
            assert not task.done() or task.result() is None

    async def _check_cursors(self) -> None:
        log = await self._stored()
        for name in GENERAL:
            device = self.devices[name]
            cursor = await self.store.get(CursorDocument, (name,))
            if cursor is None or await self.store.get(SessionDocument, (name,)) is None:
                continue
            pages = await self.store.scan(InFlightDocument, (name,))
            waiting = {entry.offset for entry in listed(cursor, pages)}
            for message in log:
                through = message.offset <= cursor.sent_through and message.offset not in waiting
                if (through or message.offset <= cursor.offset) and device.wants(message):
                    assert message.offset in device.answered, f"{name}: {cursor} passed {message}"

    async def _stored(self) -> list[Message]:
        position, log = Offset(1), []
        while position <= self.store.high_watermark:
            read = await self.store.read(position, self.store.high_watermark)
            log += read.messages
            position = read.next
        return log

    def teardown(self) -> None:
        try:
            if hasattr(self, "broker"):
                self._everything_arrives()
        finally:
            self.run(self._end_tasks())
            self.run(self.store.close())
            self.loop.close()

    def _everything_arrives(self) -> None:
        """All come back and answer: now everything owed arrives, and every exchange ends."""
        self.disk.full = False
        for name, device in self.devices.items():
            if device.session and name not in self.broker.links:
                self.connect(name, clean_start=False)
        links = self.broker.links

        def owed(log: list[Message]) -> list[str]:
            return [
                f"{device.name}: {message}"
                for device in self.devices.values()
                if device.name in links
                for message in log
                if device.wants(message) and message.offset not in device.processed
            ]

        async def drain() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while True:
                        for name, link in links.items():
                            device = self.devices[name]
                            answers, device.answers = device.answers, []
                            for due in answers:
                                link.answer(*due)
                            for packet_id in list(device.unreleased):
                                link.release(packet_id)
                        await asyncio.sleep(0 if isinstance(self.store, MemoryStore) else 0.001)
                        await self.broker.log.flushed()
                        if not (owed(await self._stored()) or self._unfinished()):
                            return
            raise AssertionError(f"never came: {owed(await self._stored())}, {self._unfinished()}")

        self.run(drain())
        self._check_log(self.run(self._stored()))

    def _unfinished(self) -> list[str]:
        return [
            f"{name}: {unfinished}"
            for name in self.broker.links
            for device in [self.devices[name]]
            for unfinished in (device.answers, device.held, device.unacknowledged)
            if unfinished
        ]

    def _check_log(self, log: list[Message]) -> None:
        payloads = [message.payload for message in log]
        for name, device in self.devices.items():
            own = [m.payload for m in log if m.publisher == name]
            first = list(dict.fromkeys(own))
            assert first == sorted(first), f"{name}'s messages are out of order"
            for payload, qos in device.accepted:
                assert payload in payloads, f"{payload!r} was acknowledged and is not stored"
                assert qos != 2 or payloads.count(payload) == 1, f"{payload!r} is stored twice"


@pytest.mark.parametrize("engine", ["memory", "memory, gaps", "sqlite", "sqlite, quick disk"])
def test_no_promise_is_broken_by_drops_takeovers_crashes_and_full_disks(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1, P3, P4."""
    monkeypatch.setattr("broker.log.log.FULL_RETRY_S", 0.001)
    monkeypatch.setattr("broker.log.waking.CURSOR_COMMIT_DELAY_S", 0)
    monkeypatch.setattr("broker.log.unhurried.RIDE_S", 0.005)
    monkeypatch.setattr("broker.log.unhurried.CURSOR_WAIT_S", 0.02)
    monkeypatch.setattr("broker.delivery.readers.READ_MESSAGES_MAX", 4)
    monkeypatch.setattr("broker.delivery.recent.RECENT_MESSAGES_MAX", 6)

    class OnMemory(SessionMachine):
        def __init__(self) -> None:
            super().__init__(CrashableMemoryStore(gaps=10 if "gaps" in engine else 0))

    class OnSqlite(SessionMachine):
        def __init__(self) -> None:
            path = Path(tempfile.mkdtemp(dir=tmp_path)) / "pubsub.db"
            super().__init__(CrashableSqliteStore(path, durability="os"))

    with quick_disk() if "quick" in engine else nullcontext():
        run_state_machine_as_test(
            OnMemory if "memory" in engine else OnSqlite,
            settings=settings(
                max_examples=settings().max_examples * 5 // (2 if "memory" in engine else 20),
                stateful_step_count=60,
                deadline=None,
                suppress_health_check=list(HealthCheck),
            ),
        )
