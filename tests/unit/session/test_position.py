from __future__ import annotations

from broker.message import Offset
from broker.session.position import LivePosition, Position
from broker.session.session import Session


def session(client_id: str) -> Session:
    return Session(client_id, created_at_us=1, start=Offset(3), inflight_max=100)


def test_a_batch_that_is_routed_moves_every_live_session() -> None:
    live = LivePosition(Offset(7))
    both = session("a"), session("b")
    for each in both:
        each.go_live(live)
    live.advance(Offset(9))
    assert [(each.position.is_live, each.cursor()) for each in both] == [(True, 9), (True, 9)]


def test_a_session_that_falls_behind_stays_where_it_was() -> None:
    live = LivePosition(Offset(7))
    slow = session("slow")
    slow.go_live(live)
    slow.fall_behind()
    live.advance(Offset(9))
    assert (slow.position.is_live, slow.position.through) == (False, 7)


def test_a_reader_takes_on_a_session_that_is_behind_and_no_other() -> None:
    live = LivePosition(Offset(7))
    one, other = session("one"), session("other")
    for each in (one, other):
        each.go_live(live)
        each.fall_behind()
    one.position.advance(Offset(9))
    assert (one.position.through, other.position.through, live.through) == (9, 7, 7)


def test_a_session_is_not_live_before_and_after_its_client_is_there() -> None:
    """It would miss what is routed meanwhile."""
    live = LivePosition(Offset(7))
    sub = session("sub")
    assert (sub.position.is_live, sub.position.through) == (False, 3)
    sub.attach(100)
    sub.go_live(live)
    sub.detach()
    live.advance(Offset(9))
    assert (sub.position.is_live, sub.position.through) == (False, 7)


def test_a_position_is_behind_unless_it_is_the_live_one() -> None:
    assert not Position(Offset(1)).is_live
    assert LivePosition(Offset(1)).is_live
