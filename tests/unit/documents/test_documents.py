from __future__ import annotations

import dataclasses
from typing import get_args

import pytest

from broker.documents import Document
from broker.message import Offset
from tests.support.world import subscription


@pytest.mark.parametrize("kind", get_args(Document))
def test_the_leading_fields_of_a_document_are_its_key(kind: type[Document]) -> None:
    """So a store can tell the key of any."""
    names = [field.name for field in dataclasses.fields(kind)]
    assert names[: len(kind.KEY)] == list(kind.KEY)


def test_a_subscription_owes_no_retained_message_unless_told() -> None:
    document = subscription(start=5)
    assert document.owed_retained == (0, 0)
    assert not document.owes_retained(Offset(1))


def test_owed_retained_messages_are_above_one_offset_and_up_to_another() -> None:
    document = subscription(retained_through=7)
    document.retained_after = Offset(5)
    assert document.owed_retained == (5, 7)
    assert [offset for offset in range(10) if document.owes_retained(Offset(offset))] == [6, 7]
