"""What a member has still, though another may have it by now."""

from __future__ import annotations

from broker.message import Lease, Offset, ServedUs
from broker.registry.groups.retries import Retry
from broker.registry.groups.taken_back import TakenBack
from broker.session.session import Session


def session(name: str) -> Session:
    return Session(name, created_at_us=1, start=Offset(0), inflight_max=1)


def test_it_is_known_who_has_it_until_each_lets_it_go() -> None:
    one, two, taken = session("one"), session("two"), TakenBack()
    for member in (one, two):
        taken.add(member, Lease("g", 0, Offset(7), 3))
    assert (taken.has(one, Offset(7)), taken.has(one, Offset(8))) == (True, False)
    taken.let_go(one, Offset(7))
    assert (taken.has(one, Offset(7)), taken.has(two, Offset(7)), len(taken)) == (False, True, 1)
    taken.let_go(two, Offset(7))
    assert len(taken) == 0


def test_it_knows_where_the_message_is_tried_again() -> None:
    taken = TakenBack()
    again = Retry(ServedUs(5), Offset(7), 4)
    taken.goes_on(again)
    assert taken.retry(Offset(7)) is None
    taken.add(session("one"), Lease("g", 0, Offset(7), 3))
    taken.goes_on(again)
    assert taken.retry(Offset(7)) == again
    taken.forget(Offset(7))
    assert taken.retry(Offset(7)) is None


def test_what_everybody_has_waits_until_one_lets_it_go_or_another_comes() -> None:
    one, two, taken = session("one"), session("two"), TakenBack()
    again = Retry(ServedUs(5), Offset(7), 4)
    for member in (one, two):
        taken.add(member, Lease("g", 0, Offset(7), 3))
    taken.goes_on(again)
    assert taken.let_go(session("other"), Offset(7)) is None
    taken.wait(Offset(7))
    assert (taken.waiting, taken.let_go(session("other"), Offset(7))) == (1, None)
    assert (taken.let_go(one, Offset(7)), taken.waiting) == (again, 0)
    taken.wait(Offset(7))
    assert (taken.take_waiting(), taken.take_waiting()) == ([again], [])
    taken.wait(Offset(7))
    assert taken.let_go(two, Offset(7)) == again
