"""Removing messages by hand, over HTTP.

- POST /log/trim?before=SPEC&filter=F&filter=G&unread=1&dry_run=1   begins it
- GET /log/trim     how far it is
- DELETE /log/trim  ends it

What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.errors import CommandRefused
from broker.web.answers import answering
from broker.web.permitted import EVERY_TOPIC, Permit

PATH = "/log/trim"


class Trims(Protocol):
    filters: Sequence[str]
    """Of the one that is under way, or was the last; none: every topic."""

    async def begin(
        self, spec: str, filters: Sequence[str], *, unread: bool, dry_run: bool
    ) -> None: ...

    def state(self) -> dict[str, object]: ...

    def cancel(self) -> None: ...


def routes(trims: Trims) -> list[Route]:
    async def post(request: Request) -> JSONResponse:
        query = request.query_params
        await trims.begin(
            query.get("before", ""),
            query.getlist("filter"),
            unread=query.get("unread") == "1",
            dry_run=query.get("dry_run") == "1",
        )
        return JSONResponse(trims.state(), status_code=202)

    def asked(request: Request) -> Sequence[str]:
        return request.query_params.getlist("filter") or EVERY_TOPIC

    async def permit_for_last(request: Request) -> None:
        last = trims.filters
        await Permit(request).require(last or EVERY_TOPIC)
        if trims.filters is not last:
            raise CommandRefused("another one has begun just now", "try again")

    async def get(request: Request) -> JSONResponse:
        await permit_for_last(request)
        return JSONResponse(trims.state())

    async def delete(request: Request) -> JSONResponse:
        await permit_for_last(request)
        trims.cancel()
        return JSONResponse(trims.state())

    return [
        Route(PATH, answering(post, asked), methods=["POST"]),
        Route(PATH, answering(get, None), methods=["GET"]),
        Route(PATH, answering(delete, None), methods=["DELETE"]),
    ]
