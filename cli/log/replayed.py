"""The history of a broker that is elsewhere: an ordinary replay over MQTT.

What the log tells beside a message comes as User Properties (`metadata`). Not known from afar:
RETAIN, and when a message expires. Several Topic Filters are replayed as one, `#`, and sorted out
here: replays of their own would come in no order among each other.
"""

from __future__ import annotations

import base64
from collections import deque
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from paho.mqtt.client import MQTTMessage

from broker.message import Message, Offset
from broker.topics import REPLAY_ENDED, matches
from cli.log.history import Options, Places, Wanted, pattern_of
from cli.log.properties import encoded
from cli.messages.subscribe import subscribe_to
from cli.net.address import Address
from cli.net.client import Client
from cli.options import unique
from cli.terminal.failure import CommandFailed
from cli.terminal.interrupt import Interrupt

WINDOW_MESSAGES = 1000
TURN_S = 60.0
METADATA = ("offset", "published-at", "publisher", "caught-up")
"""User Properties that the broker adds; the application's own stay."""


class Replayed:
    """The messages of a broker's log that are asked for, in pages, oldest first."""

    def __init__(self, address: Address, options: Options, places: Places) -> None:
        since_us, before_us = places.times_us()
        self._wanted = Wanted(options.publisher, pattern_of(options), since_us, before_us)
        self._filters = options.filters
        self._options = options
        self._start, self._until = words(options, places)
        self._interrupt = Interrupt()
        self._client = Client(address, f"pubsub-log-{unique()}", self._interrupt)

    def __enter__(self) -> Replayed:
        """Raises CommandFailed: no broker, or it refuses."""
        self._interrupt.__enter__()
        self._client.open(clean_start=True, receive_max=WINDOW_MESSAGES)
        return self

    def __exit__(self, *error: Any) -> None:
        self._client.close()
        self._interrupt.__exit__(*error)

    def pages(self) -> Iterator[list[Message]]:
        """With `follow` for ever. Raises CommandFailed, ConnectionLost, KeyboardInterrupt."""
        options = self._options
        last = None if options.follow else options.last
        newest: deque[Message] = deque(maxlen=last)
        for page in self._all():
            if last is None:
                yield page
            else:
                newest.extend(page)
        if newest:
            yield [*newest]

    def _all(self) -> Iterator[list[Message]]:
        filters = self._filters if len(self._filters) == 1 else ("#",)
        places = [("metadata", "true"), ("from", self._start)]
        if not self._options.follow:
            places.append(("until", self._until))
        subscribe_to(self._client, filters, 2, places)
        while True:
            self._client.turn(TURN_S)
            page: list[Message] = []
            arrived = [*self._client.arrived]
            self._client.arrived.clear()
            ended = False
            for message in arrived:
                if message.topic == REPLAY_ENDED:
                    ended = True
                elif not self._is_asked_for(message.topic):
                    continue
                elif self._wanted.has(logged := _logged(message)):
                    page.append(logged)
            yield page
            self._client.acknowledge(arrived)
            if ended:
                return

    def _is_asked_for(self, topic: str) -> bool:
        return len(self._filters) < 2 or any(matches(each, topic) for each in self._filters)


def words(options: Options, places: Places) -> tuple[str, str]:
    """`from` and `until`, as the broker takes them."""
    start, until = places.words
    by_itself = options.publisher is None and options.grep is None and len(options.filters) < 2
    if start is None and options.last is not None and until is None and by_itself:
        start = f"-{options.last}"
    return start or "earliest", until or "latest"


def _logged(message: MQTTMessage) -> Message:
    """Raises CommandFailed: the broker does not tell where it is in a log."""
    properties = message.properties
    pairs = [*getattr(properties, "UserProperty", ())]
    told = dict(pairs)
    if not {"offset", "published-at", "publisher"} <= told.keys():
        raise CommandFailed("the broker tells no history", "is it a pubsub broker?")
    fields: dict[str, object] = {
        name: getattr(properties, paho)
        for name, paho in (
            ("payload_format", "PayloadFormatIndicator"),
            ("content_type", "ContentType"),
            ("response_topic", "ResponseTopic"),
        )
        if hasattr(properties, paho)
    }
    if (raw := getattr(properties, "CorrelationData", None)) is not None:
        fields["correlation_data_base64"] = base64.b64encode(raw).decode()
    fields["user_properties"] = [pair for pair in pairs if pair[0] not in METADATA]
    moment = datetime.fromisoformat(told["published-at"])
    return Message(
        message.topic,
        bytes(message.payload),
        message.qos,
        False,
        told["publisher"],
        round(moment.timestamp() * 1_000_000),
        None,
        encoded(fields),
        Offset(int(told["offset"])),
    )
