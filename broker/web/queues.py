"""Groups and dead letters over HTTP. What is shown is read from the database, beside the loop.

- GET /groups       those that whoever asks may administer, and `names` of these and of groups that
  have only dead letters
- GET /groups/one?name=
- GET /dead-letters?group=&offset=   a page of those after this one: `letters`, and `next` or null;
  payloads are in Base64
- POST /groups/create?name=&from=&attempts=&backoff_first_ms=&backoff_max_ms=&lease_ms=
- POST /groups/rm?name=
- POST /dead-letters/redrive?group=&offset=   /drop?group=&offset=   without `offset`: all of it

What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from base64 import b64encode
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict
from pathlib import Path
from typing import TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.config import DATABASE
from broker.documents.queues import GroupDocument
from broker.errors import NotFound
from broker.message import Offset
from broker.registry.groups.queues import Queues
from broker.store.sqlite import queues as tables
from broker.store.sqlite.errors import read_error
from broker.web.answers import answering
from broker.web.permitted import Permit, of_group

T = TypeVar("T")


def routes(queues: Queues, data_dir: Path) -> list[Route]:
    database = data_dir / DATABASE

    async def get_all(request: Request) -> JSONResponse:
        permit = Permit(request)
        groups, names = await asyncio.to_thread(_read, database, _groups)
        members = queues.members()
        for group in groups:
            group["members"] = members.get(group["group"], group["members"])
        shown = [each for each in groups if await permit.allows([each["filter"]])]
        named = [name for name in names if await permit.allows([name])]
        return JSONResponse({"groups": shown, "names": named})

    async def get_one(request: Request) -> JSONResponse:
        name = request.query_params["name"]
        group = await asyncio.to_thread(_read, database, lambda log: _one(log, name))
        return JSONResponse(group | {"members": queues.members().get(name, group["members"])})

    async def get_letters(request: Request) -> JSONResponse:
        asked, permit = request.query_params, Permit(request)
        after = asked.get("group", ""), int(asked.get("offset", "-1"))
        letters = await asyncio.to_thread(_read, database, lambda log: _page(log, after))
        shown = [each for each in letters if await permit.allows([each["group"]])]
        last = [letters[-1]["group"], letters[-1]["offset"]] if letters else None
        return JSONResponse({"letters": shown, "next": last})

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
        Route("/groups", answering(get_all, None), methods=["GET"]),
        Route("/groups/one", answering(get_one, of_group("name")), methods=["GET"]),
        Route("/dead-letters", answering(get_letters, None), methods=["GET"]),
        Route("/groups/create", answering(create, of_group("name")), methods=["POST"]),
        Route("/groups/rm", answering(remove, of_group("name")), methods=["POST"]),
        Route("/dead-letters/redrive", answering(redrive, of_group("group")), methods=["POST"]),
        Route("/dead-letters/drop", answering(drop, of_group("group")), methods=["POST"]),
    ]


def _read(database: Path, read: Callable[[sqlite3.Connection], T]) -> T:
    """Raises StoreError."""
    try:
        uri = f"{database.absolute().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            return read(connection)
    except sqlite3.Error as error:
        raise read_error(error, database) from error


def _groups(log: sqlite3.Connection) -> tuple[list[tables.Record], list[str]]:
    return [*tables.groups(log)], tables.names(log)


def _one(log: sqlite3.Connection, name: str) -> tables.Record:
    for group in tables.groups(log):
        if group["group"] == name:
            return group | {"unread": tables.unread(log, group)}
    raise NotFound(f"there is no group {name}", "`pubsub group ls` lists them")


def _page(log: sqlite3.Connection, after: tuple[str, int]) -> list[tables.Record]:
    letters = tables.letters(log, after)
    for letter in letters:
        if letter["payload"] is not None:
            letter["payload"] = b64encode(letter["payload"]).decode("ascii")
    return letters


def _letters(request: Request) -> tuple[str, Offset | None]:
    asked = request.query_params
    offset = asked.get("offset")
    return asked["group"], None if offset is None else Offset(int(offset))
