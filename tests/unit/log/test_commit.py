"""One commit: what of a batch is stored, and who hears of it. See also `test_log.py`."""

from __future__ import annotations

from broker.counters import Counters
from broker.documents import Operation, Place, Put, SessionDocument
from broker.errors import StoreError
from broker.log.batch import Append, Batch, StateSource
from broker.log.commit import Commit
from tests.support.messages import message

SESSION = Put(SessionDocument("sub1", 60, 1, None))
OTHER = Put(SessionDocument("sub2", 60, 1, None))


class GivesOne:
    client_id = "sub1"

    def __init__(self, *, fails: str = "") -> None:
        self.calls: list[str] = []
        self._fails = fails

    def _called(self, name: str) -> None:
        self.calls.append(name)
        if name == self._fails:
            raise ZeroDivisionError

    def take_changes(self) -> list[Operation]:
        self._called("take changes")
        return [OTHER]

    def committed(self) -> None:
        self._called("committed")

    def not_committed(self) -> None:
        self._called("not committed")


def batch(*sources: GivesOne) -> Batch:
    found = Batch()
    place = Place()
    found.appends.append(Append([message("1")], (), 0, False, True, None))
    found.appends.append(Append([message("2")], [SESSION], 0, True, True, None, place=place))
    found.has_places = found.durable = True
    found.sources.update(dict.fromkeys(sources, True))
    return found


def test_it_stores_what_is_in_the_batch_in_the_order_of_arrival() -> None:
    commit = Commit(batch(GivesOne()), lambda source, error: None)
    assert [m.payload for m in commit.messages] == [b"1", b"2"]
    assert commit.operations == [SESSION, OTHER]
    assert [place.after for place in commit.places] == [2]
    assert (commit.durable, commit.moved, commit.noted, commit.writes) == (True, True, False, True)


def test_an_empty_one_writes_nothing_but_a_note_of_the_time() -> None:
    commit = Commit(Batch(), lambda source, error: None)
    assert not commit.writes
    commit.note(SESSION)
    assert (commit.writes, commit.noted, commit.moved) == (True, True, False)


def test_a_source_that_cannot_give_its_changes_is_left_out_and_hears_of_nothing_else() -> None:
    broken, sound, failed = GivesOne(fails="take changes"), GivesOne(), list[StateSource]()
    commit = Commit(batch(broken, sound), lambda source, error: failed.append(source))
    assert failed == [broken]
    assert commit.operations == [SESSION, OTHER]
    commit.committed(Counters())
    assert broken.calls == ["take changes", "not committed"]
    assert sound.calls == ["take changes", "committed"]


def test_a_source_that_fails_keeps_it_from_nobody_else() -> None:
    first, second, failed = GivesOne(fails="committed"), GivesOne(), list[StateSource]()
    heard: list[StoreError | None] = []
    waiting = batch(first, second)
    waiting.appends.append(Append((), (), 0, True, True, heard.append))
    Commit(waiting, lambda source, error: failed.append(source)).committed(Counters())
    assert failed == [first]
    assert second.calls == ["take changes", "committed"]
    assert heard == [None]


def test_only_sources_that_gave_changes_hear_that_it_failed() -> None:
    """Those that changed since are in the batch as well by then."""
    gave, came_since = GivesOne(), GivesOne(fails="not committed")
    waiting = batch(gave)
    commit = Commit(waiting, lambda source, error: None)
    waiting.sources[came_since] = True
    commit.not_committed()
    assert gave.calls == ["take changes", "not committed"]
    assert came_since.calls == []
