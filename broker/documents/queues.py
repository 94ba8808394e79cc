"""Queue documents: what the log keeps of the groups of Shared Subscriptions beside their sessions.

They are documents like those of `documents.py`. `client_id` is the name of the group, with its
filter, as its session has it; `group_name` is the same of documents that outlive the session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from broker.message import AgedUs, Offset, ServedUs

ATTEMPTS_MAX = 5
BACKOFF_FIRST_MS = 1_000
BACKOFF_MAX_MS = 300_000
LEASE_MS = 300_000
"""What a group has unless its making says otherwise."""


@dataclass(slots=True)
class GroupDocument:
    """A group that was made by a command: it stays until it is removed by one, and a refusal is a
    failed attempt. Other groups have none."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id",)
    client_id: str
    attempts_max: int
    backoff_first_ms: int
    backoff_max_ms: int
    lease_ms: int
    created_at_us: int

    @classmethod
    def asked(cls, words: Mapping[str, str]) -> GroupDocument:
        """As a request asks for it. Raises KeyError, ValueError."""
        return cls(
            words["name"],
            int(words.get("attempts", ATTEMPTS_MAX)),
            int(words.get("backoff_first_ms", BACKOFF_FIRST_MS)),
            int(words.get("backoff_max_ms", BACKOFF_MAX_MS)),
            int(words.get("lease_ms", LEASE_MS)),
            created_at_us=0,
        )


@dataclass(slots=True)
class RetryDocument:
    """A message that the group owes beside its cursor: it was handed out, is not acknowledged, and
    goes out again when `due_at_us` (served time) has come.

    `attempts` failed so far. `holder` is the client that had it when the broker stopped, and may
    have it back before that; or empty.
    """

    KEY: ClassVar[tuple[str, ...]] = ("client_id", "due_at_us", "offset")
    client_id: str
    due_at_us: ServedUs
    offset: Offset
    attempts: int
    holder: str


@dataclass(slots=True)
class DeadLetterDocument:
    """A message that no member could deal with: it stays in the log at `offset` until the dead
    letter is dropped, or older than `dead_letter_age_s`. `died_at_us` is aged time."""

    KEY: ClassVar[tuple[str, ...]] = ("group_name", "offset")
    group_name: str
    offset: Offset
    attempts: int
    reason: str
    worker: str
    died_at_us: AgedUs


@dataclass(slots=True)
class DeadNoticeDocument:
    """A dead letter that is to be told on its topic, and was not yet."""

    KEY: ClassVar[tuple[str, ...]] = ("group_name", "offset")
    group_name: str
    offset: Offset


@dataclass(slots=True)
class MemberDocument:
    """A worker of a group, connected to `broker`, while another broker has the group. It has a new
    number each time that it joins. `window`: how many messages it may have."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id", "broker", "number")
    client_id: str
    broker: str
    number: int
    worker: str
    window: int


@dataclass(slots=True)
class LoanDocument:
    """Messages that the broker of a group has leased to workers at `broker`, until all of these
    have ended. `leases`: see `registry/groups/loans.py`."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id", "broker", "number")
    client_id: str
    broker: str
    number: int
    leases: str


@dataclass(slots=True)
class ReportDocument:
    """What became of such messages, until the broker of the group has dealt with it. `report`: see
    `registry/groups/loans.py`."""

    KEY: ClassVar[tuple[str, ...]] = ("client_id", "broker", "number")
    client_id: str
    broker: str
    number: int
    report: str
