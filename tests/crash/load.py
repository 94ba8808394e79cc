"""Clients around a broker that keeps dying: what they do between the kills.

All random choices come from the seed, each client having its own source, so that what one client
does next does not depend on how the others were scheduled.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

from tests.crash.checker import matches
from tests.crash.client import (
    MQTT_3,
    MQTT_5,
    RecordingClient,
    RecordingPublisher,
    RecordingSubscriber,
)
from tests.crash.history import History, Key, encode_payload
from tests.crash.killable_broker import KillableBroker

TOPICS = [f"load/{place}/{kind}" for place in range(3) for kind in "ab"]
DRAIN_TIMEOUT_S = 30.0


class Crowd:
    """Four publishers of mixed QoS, and whoever else a subclass adds to `clients`.

    As an async context manager it keeps them connected, and raises what one of them raised.
    """

    def __init__(self, seed: int, broker: KillableBroker, history: History) -> None:
        self.history = history
        self._seed = seed
        self._broker = broker
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self.publishers = [
            RecordingPublisher(f"p{number}", history, version=version)
            for number, version in enumerate((MQTT_3, MQTT_3, MQTT_5, MQTT_5))
        ]
        self.clients: list[RecordingClient] = [*self.publishers]

    async def __aenter__(self) -> Self:
        asyncio.get_running_loop().set_exception_handler(self._failed)
        for client in self.clients:
            self._run(client.name, self._stay_connected(client))
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._cancel(list(self._tasks))
        for client in self.clients:
            client.drop()
            await client.offline.wait()

    async def _stay_connected(self, client: RecordingClient) -> None:
        while True:
            await client.offline.wait()
            await self._broker.up.wait()
            with suppress(OSError):
                await client.connect(self._broker.port)
            await asyncio.sleep(0.002)

    async def _publish(self, publisher: RecordingPublisher) -> None:
        source = self._source(publisher.name)
        while True:
            await publisher.room()
            for _ in range(source.randint(1, 12)):
                qos, size = source.choice((0, 1, 1, 2, 2)), source.choice((20, 128, 128, 2000))
                publisher.publish(source.choice(TOPICS), payload_of(qos, size), qos)
            await asyncio.sleep(source.uniform(0, 0.02))

    def _source(self, name: str) -> random.Random:
        return random.Random(f"{self._seed} {name}")

    def _delay(self, number: int, up_to_s: float) -> Callable[[], float]:
        source = self._source(f"delay {number}")
        return lambda: source.uniform(0, up_to_s)

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        self._tasks[name] = asyncio.create_task(work, name=name)

    async def _cancel(self, names: list[str]) -> None:
        tasks = [self._tasks.pop(name) for name in names if name in self._tasks]
        for task in tasks:
            task.cancel()
        for task in tasks:
            with suppress(asyncio.CancelledError):
                await task

    def _failed(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        """What a client raised on bytes that it received: a packet that cannot be read."""
        self.history.unexpected.append(f"{context['message']}: {context.get('exception')!r}")


class Load(Crowd):
    """Eight durable subscribers beside the publishers: live, slow and absent ones. `polite` ones
    never leave without DISCONNECT."""

    def __init__(
        self, seed: int, broker: KillableBroker, history: History, *, polite: bool = False
    ) -> None:
        super().__init__(seed, broker, history)
        self._polite = polite
        self.subscribers = [
            RecordingSubscriber("live1", history, {"load/#": 1}),
            # Overlapping filters: still one copy, with the higher QoS.
            RecordingSubscriber("live2", history, {"load/#": 1, "load/+/a": 2, "load/1/b": 2}),
            RecordingSubscriber("narrow", history, {"load/#": 2}, version=MQTT_5, receive_max=5),
            RecordingSubscriber(
                "slow1", history, {"load/+/a": 1}, delay_qos1_s=self._delay(1, 0.02)
            ),
            RecordingSubscriber(
                "slow2",
                history,
                {"load/1/#": 2},
                version=MQTT_5,
                delay_qos1_s=self._delay(2, 0.005),
                delay_qos2_s=self._delay(3, 0.02),
            ),
            # Here QoS 2 completes past QoS 1 messages that stay unacknowledged.
            RecordingSubscriber(
                "uneven",
                history,
                {"load/2/b": 2},
                version=MQTT_5,
                delay_qos1_s=self._delay(4, 0.01),
            ),
        ]
        self.absent = [
            RecordingSubscriber("absent1", history, {"load/#": 1}, version=MQTT_5),
            RecordingSubscriber("absent2", history, {"load/+/b": 2, "load/0/#": 2}),
        ]
        self.clients += [*self.subscribers, *self.absent]

    async def start(self) -> None:
        """Returns when all are subscribed and the messages flow."""
        for subscriber in [*self.subscribers, *self.absent]:
            await subscriber.subscribed.wait()
        for publisher in self.publishers:
            self._run(f"publish {publisher.name}", self._publish(publisher))
        for subscriber in self.absent:
            await self._cancel([subscriber.name])
            self._run(subscriber.name, self._come_and_go(subscriber))

    async def drain(self) -> None:
        """Stop publishing, let everybody catch up, and note who could not.

        The last messages go to every topic; as delivery is in order, whoever has them has got, or
        lost, all that came before.
        """
        await self._cancel([f"publish {publisher.name}" for publisher in self.publishers])
        await self._cancel([subscriber.name for subscriber in self.absent])
        for subscriber in self.absent:
            self._run(subscriber.name, self._stay_connected(subscriber))
        subscribers = [*self.subscribers, *self.absent]
        for subscriber in subscribers:
            subscriber.hurry()
        publisher = self.publishers[0]
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                for each in self.publishers:
                    await each.finished()
                await publisher.room()
                last = {topic: publisher.publish(topic, payload_of(2, 20), 2) for topic in TOPICS}
                await publisher.finished()
                for subscriber in subscribers:
                    filters = self.history.subscriptions[subscriber.name]
                    await subscriber.settled(
                        {
                            key
                            for topic, key in last.items()
                            if any(matches(topic_filter, topic) for topic_filter in filters)
                        }
                    )
        self.history.unfinished += [
            f"{each.name}: {key}" for each in self.publishers for key in each.unfinished
        ]
        self.history.unfinished += [
            f"{subscriber.name}: {key}, Packet Identifier {packet_id} is not released"
            for subscriber in subscribers
            for packet_id, key in subscriber.held.items()
        ]

    async def _come_and_go(self, client: RecordingClient) -> None:
        """Leaves by DISCONNECT or without a word, stays away for longer than it stays."""
        source = self._source(client.name)
        while True:
            if self._polite or source.random() < 0.5:
                await client.disconnect()
            else:
                client.drop()
                await client.offline.wait()
            await asyncio.sleep(source.uniform(0.1, 1.5))
            await self._broker.up.wait()
            with suppress(OSError):
                await client.connect(self._broker.port)
            await asyncio.sleep(source.uniform(0, 0.3))


def payload_of(qos: int, size: int) -> Callable[[Key], bytes]:
    return lambda key: encode_payload(key, qos, size)
