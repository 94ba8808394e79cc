"""POST /reload: settings and certificates are read again. Answers what has changed, or 400 and why
nothing has."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.errors import ConfigError
from broker.web.answers import answering, refusal


def routes(reload: Callable[[], Awaitable[Any]]) -> list[Route]:
    """`reload` gives a dataclass, or raises ConfigError."""

    async def post_reload(_: Request) -> JSONResponse:
        try:
            return JSONResponse(asdict(await reload()))
        except ConfigError as error:
            return refusal(400, str(error))

    return [Route("/reload", answering(post_reload), methods=["POST"])]
