"""What `test_contract.py` cannot see: the documents before the operations stay as they were."""

from __future__ import annotations

import pytest

from broker.documents import Delete, Put, SessionDocument, SubscriptionDocument
from broker.errors import StoreConflict
from broker.store.memory_documents import Documents, applied
from tests.support.world import subscription

SESSION = SessionDocument("sub1", 60, 1, None)


def test_the_documents_before_stay_as_they_were() -> None:
    before: Documents = {}
    after = applied(before, [Put(SESSION), Put(subscription())])
    assert before == {}
    assert {kind for kind, _ in after} == {SessionDocument, SubscriptionDocument}
    assert applied(after, []) is after
    assert applied(after, [Delete(SessionDocument, ("sub1",))]) == {}


def test_nothing_is_applied_of_what_conflicts() -> None:
    after = applied({}, [Put(SESSION)])
    with pytest.raises(StoreConflict, match="revision 1, not 0"):
        applied(after, [Delete(SubscriptionDocument, ("sub1",)), Put(SESSION, revision=0)])
    with pytest.raises(StoreConflict, match="without its SessionDocument"):
        applied({}, [Put(subscription())])
