"""Answers: what an operator asks for over HTTP, and what becomes of what cannot be done.

That is answered with `error` and `remedy`: 404, there is none of that name; 400, the question; 409,
as things are now; 507, the disk is full; 503, the log cannot be used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import JSONResponse

from broker.errors import (
    CommandInvalid,
    CommandRefused,
    NotFound,
    PeerError,
    QuotaExceeded,
    StoreError,
    StoreFull,
)

Handler = Callable[[Request], Awaitable[JSONResponse]]


def answering(handler: Handler) -> Handler:
    """The same, with what it raises as an answer."""

    async def answer(request: Request) -> JSONResponse:
        try:
            return await handler(request)
        except NotFound as error:
            return _refusal(404, error.reason, error.remedy)
        except CommandInvalid as error:
            return _refusal(400, error.reason, error.remedy)
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
        except (KeyError, ValueError, OverflowError) as error:
            return _refusal(400, f"the request is not complete: {error}", "")

    return answer


def _refusal(status: int, error: str, remedy: str) -> JSONResponse:
    return JSONResponse({"error": error, "remedy": remedy}, status_code=status)
