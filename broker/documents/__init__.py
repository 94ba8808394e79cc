"""Documents: the Session State that the log keeps beside its messages, and operations on it.

A document is a dataclass whose leading fields are its key; a store keeps one per class and key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple, TypeVar

from broker.documents.queues import (
    DeadLetterDocument,
    DeadNoticeDocument,
    GroupDocument,
    LoanDocument,
    MemberDocument,
    ReportDocument,
    RetryDocument,
)
from broker.documents.quotas import QuotaDocument, RetainedByDocument
from broker.message import NOT_SEEN, AgedUs, Offset, ServedUs, WallUs

BEFORE_ALL = Offset(0)
NOT_YET = Offset(2**63 - 1)
"""The start of a subscription whose commit is not done: no message is above it."""
NEVER_US = ServedUs(1 << 62)
"""A deadline that never comes."""


@dataclass(slots=True)
class SessionDocument:
    """A durable session, with its Tally. `expires_at_us`: served time; None: a client is there.
    `user`: whose it is; empty: it was made while there were no users, or by an operator."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    session_expiry_s: int
    created_at_us: int
    expires_at_us: ServedUs | None
    last_seen_us: WallUs = NOT_SEEN
    redelivered: int = 0
    missed: int = 0
    user: str = ""


@dataclass(slots=True)
class UserDocument:
    """A user. `password` and `scram` are what a password is verified by, never the password; empty:
    there is none. `roles` are separated by spaces."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    password: str
    scram: str
    roles: str
    created_at_us: WallUs
    changed_at_us: WallUs

    @property
    def role_names(self) -> tuple[str, ...]:
        return tuple(self.roles.split())


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


class Author(NamedTuple):
    """Who left a message that is published later: whose right to do so is asked for then. `user`
    None: an older program kept it, and not from whom. `roles`: of a token, with spaces between;
    None for those that the user has. `client_id` is empty for a line."""

    user: str | None = None
    roles: str | None = None
    client_id: str = ""


@dataclass(slots=True)
class WillDocument:
    """A Will Message, as its CONNECT has it, and whose."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    topic: str
    payload: bytes
    qos: int
    retain: bool
    properties: bytes
    expiry_s: int | None
    delay_s: int
    user: str | None = None
    roles: str | None = None

    @property
    def author(self) -> Author:
        return Author(self.user, self.roles, self.client_id)


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
    user: str | None = None
    roles: str | None = None
    client_id: str = ""

    @property
    def author(self) -> Author:
        return Author(self.user, self.roles, self.client_id)


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
class RuleDocument:
    """A rule of a user, or of all who have a role: it allows, or denies, `access` (the name of a
    right) to the topics of a filter."""

    KEY: ClassVar[tuple[str, ...]] = ("name", "is_role", "allow", "access", "filter")
    name: str
    is_role: bool
    allow: bool
    access: str
    filter: str


@dataclass(slots=True)
class TimeDocument:
    """The log's two clocks at the moment when the wall clock has `wall_us`. There is one of it."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    served_us: ServedUs
    aged_us: AgedUs
    wall_us: WallUs


@dataclass(slots=True)
class OwnerDocument:
    """Where several brokers share a log: which of them has this session. `epoch` rises each time it
    goes to another. It goes with the session."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    broker: str
    epoch: int


@dataclass(slots=True)
class WriterDocument:
    """A broker that has appended to a shared log: the number of its newest append, and where that
    is. `closed`: it was taken for dead, and what it appends later does not count."""

    KEY: ClassVar[tuple[str, ...]] = ("broker",)
    broker: str
    number: int
    position: int
    closed: bool = False


@dataclass(slots=True)
class CopyDocument:
    """In the copy of a shared log: which log, and how far it was copied. There is one of it."""

    KEY: ClassVar[tuple[str, ...]] = ("name",)
    name: str
    log_id: str
    position: int


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
    | GroupDocument
    | RetryDocument
    | DeadLetterDocument
    | DeadNoticeDocument
    | TimeDocument
    | MarkDocument
    | UserDocument
    | RuleDocument
    | OwnerDocument
    | WriterDocument
    | CopyDocument
    | QuotaDocument
    | RetainedByDocument
    | MemberDocument
    | LoanDocument
    | ReportDocument
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
    in-flight pages, received QoS 2 identifiers, what is kept of a group, and whose it is.
    Removing what is not there is no error. With `revision`, where `key` is whole: only that one.
    """

    kind: type[Document]
    key: Key
    revision: int | None = None


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
