"""Removing by hand over HTTP: what is asked, and how errors are said."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import httpx
import pytest
from starlette.applications import Starlette

from broker.errors import QuotaExceeded, ReplaySpecInvalid, StoreFull, TopicFilterInvalid
from broker.web.permitted import trusted
from broker.web.trimming import routes


class Asked:
    """Trims that remember what they were asked for."""

    def __init__(self) -> None:
        self.calls: list[object] = []
        self.error: Exception | None = None
        self.filters: Sequence[str] = ()

    async def begin(
        self, spec: str, filters: Sequence[str], *, unread: bool, dry_run: bool
    ) -> None:
        if self.error is not None:
            raise self.error
        self.calls.append((spec, [*filters], unread, dry_run))

    def state(self) -> dict[str, object]:
        return {"done": False}

    def cancel(self) -> None:
        self.calls.append("cancel")


def client(trims: Asked) -> httpx.AsyncClient:
    app = trusted(Starlette(routes=routes(trims)))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://broker")


async def test_it_is_begun_looked_at_and_ended() -> None:
    trims = Asked()
    async with client(trims) as http:
        answer = await http.post(
            "/log/trim", params={"before": "@-1h", "filter": ["a/#", "b"], "unread": "1"}
        )
        assert (answer.status_code, answer.json()) == (202, {"done": False})
        await http.post("/log/trim", params={"before": "5", "dry_run": "1"})
        assert (await http.get("/log/trim")).json() == {"done": False}
        await http.delete("/log/trim")
    assert trims.calls == [("@-1h", ["a/#", "b"], True, False), ("5", [], False, True), "cancel"]


@pytest.mark.parametrize("method", ["DELETE", "GET"])
async def test_one_that_begins_while_it_is_asked_about_the_last_is_not_touched(method: str) -> None:
    trims = Asked()

    class Last(list[str]):
        def __iter__(self) -> Iterator[str]:
            trims.filters = ["others"]
            return super().__iter__()

    trims.filters = Last(["jobs"])
    async with client(trims) as http:
        answer = await http.request(method, "/log/trim")
    assert (answer.status_code, trims.calls) == (409, [])


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (QuotaExceeded("one runs"), 409, "one runs"),
        (ReplaySpecInvalid("no place"), 400, "no place"),
        (TopicFilterInvalid("is none"), 400, "is none"),
        (StoreFull("/x"), 507, StoreFull.reason),
    ],
)
async def test_what_is_wrong_is_said(error: Exception, code: int, says: str) -> None:
    trims = Asked()
    trims.error = error
    async with client(trims) as http:
        answer = await http.post("/log/trim")
    assert (answer.status_code, answer.json()["error"]) == (code, says)
