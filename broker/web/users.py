"""Users over HTTP. What changes one has a JSON object as its body; passwords are hashes in it.

- GET /users
- POST /users/add {name, password, scram, roles}   /passwd {name, password, scram}   /rm {name}
- POST /users/roles {name, roles}
- POST /users/import {passwords: {name: hash}}     answers with the names that were there before

What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.clock import Clock
from broker.registry.access.accounts import Accounts
from broker.registry.access.users import Users
from broker.security.names import STANDARD
from broker.web.answers import answering, body_of


def routes_of(users: Users, clock: Clock) -> list[Route]:
    """For the users of a broker that runs."""
    return routes(Accounts(users, clock))


def routes(accounts: Accounts) -> list[Route]:
    async def get(_: Request) -> JSONResponse:
        return JSONResponse({"users": [asdict(account) for account in accounts.all()]})

    async def add(request: Request) -> JSONResponse:
        asked = await _asked(request)
        roles = asked.get("roles", [STANDARD])
        added = accounts.add(asked["name"], asked["password"], asked.get("scram", ""), roles)
        return JSONResponse(asdict(await added))

    async def set_password(request: Request) -> JSONResponse:
        asked = await _asked(request)
        changed = accounts.set_password(asked["name"], asked["password"], asked.get("scram", ""))
        return JSONResponse(asdict(await changed))

    async def set_roles(request: Request) -> JSONResponse:
        asked = await _asked(request)
        return JSONResponse(asdict(await accounts.set_roles(asked["name"], asked["roles"])))

    async def remove(request: Request) -> JSONResponse:
        return JSONResponse(asdict(await accounts.remove((await _asked(request))["name"])))

    async def take(request: Request) -> JSONResponse:
        passwords = (await _asked(request))["passwords"]
        return JSONResponse({"known": await accounts.take(passwords)})

    return [
        Route("/users", answering(get), methods=["GET"]),
        Route("/users/add", answering(add), methods=["POST"]),
        Route("/users/passwd", answering(set_password), methods=["POST"]),
        Route("/users/roles", answering(set_roles), methods=["POST"]),
        Route("/users/rm", answering(remove), methods=["POST"]),
        Route("/users/import", answering(take), methods=["POST"]),
    ]


async def _asked(request: Request) -> dict[str, Any]:
    """Raises ValueError, KeyError: it is not as it should be."""
    asked = await body_of(request)
    for name, kind in (("name", str), ("password", str), ("scram", str), ("roles", list)):
        if not isinstance(asked.get(name, kind()), kind):
            raise ValueError(f"{name} is of the wrong kind")
    passwords = asked.get("passwords", {})
    if not isinstance(passwords, dict):
        raise ValueError("passwords is no object")
    texts = [*asked.get("roles", []), *passwords, *passwords.values()]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("something is no text")
    return asked
