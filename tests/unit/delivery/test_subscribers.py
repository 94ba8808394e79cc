from __future__ import annotations

import logging

import pytest

from broker.delivery.subscribers import Subscriber, Subscribers
from broker.errors import StoreError, StoreUnavailable
from broker.message import Grant, Offset, Outgoing
from broker.session.session import Session
from tests.support.messages import message


class Clumsy(Subscriber):
    """Makes a mistake whenever it is called."""

    def __init__(self) -> None:
        self.errors: list[Exception] = []

    def wake(self) -> None:
        raise ZeroDivisionError

    def hand_on(self, outgoing: list[Outgoing]) -> bool:
        raise ZeroDivisionError

    def broken(self, error: StoreError) -> None:
        raise ZeroDivisionError

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


@pytest.fixture
def session() -> Session:
    return Session("me", created_at_us=1, start=Offset(0), inflight_max=10)


def test_a_mistake_is_told_to_whoever_made_it(session: Session) -> None:
    subscribers, clumsy = Subscribers(), Clumsy()
    subscribers.add(session, clumsy)
    subscribers.wake(session)
    assert not subscribers.hand_on(session, [(message(), Grant(0))])
    subscribers.failed(session, StoreUnavailable("lost"))
    assert [type(error) for error in clumsy.errors] == [ZeroDivisionError] * 3


def test_who_has_left_is_not_called(session: Session, caplog: pytest.LogCaptureFixture) -> None:
    subscribers = Subscribers()
    subscribers.add(session, Clumsy())
    subscribers.remove(session)
    assert session not in subscribers
    assert [*subscribers] == []
    subscribers.wake(session)
    assert not subscribers.hand_on(session, [])
    subscribers.failed(session, ValueError())
    assert [record.levelno for record in caplog.records] == [logging.CRITICAL]
