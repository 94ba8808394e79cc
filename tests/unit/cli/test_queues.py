"""What is asked of groups and dead letters: which one is meant, and how it is shown."""

from __future__ import annotations

import pytest

from broker.documents import Put, SessionDocument
from broker.message import AgedUs, Offset
from broker.queue_documents import DeadLetterDocument, RetryDocument
from broker.store.memory import MemoryStore
from cli.failure import CommandFailed, Exit
from cli.queues import change, resolve

GROUPS = ["$share/a/jobs", "$share/b/jobs", "$share/b/mail/#"]


def test_a_bare_name_is_enough_where_one_filter_has_it() -> None:
    assert resolve("a", None, GROUPS) == "$share/a/jobs"
    assert resolve("b", "mail/#", GROUPS) == "$share/b/mail/#"
    assert resolve("$share/b/jobs", None, GROUPS) == "$share/b/jobs"


@pytest.mark.parametrize(
    ("name", "topic_filter", "code"),
    [("b", None, Exit.USAGE), ("c", None, Exit.NOTHING_THERE), ("a", "x", Exit.NOTHING_THERE)],
)
def test_else_it_is_refused(name: str, topic_filter: str | None, code: Exit) -> None:
    """[MQTT 5, 4.8.2]"""
    with pytest.raises(CommandFailed) as refused:
        resolve(name, topic_filter, GROUPS)
    assert refused.value.code is code


async def test_at_rest_they_are_changed_as_a_broker_does_it() -> None:
    store = MemoryStore()
    await store.open()
    letters = [DeadLetterDocument(GROUPS[0], Offset(n), 5, "no", "w", AgedUs(1)) for n in (1, 2, 3)]
    await store.transact([Put(letter) for letter in letters])
    with pytest.raises(CommandFailed, match="gone"):
        await change(store, "redrive", GROUPS[0], None)
    await store.transact([Put(SessionDocument(GROUPS[0], 1, 1, None))])
    assert await change(store, "redrive", GROUPS[0], 2) == 1
    assert [(r.offset, r.attempts) for r in await store.scan(RetryDocument)] == [(2, 0)]
    assert await change(store, "drop", GROUPS[0], 2) == 0
    assert await change(store, "drop", GROUPS[0], None) == 2
    assert await store.scan(DeadLetterDocument) == []
