"""Batch: what waits for the next commit of the log, in the order of arrival."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from broker.documents import Operation, Place
from broker.errors import StoreError
from broker.handed_on import HandedOn
from broker.log.publishers import Publisher
from broker.message import Message, cost_of

APPEND_BYTES = 256
"""What it takes in memory, at least, that somebody waits for a commit, beside messages: a callback,
and what that is about."""

SOURCES_MAX = 2000
"""Sources whose state one commit takes, if nobody waits for more: about 10 ms."""

logger = logging.getLogger(__name__)

T = TypeVar("T")

OnCommitted = Callable[[StoreError | None], None]
OnFailed = Callable[[Exception], None]
"""What to do about a mistake of ours. Raises nothing."""


class StateSource(Protocol):
    """Has state that is stored in the log's commits: a session."""

    @property
    def client_id(self) -> str: ...

    def take_changes(self) -> list[Operation]:
        """The changes for the next commit. It returns each of them once."""
        ...

    def committed(self) -> None:
        """The changes that `take_changes` last returned are stored."""
        ...

    def not_committed(self) -> None:
        """They are not: `take_changes` must return them again."""
        ...


def nobody_waits(error: Exception) -> None:
    logger.critical("a callback of a commit", exc_info=error)


@dataclass(slots=True)
class Append:
    """One call of `append`, or of `changed` with a callback. `beside`: bytes in memory, beside
    messages and APPEND_BYTES."""

    messages: Sequence[Message]
    operations: Sequence[Operation]
    beside: int
    durable: bool
    keep_if_full: bool
    on_committed: OnCommitted | None
    failed: OnFailed = nobody_waits
    place: Place | None = None
    source: StateSource | None = None
    """Whose it is, where that is not to be seen otherwise."""
    unhurried: StateSource | None = None
    """Whose, of a call of `changed` that was not urgent."""
    handed: HandedOn | None = None
    """The messages, if they were delivered already."""

    @property
    def awaited(self) -> bool:
        """Whether it is more than messages of QoS 0, for which nobody waits."""
        return self.durable or bool(self.operations) or self.on_committed is not None

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return cost_of(self.messages) + self.beside + (APPEND_BYTES if self.awaited else 0)


def tell(appends: Sequence[Append], error: StoreError | None) -> None:
    """Call back, in the order of the calls. A mistake of one's callback keeps nobody else's."""
    for append in appends:
        if append.on_committed is not None:
            try:
                append.on_committed(error)
            except Exception as mistake:
                append.failed(mistake)


class Batch:
    """Everything that waits for the next commit."""

    __slots__ = (
        "_looked_at",
        "_topics",
        "appends",
        "awaited_size",
        "durable",
        "handed",
        "has_places",
        "publishers",
        "qos0_size",
        "sources",
    )

    def __init__(self) -> None:
        self.appends: list[Append] = []
        self.sources: dict[StateSource, bool] = {}
        """And whether its state must be in this commit."""
        self.publishers: list[Publisher] = []
        """Who waits for this batch, maybe several times."""
        self.has_places = False
        self.handed: list[HandedOn] = []
        """The messages that were handed on, as far as the commit has begun."""
        self.durable = False
        """Whether somebody waits for the disk."""
        self.awaited_size = 0
        """Bytes in memory of what somebody waits for: all but QoS 0."""
        self.qos0_size = 0
        """Of the rest. Whoever adds to `appends` minds these three."""
        self._topics: set[str] = set()
        self._looked_at = 0
        """So many of `appends` have their topics in `_topics`."""

    @property
    def size(self) -> int:
        return self.awaited_size + self.qos0_size

    @property
    def message_count(self) -> int:
        return sum([len(append.messages) for append in self.appends])

    def add_qos0(self, messages: Sequence[Message]) -> None:
        """Messages that nobody waits for."""
        if messages:
            self.appends.append(Append(messages, (), 0, False, True, None))
            self.qos0_size += cost_of(messages)

    def add_handed(self, parts: Sequence[HandedOn]) -> None:
        """Messages of QoS 0 that were delivered already."""
        for part in parts:
            self.appends.append(Append(part.messages, (), 0, False, True, None, handed=part))
            self.qos0_size += part.size

    def commit_begins(self) -> list[Place]:
        """The places in the order of arrival that wait for this commit."""
        places: list[Place] = []
        self.handed = []
        after = 0
        for append in self.appends:
            if append.handed is not None:
                append.handed.commit_begins(after)
                self.handed.append(append.handed)
            after += len(append.messages)
            if append.place is not None:
                append.place.after = after
                places.append(append.place)
        return places

    def put_before(self, later: Batch) -> None:
        """It was not stored: let it wait, and then what came later."""
        self.appends += later.appends
        for source, must in later.sources.items():
            self.sources[source] = must or self.sources.get(source, False)
        self.publishers += later.publishers
        self.has_places = any(append.place is not None for append in self.appends)
        self._count()

    def take_out(self, refused: Callable[[Append], bool]) -> list[Append]:
        """What is not to wait."""
        kept: list[Append] = []
        out: list[Append] = []
        for append in self.appends:
            (out if refused(append) else kept).append(append)
        self.appends = kept
        return out

    def _count(self) -> None:
        self.durable = True in [append.durable for append in self.appends]
        self.awaited_size = sum([append.size for append in self.appends if append.awaited])
        self.qos0_size = sum([append.size for append in self.appends if not append.awaited])
        self._looked_at = 0

    def take_qos0(self) -> tuple[list[HandedOn], list[Message]]:
        """Take out the messages that nobody waits for: those handed on, and the others."""
        parts = [append.handed for append in self.appends if append.handed is not None]
        taken = [
            message
            for append in self.appends
            if not append.awaited and append.handed is None
            for message in append.messages
        ]
        self.appends = [append for append in self.appends if append.awaited]
        self.qos0_size = self._looked_at = 0
        self._topics.clear()
        self.handed = []
        return parts, taken

    def topics(self) -> set[str]:
        """Of its messages that were not handed on."""
        for append in self.appends[self._looked_at :]:
            if append.handed is None:
                self._topics.update([message.topic for message in append.messages])
        self._looked_at = len(self.appends)
        return self._topics

    def put_off(self, sources_max: int) -> Batch:
        """The next batch: of the sources that may wait it has all but the first `sources_max`, and
        who wants to hear of them."""
        following = Batch()
        waiting = [source for source, must in self.sources.items() if not must]
        for source in waiting[sources_max:]:
            following.sources[source] = False
            del self.sources[source]
        appends, self.appends = self.appends, []
        for append in appends:
            batch = following if append.unhurried in following.sources else self
            batch.appends.append(append)
        self._count()
        following._count()
        return following


def awaited(result: T) -> tuple[asyncio.Future[T], OnCommitted]:
    """A callback, and what to await in its place: the result, or the StoreError that it is called
    with."""
    done: asyncio.Future[T] = asyncio.get_running_loop().create_future()

    def settle(error: StoreError | None) -> None:
        if done.done():
            return
        if error is None:
            done.set_result(result)
        else:
            done.set_exception(error)

    return done, settle
