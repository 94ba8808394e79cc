"""Documents: the Session State that the log keeps beside its messages, and operations on it.

A document is a dataclass whose leading fields are its key; a store keeps one per class and key.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from broker.message import NOT_SEEN, AgedUs, Message, Offset, ServedUs, WallUs

BEFORE_ALL = Offset(0)
NOT_YET = Offset(2**63 - 1)
"""The start of a subscription whose commit is not done: no message is above it."""
NEVER_US = ServedUs(1 << 62)
"""A deadline that never comes."""


@dataclass(slots=True)
class SessionDocument:
    """A durable session, with its Tally. `expires_at_us`: served time; None: a client is there."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    session_expiry_s: int
    created_at_us: int
    expires_at_us: ServedUs | None
    last_seen_us: WallUs = NOT_SEEN
    redelivered: int = 0
    missed: int = 0


@dataclass(slots=True)
class SubscriptionDocument:
    """A subscription. The session gets the matching messages above `start_offset` and, unless it is
    None, at or below `until_offset`.

    While `replaying`, it has its own place: its messages up to `start_offset` were handed on, and
    the session's cursor does not count for it. `metadata`: send offset, time and publisher with
    each message. Retained messages that matched when it was made are still to be handed on where
    their offset is above `retained_after` and at or below `retained_through`.
    """

    KEY: ClassVar[tuple[str, ...]] = ("client_id", "filter")
    client_id: str
    filter: str
    qos: int
    no_local: bool
    retain_as_published: bool
    retain_handling: int
    subscription_id: int | None
    start_offset: Offset
    until_offset: Offset | None = None
    replaying: bool = False
    metadata: bool = False
    retained_after: Offset = BEFORE_ALL
    retained_through: Offset = BEFORE_ALL

    @property
    def owed_retained(self) -> tuple[Offset, Offset]:
        """Retained messages above the first offset, up to the second, are to be handed on."""
        return self.retained_after, self.retained_through

    def owes_retained(self, offset: Offset) -> bool:
        """Whether the retained message with this offset is still to be handed on."""
        return self.retained_after < offset <= self.retained_through


@dataclass(slots=True)
class CursorDocument:
    """The offsets that a durable session has acknowledged.

    These are all at or below `offset`, and all in (offset, sent_through] that are not in flight.
    `inflight` lists what is in flight, or confirms the InFlightDocuments that list it; it also has
    the offsets above `sent_through` that were handed on already. `session/cursor.py` packs both.
    The next Packet Identifier is `next_packet_id`.
    """

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    offset: Offset
    sent_through: Offset
    next_packet_id: int
    inflight: bytes


@dataclass(slots=True)
class InFlightDocument:
    """A page of Packet Identifiers in flight, of a durable session with many. So a commit writes
    only the pages that changed."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id", "page")
    client_id: str
    page: int
    exchanges: bytes


@dataclass(slots=True)
class ReceivedQos2Document:
    """Packet Identifiers of QoS 2 messages that are stored, not yet released (big-endian u16)."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    packet_ids: bytes


@dataclass(slots=True)
class WillDocument:
    """A Will Message, as its CONNECT has it."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes
    expiry_s: int | None
    delay_s: int


@dataclass(slots=True)
class WillDeadlineDocument:
    """When a will is due, without the will itself. `due_at_us` (served time) is None while its
    client is connected."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    delay_s: int
    due_at_us: ServedUs | None


@dataclass(slots=True)
class DelayedDocument:
    """A message that is to be in the log later. Numbers rise in the order of arrival."""

    KEY: ClassVar[tuple[str, ...]] = ("number",)
    number: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    publisher: str
    properties: bytes
    expiry_s: int | None


@dataclass(slots=True)
class DelayedDeadlineDocument:
    """When a delayed message is due, without the message itself: by the wall clock if `by_wall`,
    else in served time. `cost` is the memory that the message takes."""

    KEY: ClassVar[tuple[str, ...]] = ("number",)
    number: str
    due_at_us: int
    by_wall: bool
    cost: int


@dataclass(slots=True)
class DedupDocument:
    """The key of a message, publisher and topic included, as a digest; until `ends_at_us` (served
    time) what comes with it repeats the message at `offset`. 0: that was delayed."""

    KEY: ClassVar[tuple[str, ...]] = ("digest",)
    digest: str
    offset: Offset
    ends_at_us: ServedUs


@dataclass(slots=True)
class MarkDocument:
    """The messages up to `offset` were there when served time was `served_us`."""

    KEY: ClassVar[tuple[str, ...]] = ("offset",)
    offset: Offset
    served_us: ServedUs


@dataclass(slots=True)
class TimeDocument:
    """The log's two clocks at the moment when the wall clock has `wall_us`. There is one of it."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    served_us: ServedUs
    aged_us: AgedUs
    wall_us: WallUs


Document = (
    SessionDocument
    | SubscriptionDocument
    | CursorDocument
    | InFlightDocument
    | ReceivedQos2Document
    | WillDocument
    | WillDeadlineDocument
    | DelayedDocument
    | DelayedDeadlineDocument
    | DedupDocument
    | TimeDocument
    | MarkDocument
)
D = TypeVar("D", bound=Document)


Key = tuple[str | int, ...]


@dataclass(slots=True)
class Place:
    """A place in the order of arrival: right after the `after`-th message of an append; 0: before
    its first.

    The commit sets `offset`: that of this message; for 0, the newest offset before the append. No
    one else can know it, since other brokers may append to the same log.
    """

    after: int = 0
    offset: Offset = NOT_YET


class HandedOn:
    """QoS 0 messages that were delivered as they came, side by side on their way into the log.

    They came in *runs*, one for each read of a publisher's socket. Runs are numbered as they come.
    So one number tells what a session was handed: all runs up to it that it wanted.
    """

    __slots__ = (
        "_between",
        "_ends",
        "_numbers",
        "_offsets",
        "after",
        "first",
        "last",
        "messages",
        "places",
        "size",
    )

    def __init__(self) -> None:
        self.messages: list[Message] = []
        """Empty once they are routed. Their offsets stay."""
        self.size = 0
        """Bytes in memory."""
        self.after: int | None = None
        """In the commit that runs they come right after so many messages; None: in none."""
        self.first = self.last = NOT_YET
        """Their offsets, once they are committed."""
        self._numbers = array("q")
        self._ends = array("q")
        """Of each run: its number, and how many messages there are up to its end."""
        self._offsets = array("q")
        """The first offset and, for each run, its last; empty while they are not committed."""
        self.places: list[Place] = []
        """Those that were asked for, of the commit that runs ..."""
        self._between: dict[int, tuple[Place, Place]] = {}
        """... by how many messages lie between them."""

    def add(self, number: int, messages: Sequence[Message], size: int) -> None:
        self.messages += messages
        self.size += size
        self._numbers.append(number)
        self._ends.append(len(self.messages))

    def begins_by(self, number: int) -> bool:
        """Whether it has the run with this number, or one before it."""
        return self._numbers[0] <= number

    def later(self, number: int) -> list[Message]:
        """The messages of the runs above this number."""
        return self.messages[self._count(number) :]

    def _count(self, number: int) -> int:
        """How many messages the runs up to this number have."""
        runs = bisect_right(self._numbers, number)
        return self._ends[runs - 1] if runs else 0

    def commit_begins(self, after: int) -> None:
        self.after = after

    def between(self, number: int) -> tuple[Place, Place] | None:
        """In the commit that runs: the places before these messages, and after those of the runs up
        to this number. None if there are none."""
        count = self._count(number)
        if self.after is None or not count:
            return None
        between = self._between.get(count)
        if between is None:
            between = self._between[count] = Place(self.after), Place(self.after + count)
            self.places += between
        return between

    def committed(self) -> None:
        """The store has set the offsets of the messages."""
        self.after = None
        self.places = []
        self._between = {}
        offsets = [self.messages[end - 1].offset for end in self._ends]
        self.first, self.last = self.messages[0].offset, self.messages[-1].offset
        self._offsets = array("q", [self.first, *offsets])

    def not_committed(self) -> None:
        self.after = None
        self.places = []
        self._between = {}

    def offsets(self, number: int) -> range:
        """Those of the runs up to this number, as far as they are committed."""
        runs = bisect_right(self._numbers, number)
        if not (self._offsets and runs):
            return range(0)
        return range(self._offsets[0], self._offsets[runs] + 1)

    def routed(self) -> None:
        """Only the offsets are needed from here on."""
        self.messages = []


class AheadOfLog:
    """What was handed on and is not routed, in the order of the log."""

    __slots__ = ("committed", "number", "parts", "routed_through", "state")

    def __init__(self) -> None:
        self.number = 0
        """Of the newest run."""
        self.parts: deque[HandedOn] = deque()
        self.state = 0
        """Changes with everything that changes which parts there are, or how far they came."""
        self.committed: deque[tuple[Offset, Callable[[], set[str]]]] = deque()
        """What is behind none of it: batches that are not routed, with messages that were not
        handed on. Of each the last offset, and what tells the topics of these messages."""
        self.routed_through = BEFORE_ALL
        """Every message of the log up to this offset was routed."""

    def forget_routed(self) -> None:
        """What is routed is not ahead of anything any more."""
        while self.parts and self.parts[0].last <= self.routed_through:
            self.parts.popleft().routed()
            self.state += 1
        while self.committed and self.committed[0][0] <= self.routed_through:
            self.committed.popleft()


@dataclass(slots=True)
class Put:
    """Write a document whole. With `revision`, only over that one (0: only if there is none).

    The fields of the document that `places` names are filled in by the commit, with the offsets of
    these places: of the same append, or known since an earlier one. `fill_in` does what is more
    than that, in the thread that writes.
    """

    document: Document
    revision: int | None = None
    places: Mapping[str, Place] | None = None
    fill_in: Callable[[], None] | None = None


@dataclass(slots=True)
class Delete:
    """Remove every document of a class whose key begins with `key` (a session's subscriptions: its
    client identifier). Removing a SessionDocument removes the session's subscriptions, cursor,
    in-flight pages and received QoS 2 identifiers with it. Removing what is not there is no error.
    """

    kind: type[Document]
    key: Key


Operation = Put | Delete


def fill_in(
    operations: Iterable[Operation], places: Sequence[Place], before: Offset, first: int
) -> None:
    """Set the offsets of an append's places, and the fields of its documents that wait for them.

    `before` is the newest offset before the append, `first` that of its first message.
    """
    for place in places:
        place.offset = Offset(first + place.after - 1) if place.after else before
    for operation in operations if places else ():
        if isinstance(operation, Put):
            for name, place in (operation.places or {}).items():
                setattr(operation.document, name, place.offset)
            if operation.fill_in is not None:
                operation.fill_in()
