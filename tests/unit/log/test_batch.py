from __future__ import annotations

from broker.documents import Place
from broker.errors import StoreError
from broker.handed_on import HandedOn
from broker.log.batch import APPEND_BYTES, Append, Batch, tell
from tests.support.messages import message, numbered


def append(messages: int, place: Place | None = None) -> Append:
    return Append(numbered(messages), (), messages, True, True, None, _unexpected, place)


def _unexpected(error: Exception) -> None:
    raise error


def test_a_place_lies_after_the_messages_of_its_append_and_of_those_before() -> None:
    first, second, own = Place(), Place(7), Place()
    appends = [append(0, first), append(3), append(0, second), append(2, own), append(4)]
    assert batch_of(*appends).commit_begins() == [first, second, own]
    assert [place.after for place in (first, second, own)] == [0, 3, 5]


def test_a_place_is_nearer_when_an_append_before_it_was_refused() -> None:
    place = Place()
    refused, kept = append(3), append(2)
    batch_of(refused, kept, append(0, place)).commit_begins()
    batch_of(kept, append(0, place)).commit_begins()
    assert place.after == 2


def test_each_hears_of_the_commit_though_another_makes_a_mistake() -> None:
    heard: list[StoreError | None] = []
    mistakes: list[Exception] = []

    def mistake(error: StoreError | None) -> None:
        raise ZeroDivisionError

    appends = [append(1), append(1), append(1)]
    appends[0].on_committed = mistake
    appends[0].failed = mistakes.append
    appends[2].on_committed = heard.append
    tell(appends, None)
    assert heard == [None]
    assert [type(error) for error in mistakes] == [ZeroDivisionError]


def test_a_batch_knows_its_topics_also_those_that_came_after_it_was_asked() -> None:
    batch = Batch()
    batch.appends.append(of_topics("a", "b"))
    assert batch.topics() == {"a", "b"}
    batch.appends.append(of_topics("c"))
    batch.add_handed([handed_on("d")])
    assert batch.topics() == {"a", "b", "c"}, "what was handed on is in nobody's way"


def test_what_was_handed_on_knows_its_place_in_the_commit() -> None:
    batch = batch_of(of_topics("a"))
    batch.add_handed([handed_on("b"), handed_on("c")])
    batch.appends.append(of_topics("d"))
    batch.add_handed([handed_on("e")])
    batch.commit_begins()
    assert [part.after for part in batch.handed] == [1, 2, 4]


def test_what_is_put_back_comes_first_and_qos_0_can_be_taken_out_of_it() -> None:
    batch, later = Batch(), Batch()
    refused = of_topics("refused", awaited=True)
    refused.keep_if_full = False
    batch.appends += [of_topics("kept", awaited=True), refused]
    batch.add_qos0([message("", "light")])
    later.add_qos0([message("", "late")])
    assert batch.take_out(lambda append: not append.keep_if_full) == [refused]
    batch.put_before(later)
    kept = message("", "kept").cost + 7 + APPEND_BYTES
    assert (batch.awaited_size, batch.qos0_size) == (kept, 2 * message("", "late").cost + 1)
    part = handed_on("handed on")
    batch.add_handed([part])
    parts, messages = batch.take_qos0()
    assert (parts, [m.topic for m in messages]) == ([part], ["light", "late"])
    assert (batch.size, batch.topics()) == (kept, {"kept"})


def batch_of(*appends: Append) -> Batch:
    batch = Batch()
    batch.appends += appends
    return batch


def handed_on(topic: str) -> HandedOn:
    part = HandedOn()
    part.add(1, [message("", topic)], 100)
    return part


def of_topics(*topics: str, awaited: bool = False) -> Append:
    messages = [message("", topic) for topic in topics]
    return Append(messages, (), 7, awaited, True, None)
