"""The documents of queues: every store keeps them by their key."""

from __future__ import annotations

from dataclasses import fields

import pytest

from broker.documents import Document
from broker.documents import queues as queue_documents


@pytest.mark.parametrize(
    "name", ["GroupDocument", "RetryDocument", "DeadLetterDocument", "DeadNoticeDocument"]
)
def test_its_key_is_its_leading_fields(name: str) -> None:
    kind = getattr(queue_documents, name)
    assert tuple(field.name for field in fields(kind))[: len(kind.KEY)] == kind.KEY
    assert kind in Document.__args__
