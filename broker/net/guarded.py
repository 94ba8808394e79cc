"""Guarded: what is raised while a connection is served cuts it off, and touches no other."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, Protocol, TypeVar


class Served(Protocol):
    """A connection."""

    def failed(self, error: Exception) -> None:
        """We made a mistake while it was served: it is cut off."""
        ...


C = TypeVar("C", bound=Served)
P = ParamSpec("P")
R = TypeVar("R")


def guarded(call: Callable[Concatenate[C, P], R]) -> Callable[Concatenate[C, P], R | None]:
    """A method of a connection that raises nothing; it returns None then."""

    @wraps(call)
    def served(connection: C, /, *args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return call(connection, *args, **kwargs)
        except Exception as error:
            connection.failed(error)
            return None

    return served
