"""Quotas over HTTP.

- GET /quotas
- POST /quotas/set?kind=&name=&connections=...   and the other limits of `broker/security/quotas.py`
- POST /quotas/rm?kind=&name=   `kind` is "user" or "role"

What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.registry.access.quotas import ROLE, USER, Quotas
from broker.security.quotas import LIMITS, Quota
from broker.web.answers import answering


def routes(quotas: Quotas) -> list[Route]:
    async def get(_: Request) -> JSONResponse:
        return JSONResponse({"quotas": [asdict(document) for document in quotas.all()]})

    async def put(request: Request) -> JSONResponse:
        asked = request.query_params
        quota = Quota(**{limit: int(asked[limit]) for limit in LIMITS if limit in asked})
        return JSONResponse(asdict(await quotas.put(*_subject(request), quota)))

    async def remove(request: Request) -> JSONResponse:
        kind, name = _subject(request)
        await quotas.remove(kind, name)
        return JSONResponse({"kind": kind, "name": name})

    return [
        Route("/quotas", answering(get), methods=["GET"]),
        Route("/quotas/set", answering(put), methods=["POST"]),
        Route("/quotas/rm", answering(remove), methods=["POST"]),
    ]


def _subject(request: Request) -> tuple[str, str]:
    """Raises ValueError, KeyError: it names none."""
    kind = request.query_params["kind"]
    if kind not in (USER, ROLE):
        raise ValueError(f"kind is {USER} or {ROLE}")
    return kind, request.query_params["name"]
