"""Quotas: how much of the broker a user may use. Each limit may be set or not."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from broker.errors import CommandInvalid

LIMIT_MAX = 10**12


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """None: there is no such limit but the broker's own."""

    connections: int | None = None
    """At a time."""
    sessions: int | None = None
    """That outlive their connections, of clients and of line subscribers."""
    groups: int | None = None
    """Of Shared Subscriptions, that are the user's."""
    subscriptions: int | None = None
    """Of each session."""
    packet_bytes: int | None = None
    """Of one packet from the user."""
    publish_per_s: int | None = None
    """Messages, from all connections of the user together."""
    publish_bytes_per_s: int | None = None
    """Topics and payloads of these."""
    retained: int | None = None
    """Topics on which a message of the user is retained."""


UNLIMITED = Quota()
LEAST = {"packet_bytes": 256}
"""Elsewhere 1."""
LIMITS = tuple(field.name for field in fields(Quota))


def effective(own: Quota, of_roles: Iterable[Quota]) -> Quota:
    """What the user itself has goes before what its roles have; of these the largest counts."""
    of_roles = [*of_roles]
    limits: dict[str, int | None] = {}
    for name in LIMITS:
        limit = getattr(own, name)
        if limit is None:
            set_by_roles = [one for role in of_roles if (one := getattr(role, name)) is not None]
            limit = max(set_by_roles, default=None)
        limits[name] = limit
    return Quota(**limits)


def validate(quota: Quota) -> None:
    """Raises CommandInvalid: a limit is none."""
    for name in LIMITS:
        limit, least = getattr(quota, name), LEAST.get(name, 1)
        if limit is not None and not least <= limit <= LIMIT_MAX:
            raise CommandInvalid(f"{name} must be {least} to {LIMIT_MAX:,}", "or leave it out")


class Pace:
    """How fast a user may publish. Bytes and messages count; a second's worth may come at once."""

    __slots__ = ("_bytes_per_s", "_done_at", "_per_s")

    def __init__(self, quota: Quota) -> None:
        self._per_s = quota.publish_per_s
        self._bytes_per_s = quota.publish_bytes_per_s
        self._done_at = 0.0
        """When what came so far would have come at the pace; monotonic seconds."""

    def ahead_s(self, now: float) -> float:
        """By how much the user has published too early. Not above 0: it has not."""
        return self._done_at - now - 1.0

    def take(self, count: int, size: int, now: float) -> None:
        by_count = count / self._per_s if self._per_s is not None else 0.0
        by_size = size / self._bytes_per_s if self._bytes_per_s is not None else 0.0
        self._done_at = max(self._done_at, now) + max(by_count, by_size)
