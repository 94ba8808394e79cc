"""Draining over HTTP: a broker of several lets its clients go on at the others, then stops.

- POST /drain?for_good=   answers before that begins; `for_good`: they are not to come back

409: there is no other broker.
"""

from __future__ import annotations

from typing import Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.web.answers import answering


class Drain(Protocol):
    def __call__(self, *, for_good: bool) -> None:
        """Raises CommandRefused."""
        ...


def routes(drain: Drain) -> list[Route]:
    async def post_drain(request: Request) -> JSONResponse:
        drain(for_good=request.query_params.get("for_good") == "true")
        return JSONResponse({"status": "draining"}, status_code=202)

    return [Route("/drain", answering(post_drain), methods=["POST"])]
