"""Documents: the Session State that the log keeps beside its messages, and operations on it.

A document is a dataclass whose leading fields are its key; a store keeps one per class and key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeVar

from broker.message import AgedUs, Offset, ServedUs, WallUs

BEFORE_ALL = Offset(0)
NOT_YET = Offset(2**63 - 1)
"""The start of a subscription whose commit is not done: no message is above it."""
NEVER_US = ServedUs(1 << 62)
"""A deadline that never comes."""


@dataclass(slots=True)
class SessionDocument:
    """A durable session. `expires_at_us` (served time) is None while its client is connected."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    session_expiry_s: int
    created_at_us: int
    expires_at_us: ServedUs | None


@dataclass(slots=True)
class SubscriptionDocument:
    """A subscription: owed are the matching messages above `start_offset` and, where it is not
    None, at or below `until_offset`.

    While `replaying`, it catches up on its own: everything of it up to `start_offset` was handed on
    and the session's cursor does not speak for it. `metadata` asks for offset, time and publisher
    with each message. Of the retained messages that matched when it was made, those above
    `retained_after` and at or below `retained_through` were not handed on yet.
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
        """Above which offset, and up to which, retained messages are still to be handed on."""
        return self.retained_after, self.retained_through

    def owes_retained(self, offset: Offset) -> bool:
        """Whether the retained message with this offset is still to be handed on."""
        return self.retained_after < offset <= self.retained_through


@dataclass(slots=True)
class CursorDocument:
    """What a durable session has acknowledged.

    Everything at or below `offset`, and everything in (offset, sent_through] that is not in flight.
    `inflight` lists that, or vouches for the InFlightDocuments that do (`session/cursor.py` packs
    both). `next_packet_id` continues the Packet Identifiers.
    """

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    offset: Offset
    sent_through: Offset
    next_packet_id: int
    inflight: bytes


@dataclass(slots=True)
class InFlightDocument:
    """What a durable session with much in flight has in flight under the Packet Identifiers of one
    page: so a commit writes the pages that changed."""

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
    """What is to be known of a will before it is published. `due_at_us` (served time) is None while
    its client is connected."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    delay_s: int
    due_at_us: ServedUs | None


@dataclass(slots=True)
class TimeDocument:
    """What the log's two clocks have when the wall clock has `wall_us`. There is one of it."""

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
    | TimeDocument
)
D = TypeVar(
    "D",
    SessionDocument,
    SubscriptionDocument,
    CursorDocument,
    InFlightDocument,
    ReceivedQos2Document,
    WillDocument,
    WillDeadlineDocument,
    TimeDocument,
)


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


@dataclass(slots=True)
class Put:
    """Write a document whole. With `revision`, only over that one (0: only if there is none).

    The fields of the document that `places` names are filled in by the commit, with the offsets of
    these places: of the same append, or known since an earlier one.
    """

    document: Document
    revision: int | None = None
    places: Mapping[str, Place] | None = None


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
        if isinstance(operation, Put) and operation.places:
            for name, place in operation.places.items():
                setattr(operation.document, name, place.offset)
