"""Subscribers: whoever empties attached sessions. A mistake while one is called is that one's."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Protocol

from broker.errors import StoreError
from broker.message import Outgoing
from broker.session.session import Session

logger = logging.getLogger(__name__)


class Subscriber(Protocol):
    """Whoever empties a session: its client."""

    def wake(self) -> None:
        """There is something to take, or more may be in flight."""
        ...

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        """Send these QoS 0 messages now, all of them. False: it cannot, and sent none."""
        return False

    def broken(self, error: StoreError) -> None:
        """The log cannot be read for this session."""
        ...

    def failed(self, error: Exception) -> None:
        """We made a mistake while it was served: log it and cut the client off. Raises nothing."""
        ...


class Subscribers:
    """By session. Nothing here raises anything."""

    def __init__(self) -> None:
        self._of: dict[Session, Subscriber] = {}

    def __contains__(self, session: Session) -> bool:
        return session in self._of

    def __iter__(self) -> Iterator[Session]:
        return iter([*self._of])

    def add(self, session: Session, subscriber: Subscriber) -> None:
        self._of[session] = subscriber

    def remove(self, session: Session) -> None:
        self._of.pop(session, None)

    def wake(self, session: Session) -> None:
        """Tell its client that there is something to take; of no effect once that has left."""
        subscriber = self._of.get(session)
        if subscriber is not None:
            try:
                subscriber.wake()
            except Exception as error:
                self.failed(session, error)

    def hand_on(self, session: Session, outgoing: list[Outgoing]) -> bool:
        """Whether its client took these QoS 0 messages, all of them; it took none if not."""
        subscriber = self._of.get(session)
        if subscriber is None:
            return False
        try:
            return subscriber.hand_on(outgoing)
        except Exception as error:
            self.failed(session, error)
            return False

    def failed(self, session: Session, error: Exception) -> None:
        """The session cannot be served on: its client is closed, and nobody else's. A StoreError
        says that the log cannot be read, anything else is a mistake of ours."""
        subscriber = self._of.get(session)
        if subscriber is None:
            logger.critical("session of %r", session.client_id, exc_info=error)
            return
        try:
            if isinstance(error, StoreError):
                subscriber.broken(error)
            else:
                subscriber.failed(error)
        except Exception as another:
            subscriber.failed(another)
