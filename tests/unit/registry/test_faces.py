from __future__ import annotations

import pytest

from broker.errors import StoreError
from broker.registry.faces import OPERATOR, Owner


def test_who_is_not_told_of_a_removal_otherwise_lets_go_as_for_another_connection() -> None:
    class Line(Owner):
        let_go = False

        def wake(self) -> None: ...

        def broken(self, error: StoreError) -> None: ...

        def failed(self, error: Exception) -> None: ...

        def taken_over(self) -> None:
            self.let_go = True

    owner = Line()
    owner.removed()
    assert owner.let_go


def test_nobody_takes_a_session_from_an_operator() -> None:
    with pytest.raises(AssertionError):
        OPERATOR.taken_over()
