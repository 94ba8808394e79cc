"""Removed: what the log lost while somebody waited for it waits in memory, too.

Nobody gets it from there: whoever has any of it waiting reads on in the log, and so is told what is
missing. What was sent already, or is leased to a member of a group, stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Protocol

from broker.delivery.readers import CatchUp, Feed, Reader, ReaderKey, Replay
from broker.message import Offset, Outgoing
from broker.session.session import Session


class Delivers(Feed, Protocol):
    """Delivery."""

    def stop(self, session: Session, key: ReaderKey) -> None: ...

    def fall_behind(self, session: Session, through: Offset) -> None: ...

    def start(self, session: Session, reader: Reader) -> None: ...


def read_on(
    delivery: Delivers,
    sessions: Iterable[Session],
    offsets: Collection[Offset],
    failed: Callable[[Session, Exception], None],
) -> None:
    """These offsets are not in the log any more. Raises nothing."""
    first, last = min(offsets), max(offsets)
    for session in sessions:
        try:
            outbox = session.outbox
            # In the order of the log: most sessions have only newer ones.
            if outbox and outbox[0][0].offset <= last and outbox[-1][0].offset >= first:
                _read_on(delivery, session, offsets)
            if session.supply.aside:
                _replay_on(delivery, session, offsets)
        except Exception as error:
            failed(session, error)


def _read_on(delivery: Delivers, session: Session, offsets: Collection[Offset]) -> None:
    if _any_of(session.outbox, offsets):
        delivery.stop(session, (CatchUp, None))
        delivery.fall_behind(session, session.supply.forget_waiting())


def _replay_on(delivery: Delivers, session: Session, offsets: Collection[Offset]) -> None:
    waiting = [entry for entry in session.supply.aside if entry[1].replay]
    if _any_of(waiting, offsets):
        for topic_filter in {grant.replay for _, grant in waiting}:
            delivery.stop(session, (Replay, topic_filter))
            session.supply.forget_replay(topic_filter)
            replay = Replay(delivery, session, session.subscriptions[topic_filter])
            delivery.start(session, replay)


def _any_of(waiting: Iterable[Outgoing], offsets: Collection[Offset]) -> bool:
    return any(message.offset in offsets for message, _ in waiting)
