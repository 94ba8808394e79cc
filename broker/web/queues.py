"""Groups and dead letters over HTTP: what an operator asks for. They are read from the database.

- POST /groups/create?name=&from=&attempts=&backoff_first_ms=&backoff_max_ms=&lease_ms=
- POST /groups/rm?name=
- POST /dead-letters/redrive?group=&offset=   /drop?group=&offset=   without `offset`: all of it

What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.documents.queues import GroupDocument
from broker.message import Offset
from broker.registry.groups.queues import Queues
from broker.web.answers import answering


def routes(queues: Queues) -> list[Route]:
    async def create(request: Request) -> JSONResponse:
        asked = request.query_params
        made = await queues.create(GroupDocument.asked(asked), asked.get("from", ""))
        return JSONResponse(asdict(made))

    async def remove(request: Request) -> JSONResponse:
        name = request.query_params["name"]
        await queues.remove(name)
        return JSONResponse({"name": name})

    async def redrive(request: Request) -> JSONResponse:
        return JSONResponse({"count": await queues.redrive(*_letters(request))})

    async def drop(request: Request) -> JSONResponse:
        return JSONResponse({"count": await queues.drop(*_letters(request))})

    return [
        Route("/groups/create", answering(create), methods=["POST"]),
        Route("/groups/rm", answering(remove), methods=["POST"]),
        Route("/dead-letters/redrive", answering(redrive), methods=["POST"]),
        Route("/dead-letters/drop", answering(drop), methods=["POST"]),
    ]


def _letters(request: Request) -> tuple[str, Offset | None]:
    asked = request.query_params
    offset = asked.get("offset")
    return asked["group"], None if offset is None else Offset(int(offset))
