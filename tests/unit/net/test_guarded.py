from __future__ import annotations

from broker.net.guarded import guarded


class Divider:
    def __init__(self) -> None:
        self.errors: list[Exception] = []

    @guarded
    def divide(self, by: int) -> int:
        return 6 // by

    def failed(self, error: Exception) -> None:
        self.errors.append(error)


def test_what_is_raised_is_told_to_the_connection_that_was_served() -> None:
    connection = Divider()
    assert connection.divide(2) == 3
    assert connection.divide(0) is None
    assert [type(error) for error in connection.errors] == [ZeroDivisionError]
