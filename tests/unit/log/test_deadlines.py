from __future__ import annotations

from broker.clock import NEVER
from broker.log.deadlines import OUT_OF_DATE_MAX, Deadlines
from broker.message import Monotonic


def deadlines(**seconds: float) -> Deadlines[Monotonic]:
    deadlines = Deadlines[Monotonic]()
    for key, at in seconds.items():
        deadlines.set(key, Monotonic(at))
    return deadlines


def test_what_is_due_comes_soonest_first_and_is_gone() -> None:
    waiting = deadlines(c=3, a=1, b=2, later=9)
    assert waiting.take_due(Monotonic(3), 10) == ["a", "b", "c"]
    assert waiting.soonest() == Monotonic(9)
    assert len(waiting) == 1
    assert waiting.take_due(Monotonic(3), 10) == []


def test_the_one_that_has_been_due_longest_can_be_looked_at_first() -> None:
    waiting = deadlines(b=2, a=1)
    assert waiting.first_due(Monotonic(0)) is None
    assert waiting.first_due(Monotonic(2)) == "a"
    waiting.remove("a")
    assert waiting.first_due(Monotonic(2)) == "b"


def test_no_more_is_taken_than_the_limit_and_the_rest_stays_due() -> None:
    waiting = deadlines(a=1, b=2, c=3)
    assert waiting.take_due(Monotonic(3), 2) == ["a", "b"]
    assert waiting.soonest() == Monotonic(3)


def test_setting_it_again_moves_it_either_way() -> None:
    waiting = deadlines(a=1, b=5)
    waiting.set("a", Monotonic(9))
    waiting.set("b", Monotonic(4))
    assert waiting.soonest() == Monotonic(4)
    assert waiting.take_due(Monotonic(9), 10) == ["b", "a"]


def test_what_was_removed_is_not_due() -> None:
    waiting = deadlines(a=1, b=2)
    assert waiting.remove("a")
    assert not waiting.remove("a")
    assert waiting.soonest() == Monotonic(2)
    assert waiting.take_due(Monotonic(2), 10) == ["b"]
    assert waiting.soonest() is None


def test_never_is_kept_and_never_due() -> None:
    waiting = deadlines(a=1)
    waiting.set("a", NEVER)
    assert "a" in waiting
    assert waiting.soonest() is None
    assert waiting.take_due(Monotonic(1e18), 10) == []


def test_a_deadline_that_was_moved_away_and_back_is_due_once() -> None:
    waiting = deadlines(a=1)
    waiting.set("a", NEVER)
    waiting.set("a", Monotonic(1))
    assert waiting.take_due(Monotonic(1), 10) == ["a"]


def test_moving_a_deadline_again_and_again_leaves_nothing_behind() -> None:
    waiting = deadlines(soon=0)
    for n in range(3 * OUT_OF_DATE_MAX):
        waiting.set("a", Monotonic(n + 1))
    assert len(waiting._heap) <= OUT_OF_DATE_MAX + 5
    assert waiting.take_due(Monotonic(1e9), 10) == ["soon", "a"]
