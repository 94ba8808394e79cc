"""Permitted: whether whoever asks may administer what a request is of.

Who opened the Unix socket may everything; who came by the network, what the right `admin` says. A
route needs EVERYTHING unless it names the Topic Filters that it is of, or looks itself once it
knows them: of a subscriber every filter, of a group its one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from broker.errors import NotAuthorized
from broker.security.rights import Rights
from broker.security.rules import EVERY_OTHER, EVERYTHING, Right
from broker.topics import parse_shared

Concerns = Callable[[Request], Iterable[str]]
"""The Topic Filters that a request is of."""
EVERY_TOPIC = (EVERYTHING, EVERY_OTHER)
AT_ONCE_MAX = 20
"""Filters that one turn of the loop looks at: of a user with 1,000 rules about 20 ms."""

_RIGHTS = "rights"


def give(scope: Scope, rights: Rights) -> None:
    """Whoever asks has these."""
    scope[_RIGHTS] = rights


def trusted(app: ASGIApp) -> ASGIApp:
    """The same, for whoever may everything."""

    async def asked(scope: Scope, receive: Receive, send: Send) -> None:
        give(scope, Rights.ALL)
        await app(scope, receive, send)

    return asked


def the_broker(_: Request) -> Iterable[str]:
    """What is of no topic alone."""
    return (EVERYTHING,)


def of_group(parameter: str) -> Concerns:
    """Of the group that the query names so. Without a name that is one: the broker."""

    def concerns(request: Request) -> Iterable[str]:
        shared = parse_shared(request.query_params.get(parameter, ""))
        return (EVERYTHING,) if shared is None else (shared[1],)

    return concerns


class Permit:
    """What one request may administer."""

    def __init__(self, request: Request) -> None:
        self._rights: Rights = request.scope[_RIGHTS]
        self._looked_at = 0

    def require_something(self) -> None:
        """Raises NotAuthorized: it may nothing at all."""
        if not self._rights.may_administer_something:
            raise NotAuthorized(f"the right {Right.ADMINISTER} is missing")

    async def require(self, filters: Iterable[str]) -> None:
        """Raises NotAuthorized, unless it may all of them; of nothing that anybody has: unless it
        may everything."""
        if (missing := await self._missing([*filters])) is not None:
            raise NotAuthorized(f"the right to {Right.ADMINISTER} {missing} is missing")

    async def allows(self, filters: Iterable[str]) -> bool:
        """As `require`."""
        return await self._missing([*filters]) is None

    async def _missing(self, filters: list[str]) -> str | None:
        if self._rights.may_administer(EVERYTHING) and all(map(_is_ordinary, filters)):
            return None
        for each in filters or [EVERYTHING]:
            self._looked_at += 1
            if self._looked_at % AT_ONCE_MAX == 0:
                await asyncio.sleep(0)
            if not self._rights.may_administer(each):
                return each
        return None


def _is_ordinary(topic_filter: str) -> bool:
    """Whether it is one of those that EVERYTHING has."""
    return not topic_filter.startswith("$")
