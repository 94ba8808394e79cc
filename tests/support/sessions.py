"""One session without a broker, and what a reader and the log do with it."""

from __future__ import annotations

from broker.documents import CursorDocument, Put
from broker.message import Grant, Message, Offset, Outgoing
from broker.session.session import Session
from tests.support.messages import message

ALL = 1 << 30


def session(*, durable: bool = True, inflight_max: int = 100, window: int = 100) -> Session:
    """A connected session that has nothing to store but what the test makes."""
    made = Session("sub1", created_at_us=1, start=Offset(0), inflight_max=inflight_max)
    made.set_expiry(60 if durable else 0)
    made.attach(window)
    return made


def offer(to: Session, *messages: Message, qos: int = 2) -> None:
    """As a live reader does."""
    to.supply.offer([(m, Grant(qos)) for m in messages], sum(m.cost for m in messages))
    to.position.advance(messages[-1].offset)


def numbered(count: int, *, first: int = 1, qos: int = 1) -> list[Message]:
    return [message(str(n), offset=n, qos=qos) for n in range(first, first + count)]


def cursor_of(of: Session) -> CursorDocument:
    [put] = [p for p in of.take_changes() if isinstance(p, Put)]
    assert isinstance(put.document, CursorDocument)
    return put.document


def commit(of: Session) -> None:
    of.take_changes()
    of.committed()


def aside(of: Session, *messages: Message, replay: str = "") -> None:
    entries: list[Outgoing] = [(m, Grant(2, retained=not replay, replay=replay)) for m in messages]
    of.supply.offer_aside(entries)


def kept(topic: str, offset: int, publisher: str = "pub1") -> Message:
    return message(topic=topic, offset=offset, publisher=publisher, retain=True)


def offer_kept(to: Session, messages: list[Message]) -> None:
    """Read them anew, and all at once. All from before them was offered."""
    to.position.advance(messages[-1].offset)
    to.owed.begin_read()
    to.owed.offer(messages, last_part=True)


def owing(of: Session) -> list[str]:
    return [subscription.filter for subscription in of.owed.subscriptions()]
