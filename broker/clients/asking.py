"""Asking: what a PUBLISH may ask for beside being stored and delivered.

- To come later: its name is `$delayed/<seconds>/<name>`, or it has the User Property `deliver-at`
  with a moment, by the wall clock. A property of that name which is no moment is the application's
  own, and so is a second one.
- To be stored once: its topic is of a `[[dedup]]`, and it has the User Property `dedup-key`.

What it asks for is stored in the commit that its acknowledgement waits for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from broker.clock import Clock
from broker.config import Config
from broker.counters import Counters
from broker.documents import Author, Operation, Place
from broker.errors import QuotaExceeded, StoreConflict, StoreError
from broker.log.dedup import Dedup, Known
from broker.log.delayed import Accepted, Delayed
from broker.log.log import Log
from broker.message import NOT_STORED, Message, WallUs
from broker.mqtt.packets import UserProperties
from broker.mqtt.properties import user_properties
from broker.replay.spec import parse_moment
from broker.topics import DELAYED_PREFIX, matches, parse_delayed

DELIVER_AT = "deliver-at"
DEDUP_KEY = "dedup-key"
DEDUP = "dedup"
"""Says on the acknowledgement whether a message with a key was the `first` or a `repeat`."""
_DELIVER_AT, _DEDUP_KEY = DELIVER_AT.encode(), DEDUP_KEY.encode()
WINDOWS_KEPT_MAX = 8192


@dataclass(slots=True)
class Asked:
    """What to append of one message: itself, or nothing of it now. When it is appended and the
    commit is over, call `settle`."""

    messages: Sequence[Message] = ()
    operations: list[Operation] = field(default_factory=list)
    place: Place | None = None
    """Right after the messages."""
    delayed: Accepted | None = None
    known: Known | None = None
    repeats: bool = False
    """Whether `known` is the message that came before it."""


class Asking:
    """`dedup_windows_s`: of each Topic Filter how long keys are kept; the first that matches."""

    def __init__(
        self,
        clock: Clock,
        counters: Counters,
        delayed: Delayed,
        dedup: Dedup,
        dedup_windows_s: Mapping[str, float],
    ) -> None:
        self._clock = clock
        self._counters = counters
        self.delayed = delayed
        self.dedup = dedup
        self._filters = dedup_windows_s
        self._windows_s: dict[str, float] = {}
        """By topic; 0: none. Bounded: it forgets all when full."""

    async def renewal(self, config: Config) -> Callable[[], None]:
        """Call what it returns to have other settings. Keys that are in their windows stay."""

        def renew() -> None:
            self._filters = windows_s(config)
            self._windows_s.clear()
            self.dedup.keys_max = config.dedup_keys_max
            self.delayed.messages_max = config.delayed_messages_max
            self.delayed.bytes_max = config.delayed_bytes_max

        return renew

    async def start(self) -> None:
        """Learn what an earlier run left. Raises StoreError."""
        await self.delayed.start()
        await self.dedup.start()

    def asks(self, topic: str, properties: bytes) -> bool:
        """Whether a message is to be given to `accept`. Most are not: cheap."""
        if topic[0] == "$" and topic.startswith(DELAYED_PREFIX):
            return True
        return bool(properties) and (
            _DELIVER_AT in properties or (bool(self._filters) and _DEDUP_KEY in properties)
        )

    def accept(self, message: Message, expiry_s: int | None, author: Author) -> Asked:
        """What to append of a message as it came. Raises QuotaExceeded: it is refused."""
        delay_s = at_us = None
        topic = message.topic
        if (delayed := parse_delayed(topic)) is not None:
            delay_s, message.topic = delayed
        texts = dict(reversed(user_properties(message.properties)))  # The first of a name counts.
        if delay_s is None and DELIVER_AT in texts:
            at_us = parse_moment(texts[DELIVER_AT])
        asked = Asked()
        later = bool(delay_s) or (at_us is not None and at_us > self._clock.wall_us())
        window_s = self._window_s(message.topic) if DEDUP_KEY in texts else 0
        if window_s:
            self._take_key(asked, message, texts[DEDUP_KEY], window_s, later=later)
        if asked.repeats:
            return asked
        if later:
            try:
                if delay_s:
                    asked.delayed = self.delayed.after(message, delay_s, expiry_s, author)
                else:
                    at_us = WallUs(at_us or 0)
                    asked.delayed = self.delayed.at(message, at_us, expiry_s, author)
            except QuotaExceeded:
                self._forget_key(asked)
                raise
            asked.operations += asked.delayed.operations
        else:
            asked.messages = [message]
            self._take(asked, message, author.user or "")
        return asked

    def _take(self, asked: Asked, message: Message, user: str) -> None:
        """Raises QuotaExceeded."""
        try:
            taken = self.delayed.retained.take(user, message, asked.place)
        except QuotaExceeded:
            self._forget_key(asked)
            raise
        asked.operations += taken.operations
        asked.place = taken.place or asked.place

    def _forget_key(self, asked: Asked) -> None:
        """Its message is refused."""
        if asked.known is not None:
            self.dedup.forget(asked.known)

    def _take_key(
        self, asked: Asked, message: Message, key: str, window_s: float, *, later: bool
    ) -> None:
        publisher, topic = message.publisher, message.topic
        asked.known = self.dedup.find(publisher, topic, key)
        asked.repeats = asked.known is not None
        if asked.repeats:
            self._counters.repeats += 1
            return
        asked.place = None if later else Place()
        asked.known, remember = self.dedup.add(publisher, topic, key, window_s, asked.place)
        asked.operations.append(remember)

    def settle(self, asked: Asked, error: StoreError | None) -> bool:
        """The commit is over. Whether the message is stored."""
        if asked.repeats:
            return error is None and asked.known is not None and asked.known.stored
        if asked.known is not None and self.dedup.settle(asked.known, error, asked.place):
            asked.repeats, asked.messages = True, ()
            self._counters.repeats += error is None
            if asked.delayed is not None:
                self.delayed.settle(asked.delayed, error or StoreConflict("it waits elsewhere"))
            return error is None
        if asked.delayed is not None:
            self.delayed.settle(asked.delayed, error)
        return error is None

    def _window_s(self, topic: str) -> float:
        window_s = self._windows_s.get(topic)
        if window_s is None:
            if len(self._windows_s) >= WINDOWS_KEPT_MAX:
                self._windows_s.clear()
            found = (s for filter, s in self._filters.items() if matches(filter, topic))
            window_s = self._windows_s[topic] = next(found, 0.0)
        return window_s


def asking_of(
    config: Config,
    log: Log,
    clock: Clock,
    counters: Counters,
    deadline_moved: Callable[[], None],
) -> Asking:
    """With the limits and the windows of `config`."""
    delayed = Delayed(
        log,
        counters,
        clock,
        deadline_moved,
        messages_max=config.delayed_messages_max,
        bytes_max=config.delayed_bytes_max,
    )
    dedup = Dedup(log, clock, deadline_moved, keys_max=config.dedup_keys_max)
    return Asking(clock, counters, delayed, dedup, windows_s(config))


def windows_s(config: Config) -> dict[str, float]:
    """How long keys are kept, by Topic Filter; the first of them counts."""
    windows: dict[str, float] = {}
    for rule in config.dedup:
        windows.setdefault(rule.filter, rule.window_s)
    return windows


def receipt_of(asked: Asked) -> UserProperties:
    """What the acknowledgement of a stored message says of it: the offset, if there is one yet, of
    it or of the message that it repeats, and which of both it is, if its key counts."""
    known = asked.known
    offset = NOT_STORED
    if asked.messages:
        offset = asked.messages[0].offset
    elif known is not None:
        offset = known.offset
    receipt = [("offset", str(offset))] if offset else []
    if known is not None:
        receipt.append((DEDUP, "repeat" if asked.repeats else "first"))
    return receipt
