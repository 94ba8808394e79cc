"""What an operator is answered who asks for what cannot be done."""

from __future__ import annotations

import json

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse

from broker.errors import (
    CommandInvalid,
    CommandRefused,
    NotFound,
    QuotaExceeded,
    ReplaySpecInvalid,
    StoreFull,
    StoreUnavailable,
)
from broker.security.rights import Rights
from broker.web.answers import answering
from broker.web.permitted import give


@pytest.mark.parametrize(
    ("error", "status", "remedy"),
    [
        (NotFound("none", "look"), 404, "look"),
        (CommandInvalid("never", "else"), 400, "else"),
        (CommandRefused("not now", "later"), 409, "later"),
        (QuotaExceeded("many"), 409, ""),
        (ReplaySpecInvalid("what"), 400, ""),
        (StoreFull("full"), 507, "nothing was changed: make room, and try again"),
        (StoreUnavailable("gone"), 503, ""),
        (KeyError("name"), 400, ""),
        (ValueError("no number"), 400, ""),
        (OverflowError("too large for SQLite"), 400, ""),
    ],
)
async def test_each_error_has_its_answer(error: Exception, status: int, remedy: str) -> None:
    async def handler(request: Request) -> JSONResponse:
        raise error

    scope: dict[str, object] = {"type": "http"}
    give(scope, Rights.ALL)
    answer = await answering(handler)(Request(scope))
    assert answer.status_code == status
    told = json.loads(bytes(answer.body))
    assert told["error"]
    assert told["remedy"] == remedy
