"""A group of members that come and go around a broker that keeps dying."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress

from tests.crash.checker import matches
from tests.crash.client import (
    MQTT_3,
    MQTT_5,
    PUBLISH,
    UNSUBACK,
    UNSUBSCRIBE,
    RecordingSubscriber,
    packet,
    string,
)
from tests.crash.group_checker import inner_filter
from tests.crash.history import Delivery, History, Key, Unsubscribed
from tests.crash.killable_broker import KillableBroker
from tests.crash.load import DRAIN_TIMEOUT_S, Crowd

GROUP = "$share/workers/load/#"


class Member(RecordingSubscriber):
    """Subscribes at every connect, so that it may have unsubscribed before."""

    def __init__(
        self,
        name: str,
        history: History,
        qos: int,
        *,
        version: int = MQTT_3,
        receive_max: int = 65_535,
        durable: bool = True,
        delay_s: Callable[[], float] | None = None,
    ) -> None:
        super().__init__(
            name,
            history,
            {GROUP: qos},
            version=version,
            receive_max=receive_max,
            durable=durable,
            delay_qos1_s=delay_s,
            delay_qos2_s=delay_s,
        )
        self.acknowledged: Counter[Key] = Counter()
        self._wanted = True
        self._unsubscribed = asyncio.Event()

    def enrol(self) -> None:
        for group, qos in self._filters.items():
            self._history.groups[group][self.name] = qos

    def resumed(self, session_present: bool) -> None:
        if not session_present:
            self.held.clear()
        self.subscribe()

    def subscribe(self) -> None:
        self._wanted = True
        super().subscribe()

    async def unsubscribe(self) -> None:
        """Returns after UNSUBACK, or when the connection has ended."""
        properties = b"\x00" if self._version == MQTT_5 else b""
        self._wanted = False
        self._unsubscribed.clear()
        self._history.unsubscribed.append(Unsubscribed(self.name, self._history.now()))
        self._write(packet(UNSUBSCRIBE, 0x02, b"\x00\x02" + properties + string(GROUP)))
        if self._transport is not None:
            await self._unsubscribed.wait()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unsubscribed.set()

    def received(self, kind: int, flags: int, body: bytes) -> None:
        if kind == UNSUBACK:
            self._unsubscribed.set()
        else:
            # At QoS 0 a message may have waited for the socket [section 3.10.4].
            leased = kind == PUBLISH and bool(flags >> 1 & 3)
            if leased and self._unsubscribed.is_set() and not self._wanted:
                self._unexpected("message after UNSUBACK")
            super().received(kind, flags, body)

    def _acknowledge(self, delivery: Delivery) -> None:
        super()._acknowledge(delivery)
        self.acknowledged[delivery.key] += delivery.acknowledged_in is not None


class GroupLoad(Crowd):
    """Six members beside the publishers. All but the first come and go, in every way there is."""

    def __init__(self, seed: int, broker: KillableBroker, history: History) -> None:
        super().__init__(seed, broker, history)
        self.members = [
            Member("steady", history, 1),
            Member("narrow", history, 1, version=MQTT_5, receive_max=5),
            Member("slow", history, 1, version=MQTT_5, delay_s=self._delay(1, 0.01)),
            Member("passing", history, 1, version=MQTT_5, durable=False),
            Member("twos", history, 2),
            Member("slow-twos", history, 2, version=MQTT_5, delay_s=self._delay(2, 0.01)),
        ]
        self.clients += self.members
        self._welcome = asyncio.Event()
        """While it is not set, every member stays away."""
        self._welcome.set()

    async def start(self) -> None:
        """Returns when all are subscribed and the messages flow."""
        for member in self.members:
            await member.subscribed.wait()
        for publisher in self.publishers:
            self._run(f"publish {publisher.name}", self._publish(publisher))
        for member in self.members[1:]:
            await self._cancel([member.name])
            self._run(member.name, self._come_and_go(member))

    async def absence(self, seconds: float) -> None:
        """No member is there for so long."""
        steady = self.members[0]
        self._welcome.clear()
        await self._cancel([steady.name])
        for member in self.members:
            member.drop()
        await asyncio.sleep(seconds)
        self._run(steady.name, self._stay_connected(steady))
        self._welcome.set()

    async def offline(self) -> None:
        """Returns when everybody knows that the broker is gone, and has read what it had sent."""
        for client in self.clients:
            await client.offline.wait()

    async def stop(self) -> int:
        """Stop the broker when it has read all that the members ever say; the exit code."""
        for member in self.members:
            member.suspend()
        await asyncio.gather(*(member.ping() for member in self.members))
        ended_at = self.history.now()  # Of all: from here on one may leave before another.
        for member in self.members:
            member.ends(clean=True, at=ended_at)
        code = await self._broker.stop()
        await self.offline()
        for member in self.members:
            member.resume()
        return code

    async def drain(self) -> None:
        """Stop publishing, let the members work everything off, and note what they could not."""
        await self._cancel([f"publish {publisher.name}" for publisher in self.publishers])
        await self._cancel([member.name for member in self.members])
        for member in self.members:
            self._run(member.name, self._stay_connected(member))
            member.subscribe()  # Whoever had just unsubscribed; for the others nothing changes.
            member.hurry()
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                for publisher in self.publishers:
                    await publisher.finished()
                owed = Counter(
                    row.key
                    for row in self._broker.read_log()
                    if row.qos and matches(inner_filter(GROUP), row.topic)
                )
                while not self._worked_off(owed):
                    await asyncio.gather(*(member.ping() for member in self.members))
                    await asyncio.sleep(0.01)
        self.history.unfinished += [
            f"{each.name}: {key}" for each in self.publishers for key in each.unfinished
        ]
        self.history.unfinished += [
            f"{member.name}: {key}" for member in self.members for key in member.held.values()
        ]

    def _worked_off(self, owed: Counter[Key]) -> bool:
        acknowledged: Counter[Key] = Counter()
        for member in self.members:
            acknowledged.update(member.acknowledged)
        return owed <= acknowledged and not any(member.settling for member in self.members)

    async def _come_and_go(self, member: Member) -> None:
        source = self._source(member.name)
        while True:
            await asyncio.sleep(source.uniform(0, 0.3))
            if source.random() < 0.6:
                await member.unsubscribe()
                # Now it finishes what it has, or does not come to that.
                await asyncio.sleep(source.choice((0, 0, 0.05)))
                if source.random() < 0.5:
                    member.subscribe()
                    await asyncio.sleep(source.uniform(0, 0.1))
            if source.random() < 0.5:
                await member.disconnect()
            else:
                member.drop()
                await member.offline.wait()
            await asyncio.sleep(source.uniform(0, 0.2))
            await self._broker.up.wait()
            await self._welcome.wait()
            with suppress(OSError):
                await member.connect(self._broker.port)
