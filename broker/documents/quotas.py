"""Quota documents: what users may use, and what they have of it that nothing else in the log tells.

They are documents like those of `documents.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from broker.message import Offset


@dataclass(slots=True)
class QuotaDocument:
    """What a user or a role (`kind`) may use: see `broker/security/quotas.py`."""

    KEY: ClassVar[tuple[str, ...]] = ("kind", "name")
    kind: str
    name: str
    connections: int | None = None
    sessions: int | None = None
    groups: int | None = None
    subscriptions: int | None = None
    packet_bytes: int | None = None
    publish_per_s: int | None = None
    publish_bytes_per_s: int | None = None
    retained: int | None = None


@dataclass(slots=True)
class RetainedByDocument:
    """The message at `offset` was to be retained, and is of this user. It may not be retained any
    more: whoever replaces or removes it does not look here. `digest` is of its topic."""

    KEY: ClassVar[tuple[str, ...]] = ("user", "digest")
    user: str
    digest: str
    offset: Offset
