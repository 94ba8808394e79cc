from __future__ import annotations

from dataclasses import dataclass

import httpx
import pytest
from starlette.applications import Starlette

from broker.errors import ConfigError
from broker.web.permitted import trusted
from broker.web.reload import routes


@dataclass
class Done:
    changed: list[str]


@pytest.mark.parametrize(
    ("outcome", "status", "answer"),
    [
        (Done(["port"]), 200, {"changed": ["port"]}),
        (ConfigError("port", 1, "is odd"), 400, {"error": "port = 1: is odd", "remedy": ""}),
    ],
)
async def test_what_came_of_it_is_answered(
    outcome: Done | ConfigError, status: int, answer: dict[str, object]
) -> None:
    async def reload() -> Done:
        if isinstance(outcome, ConfigError):
            raise outcome
        return outcome

    transport = httpx.ASGITransport(trusted(Starlette(routes=routes(reload))))
    async with httpx.AsyncClient(transport=transport, base_url="http://broker") as http:
        answered = await http.post("/reload")
        assert (await http.get("/reload")).status_code == 405
    assert (answered.status_code, answered.json()) == (status, answer)
