"""Answers: what an operator asks for over HTTP, and what becomes of what cannot be done.

That is answered with `error` and `remedy`: 403, a right is missing; 404, there is none of that
name; 400, the question; 409, as things are now; 507, the disk is full; 503, the log cannot be used.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse

from broker.errors import (
    CommandInvalid,
    CommandRefused,
    NotAuthorized,
    NotFound,
    PeerError,
    QuotaExceeded,
    StoreError,
    StoreFull,
)
from broker.web.permitted import Concerns, Permit, the_broker

Handler = Callable[[Request], Awaitable[JSONResponse]]


def answering(handler: Handler, concerns: Concerns | None = the_broker) -> Handler:
    """The same, with what it raises as an answer, for whoever may administer what that `concerns`.
    None: the handler looks itself."""

    async def answer(request: Request) -> JSONResponse:
        permit = Permit(request)
        try:
            permit.require_something()
            if concerns is not None:
                await permit.require(concerns(request))
            return await handler(request)
        except NotAuthorized as error:
            return refusal(403, error.reason)
        except NotFound as error:
            return refusal(404, error.reason, error.remedy)
        except CommandInvalid as error:
            return refusal(400, error.reason, error.remedy)
        except CommandRefused as error:
            return refusal(409, error.reason, error.remedy)
        except QuotaExceeded as error:
            return refusal(409, error.reason)
        except PeerError as error:
            return refusal(400, error.reason)
        except StoreFull as error:
            return refusal(507, error.reason, "nothing was changed: make room, and try again")
        except StoreError as error:
            return refusal(503, str(error))
        except (KeyError, ValueError, OverflowError) as error:
            return refusal(400, f"the request is not complete: {error}")

    return answer


async def body_of(request: Request) -> dict[str, Any]:
    """Its JSON object. Raises ValueError: it has none."""
    try:
        asked = await request.json()
    except RecursionError as error:
        raise ValueError("it is too deep") from error
    if not isinstance(asked, dict):
        raise ValueError("it is no object")
    return asked


def refusal(
    status: int, error: str, remedy: str = "", headers: Mapping[str, str] | None = None
) -> JSONResponse:
    return JSONResponse({"error": error, "remedy": remedy}, status, headers)
