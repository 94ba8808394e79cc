"""Groups and dead letters over HTTP: what an operator asks for. They are read from the database.

- POST /groups/create?name=&from=&attempts=&backoff_first_ms=&backoff_max_ms=&lease_ms=
- POST /groups/rm?name=
- POST /dead-letters/redrive?group=&offset=   /drop?group=&offset=   without `offset`: all of it

What cannot be done is answered with `error` and `remedy`: 404, there is none of that name; 400, the
question; 409, as things are now; 507, the disk is full; 503, the log cannot be used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.errors import CommandRefused, NotFound, PeerError, QuotaExceeded, StoreError, StoreFull
from broker.message import Offset
from broker.queue_documents import (
    ATTEMPTS_MAX,
    BACKOFF_FIRST_MS,
    BACKOFF_MAX_MS,
    LEASE_MS,
    GroupDocument,
)
from broker.registry.queues import Queues

Handler = Callable[[Request], Awaitable[JSONResponse]]


def routes(queues: Queues) -> list[Route]:
    async def create(request: Request) -> JSONResponse:
        asked = request.query_params
        document = GroupDocument(
            asked["name"],
            int(asked.get("attempts", ATTEMPTS_MAX)),
            int(asked.get("backoff_first_ms", BACKOFF_FIRST_MS)),
            int(asked.get("backoff_max_ms", BACKOFF_MAX_MS)),
            int(asked.get("lease_ms", LEASE_MS)),
            created_at_us=0,
        )
        return JSONResponse(asdict(await queues.create(document, asked.get("from", ""))))

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


def answering(handler: Handler) -> Handler:
    """The same, with what it raises as an answer."""

    async def answer(request: Request) -> JSONResponse:
        try:
            return await handler(request)
        except NotFound as error:
            return _refusal(404, error.reason, error.remedy)
        except CommandRefused as error:
            return _refusal(409, error.reason, error.remedy)
        except QuotaExceeded as error:
            return _refusal(409, error.reason, "")
        except PeerError as error:
            return _refusal(400, error.reason, "")
        except StoreFull as error:
            return _refusal(507, error.reason, "nothing was changed: make room, and try again")
        except StoreError as error:
            return _refusal(503, str(error), "")
        except (KeyError, ValueError) as error:
            return _refusal(400, f"the request is not complete: {error}", "")

    return answer


def _refusal(status: int, error: str, remedy: str) -> JSONResponse:
    return JSONResponse({"error": error, "remedy": remedy}, status_code=status)
