"""Rules over HTTP. What changes them has a JSON object as its body.

- GET /acl                GET /acl/check?user=&right=&filter=&client_id=
- POST /acl/add {rules}   /acl/rm {rules}   /acl/import {rules}: of each rule its name, is_role,
  allow, access and filter. `import` answers with the users that do not have the role `standard` any
  more.

What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.documents import RuleDocument
from broker.registry.access.acl import Acl
from broker.registry.access.permissions import Permissions
from broker.registry.access.users import Users
from broker.web.answers import answering, body_of


def routes_of(permissions: Permissions, users: Users) -> list[Route]:
    acl = Acl(permissions, users)

    async def get(_: Request) -> JSONResponse:
        return JSONResponse({"rules": [asdict(rule) for rule in acl.all()]})

    async def check(request: Request) -> JSONResponse:
        asked = request.query_params
        checked = acl.check(asked["user"], asked["right"], asked["filter"], asked["client_id"])
        return JSONResponse(asdict(checked))

    async def add(request: Request) -> JSONResponse:
        rules = await _rules(request)
        count = await acl.add(rules)
        return JSONResponse({"count": count, "unknown": [*map(asdict, acl.unknown(rules))]})

    async def remove(request: Request) -> JSONResponse:
        return JSONResponse({"count": await acl.remove(await _rules(request))})

    async def take(request: Request) -> JSONResponse:
        return JSONResponse({"left": await acl.take(await _rules(request))})

    return [
        Route("/acl", answering(get), methods=["GET"]),
        Route("/acl/check", answering(check), methods=["GET"]),
        Route("/acl/add", answering(add), methods=["POST"]),
        Route("/acl/rm", answering(remove), methods=["POST"]),
        Route("/acl/import", answering(take), methods=["POST"]),
    ]


async def _rules(request: Request) -> list[RuleDocument]:
    """Raises ValueError, KeyError: they are not as they should be."""
    rules = (await body_of(request))["rules"]
    if not isinstance(rules, list):
        raise ValueError("rules is no list")
    return [rule_from(record) for record in rules]


def rule_from(record: object) -> RuleDocument:
    """Raises ValueError, KeyError."""
    if not isinstance(record, dict):
        raise ValueError("a rule is no object")
    texts = [record[name] for name in ("name", "access", "filter")]
    flags = [record[name] for name in ("is_role", "allow")]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("something is no text")
    if not all(isinstance(flag, bool) for flag in flags):
        raise ValueError("is_role and allow are true or false")
    (name, access, topic_filter), (is_role, allow) = texts, flags
    return RuleDocument(name, is_role, allow, access, topic_filter)
