"""Backlog: decoded packets of one client that wait until a step, such as CONNECT, has ended.

Reading stops when a step begins, so a backlog holds the packets of one read. They can be thousands
of small ones, and take far more memory than their bytes. `cost` is what they add to the bound over
all connections (`unfinished_bytes_max`).
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from broker.clients.asking import Asking
from broker.clients.sending import Output
from broker.clients.services import Services
from broker.lines.connection import LineEvent, LinePublish
from broker.message import Message, WallUs
from broker.mqtt.connection import Connection, Event
from broker.mqtt.packets import Ack, Publish, Subscribe, Unsubscribe

EVENT_BYTES = 300
"""About what a packet takes, beside a payload; also each Topic Filter with its options."""
FILTER_BYTES = 100
PACKET_IDENTIFIER_BYTES = 36


class Backlog:
    def __init__(self) -> None:
        self._events: list[Event] = []
        self.cost = 0
        """Bytes of memory, about."""

    def extend(self, events: Sequence[Event]) -> None:
        self._events.extend(events)
        self.cost += sum(map(_cost, events))

    async def read_on(self, connection: Connection, output: Output, services: Services) -> None:
        """Decode what is left of one read, a part in each turn of the loop."""
        while connection.has_more and not output.closed:
            await asyncio.sleep(0)
            self.extend(connection.receive_data(b"", services.clock.monotonic()))

    def __len__(self) -> int:
        return len(self._events)

    def take(self) -> list[Event]:
        """All events, in order; nothing is left."""
        events, self._events, self.cost = self._events, [], 0
        return events


def _cost(event: Event) -> int:
    match event:
        case Publish():
            return EVENT_BYTES + len(event.payload) + len(event.properties)
        case Subscribe():
            return EVENT_BYTES * (1 + len(event.requests))
        case Unsubscribe():
            return EVENT_BYTES + FILTER_BYTES * len(event.filters)
        case Ack():
            return EVENT_BYTES + PACKET_IDENTIFIER_BYTES * len(event.packet_ids)
        case _:
            return EVENT_BYTES


def cost_of_lines(events: Iterable[LineEvent]) -> int:
    """The same of commands of the line protocol."""
    return sum(
        EVENT_BYTES + (len(event.payload) if isinstance(event, LinePublish) else 0)
        for event in events
    )


def take_publishes(
    events: deque[LineEvent], asking: Asking, now_us: WallUs, may: Callable[[str], bool]
) -> tuple[list[Message], bool]:
    """The messages that come next, as far as they `may` be published, and whether it is one that
    asks for more than that, which comes alone."""
    messages: list[Message] = []
    while events and isinstance(event := events[0], LinePublish):
        asks = asking.asks(event.topic, b"")
        if messages and (asks or not may(event.topic)):
            break
        events.popleft()
        messages.append(Message(event.topic, event.payload, 1, False, event.publisher, now_us))
        if asks:
            return messages, True
    return messages, False
