"""Removing messages by hand, over the administration's socket.

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

from broker.web.answers import answering

PATH = "/log/trim"


class Trims(Protocol):
    async def begin(
        self, spec: str, filters: Sequence[str], *, unread: bool, dry_run: bool
    ) -> None: ...

    def state(self) -> dict[str, object]: ...

    def cancel(self) -> None: ...


def routes(trims: Trims) -> list[Route]:
    async def post(request: Request) -> JSONResponse:
        asked = request.query_params
        await trims.begin(
            asked.get("before", ""),
            asked.getlist("filter"),
            unread=asked.get("unread") == "1",
            dry_run=asked.get("dry_run") == "1",
        )
        return JSONResponse(trims.state(), status_code=202)

    async def get(_: Request) -> JSONResponse:
        return JSONResponse(trims.state())

    async def delete(_: Request) -> JSONResponse:
        trims.cancel()
        return JSONResponse(trims.state())

    return [
        Route(PATH, answering(post), methods=["POST"]),
        Route(PATH, get, methods=["GET"]),
        Route(PATH, delete, methods=["DELETE"]),
    ]
