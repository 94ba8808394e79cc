"""Peer: one face for the client libraries, so that one suite of behaviours holds for all of them.

A peer is one connection. Calls return when the broker has answered, and everything that takes
longer than `TIMEOUT_S` fails. What a library cannot say, it leaves at its default or at None.
"""

from __future__ import annotations

import asyncio
import threading
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from queue import Queue
from typing import Any, ClassVar, TypeVar

import pytest

TIMEOUT_S = 5.0

_fences = count(1)

UserProperties = list[tuple[str, str]]
T = TypeVar("T")


@dataclass(slots=True)
class Message:
    """As published, and as received; the latter with the identifiers of the subscriptions."""

    topic: str
    payload: bytes = b""
    qos: int = 1
    retain: bool = False
    expiry_s: int | None = None
    payload_format: int | None = None
    content_type: str | None = None
    response_topic: str | None = None
    correlation: bytes | None = None
    user: UserProperties = field(default_factory=list)
    subscription_ids: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Will:
    message: Message
    delay_s: int = 0


@dataclass(slots=True)
class Options:
    """How to connect. `clean` is Clean Start of MQTT 5, where the session ends with the connection
    unless `expiry_s` is set, or Clean Session of 3.1.1."""

    client_id: str
    clean: bool = True
    expiry_s: int | None = None
    will: Will | None = None
    receive_maximum: int | None = None
    packet_bytes_max: int | None = None
    acknowledges: bool = True
    """False: what it receives at QoS 1 stays unacknowledged."""


@dataclass(slots=True)
class Subscription:
    filter: str
    qos: int = 2
    no_local: bool = False
    retain_as_published: bool = False
    retain_handling: int = 0
    id: int | None = None
    user: UserProperties = field(default_factory=list)


class Peer(ABC):
    """Constructing it connects. Received messages are in `inbox`, acknowledged by the library."""

    def __init__(self, port: int, version: int, options: Options) -> None:
        self.port = port
        self.version = version
        self.options = options
        self.inbox: Queue[Message] = Queue()
        self.ended: Queue[int | None] = Queue()
        """The Reason Code with which the broker ended the connection: 0 for none, None where the
        library does not tell."""
        self.session_present: bool | None = None
        """None where the library does not tell."""
        self._fence = ""

    @abstractmethod
    def subscribe_to(self, subscription: Subscription) -> int:
        """The Reason Code of the SUBACK."""

    @abstractmethod
    def unsubscribe(self, filter: str) -> None: ...

    @abstractmethod
    def send(self, message: Message, *, topic_alias: int | None = None) -> UserProperties | None:
        """Returns when the exchange is complete: the User Properties of the PUBACK, if known."""

    @abstractmethod
    def disconnect(self) -> None:
        """DISCONNECT, then close."""

    @abstractmethod
    def cut(self) -> None:
        """Lose the connection without a DISCONNECT."""

    def subscribe(self, filter: str, qos: int = 2, **options: Any) -> int:
        return self.subscribe_to(Subscription(filter, qos, **options))

    def publish(
        self, topic: str, payload: bytes = b"", qos: int = 1, **properties: Any
    ) -> UserProperties | None:
        return self.send(Message(topic, payload, qos, **properties))

    def receive(self) -> Message:
        """The next message."""
        return self.inbox.get(timeout=TIMEOUT_S)

    def receive_many(self, number: int) -> list[Message]:
        return [self.receive() for _ in range(number)]

    def received(self) -> list[Message]:
        """All that came, and was already due, since this was asked last: a message of its own,
        published now, comes after everything that the log had before it. At QoS 2, as libraries
        hand over such a message when it is released, which later ones of QoS 0 and 1 overtake."""
        if not self._fence:
            self._fence = f"fence/{next(_fences)}"
            self.subscribe(self._fence, 2)
        self.publish(self._fence, qos=2)
        messages = []
        while (message := self.receive()).topic != self._fence:
            messages.append(message)
        return messages


class AsyncPeer(Peer):
    """Of a library for asyncio: its event loop runs in a thread, kept by `WithEventLoop`."""

    loop: ClassVar[asyncio.AbstractEventLoop]

    def run(self, call: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(call, self.loop).result(TIMEOUT_S)


class WithEventLoop:
    """An event loop for the tests of a class."""

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def event_loop_thread(cls) -> Iterator[None]:
        loop = AsyncPeer.loop = asyncio.new_event_loop()
        thread = threading.Thread(target=loop.run_forever)
        thread.start()
        yield
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def payloads(messages: Sequence[Message]) -> list[bytes]:
    return [message.payload for message in messages]
