"""What waits for the disk, and how that is said."""

from __future__ import annotations

from broker.errors import StoreBusy, StoreFull
from broker.log.batch import Append, Batch
from broker.log.waiting import Waiting
from tests.support.messages import numbered


class Changed:
    def take_changes(self) -> list[object]:
        return []


def batch(messages: int, *sources: Changed) -> Batch:
    made = Batch()
    made.appends.append(Append(numbered(messages), (), 0, True, True, None))
    made.sources = dict.fromkeys(sources, True)  # type: ignore[arg-type]  # all that is asked for
    return made


def test_what_is_being_committed_waits_too_and_a_session_counts_once() -> None:
    one, two = Changed(), Changed()
    waiting = Waiting.of([batch(1, one), batch(2, one, two)], None)
    assert waiting == Waiting(3, 2, None)
    assert str(waiting) == "3 messages, and changes of 2 sessions"
    assert Waiting.of([batch(1), None], None).messages == 1


def test_a_disk_that_takes_nothing_is_the_reason() -> None:
    full = Waiting.of([batch(1, Changed())], StoreFull)
    assert str(full) == "1 message, and changes of 1 session: the disk is full"
    assert Waiting.of([], StoreBusy).disk == "locked by another program"
