"""Faces: what the registry asks of those who have a session, of groups, and of who ends them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Protocol

from broker.delivery.subscribers import Subscriber
from broker.documents import SessionDocument
from broker.errors import StoreError
from broker.message import Grant, Message, Monotonic

logger = logging.getLogger(__name__)


class Owner(Subscriber, Protocol):
    """Whoever is connected to a session."""

    address: str = ""
    """Where it is connected from, for people."""

    @property
    def member_names(self) -> Sequence[str] | None:
        """Of a group, who takes its messages."""
        return None

    def taken_over(self) -> None:
        """Another connection uses the client identifier: let go of the session. [MQTT-3.1.4-3]"""
        ...

    def removed(self) -> None:
        """An operator ends the session: let go of it."""
        self.taken_over()


class Member(Subscriber, Protocol):
    """A client that has a share of a group's messages: leases are put into its session."""

    @property
    def takes_more(self) -> bool:
        """Whether its socket has room. When it has again, it calls `Groups.drained`."""
        ...

    @property
    def limits_packets(self) -> bool:
        """Whether `fits` may be false."""
        ...

    def fits(self, message: Message, grant: Grant) -> bool:
        """Whether it takes packets as large as this message."""
        ...


class Times(Protocol):
    """Who wakes a group when something is due."""

    def retry_at(self, group: str, at: Monotonic) -> None:
        """A retry of the group is due then."""

    def lease_over_at(self, at: Monotonic) -> None:
        """Somebody was leased something until then."""


class RedeliveryUser(Protocol):
    """The group that this is for."""

    def wake(self) -> None:
        """Something is ready."""

    def cursor_moved(self) -> None:
        """Messages have left its window: once that is stored, more may be leased (P4)."""

    def failed(self, error: Exception) -> None:
        """What is to be tried again cannot be read."""


class NobodyUsesIt(RedeliveryUser):
    """In place of a group that is closed."""

    def wake(self) -> None: ...

    def cursor_moved(self) -> None: ...

    def failed(self, error: Exception) -> None:
        logger.critical("what is to be tried again", exc_info=error)


class Nobody(Member):
    """In place of a member, to open a group that has none here."""

    takes_more = False
    limits_packets = False

    def fits(self, message: Message, grant: Grant) -> bool:
        return False

    def wake(self) -> None:
        raise AssertionError("nobody is there")

    def broken(self, error: StoreError) -> None:
        raise AssertionError("nobody is there")

    def failed(self, error: Exception) -> None:
        raise AssertionError("nobody is there")


class Operator(Owner):
    """Whoever changes the session of a client that is away. It is sent nothing."""

    def wake(self) -> None:
        """It takes nothing."""

    def broken(self, error: StoreError) -> None:
        """It reads nothing."""

    def failed(self, error: Exception) -> None:
        """It is served nothing."""

    def taken_over(self) -> None:
        raise AssertionError("whoever else wants the session waits")


OPERATOR = Operator()


class AbsentGroups:
    """Whoever says when a group ends that nobody is a member of: its session has no interval."""

    stopping = False  # Whether the broker stops: members may come back to the next run.

    def found(self, document: SessionDocument, expires_at: Monotonic) -> None:
        """The group was there at the start."""

    def arrived(self, name: str) -> None:
        """The group was another broker's."""

    def closed(self, name: str) -> None:
        """The last member has left."""

    def due(self, names: Sequence[str]) -> None:
        """What was said has come, by `Sessions.expire_at`."""

    def sessions_ended(self) -> None:
        """Durable sessions end with the commit that begins, and their subscriptions to groups."""
