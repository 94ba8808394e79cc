"""Subscribers over HTTP: lists them, and hands on what an operator asks for.

- GET /subscribers?after=&limit=  a page: `subscribers`, `high_watermark`, `next` (or null)
- GET /subscribers/one?id=
- POST /subscribers/seek?id=&to=&dry_run=   /fork?id=&new=   /rm?id=

Of each subscriber that is for who may administer all of its filters; a page leaves the others out.
What cannot be done is answered as by `answers`.
"""

from __future__ import annotations

from dataclasses import asdict

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from broker.clock import Clock
from broker.counters import Counters
from broker.delivery.delivery import Delivery
from broker.log.log import Log
from broker.registry.administration import Administration
from broker.registry.groups.groups import Groups
from broker.registry.overview import PAGE_MAX, Overview
from broker.registry.sessions import Sessions
from broker.web.answers import answering
from broker.web.permitted import Permit


def routes_of(
    log: Log,
    delivery: Delivery,
    sessions: Sessions,
    groups: Groups,
    counters: Counters,
    clock: Clock,
) -> list[Route]:
    """For the subscribers of a broker that runs."""
    administration = Administration(log, delivery, sessions, groups, counters, clock)
    return routes(administration, Overview(log.store, sessions), clock)


def routes(administration: Administration, overview: Overview, clock: Clock) -> list[Route]:
    async def get_page(request: Request) -> JSONResponse:
        asked = request.query_params
        limit = min(max(int(asked.get("limit", PAGE_MAX)), 1), PAGE_MAX)
        page = await overview.page(asked.get("after", ""), limit, Permit(request).allows)
        now_us = clock.wall_us()
        return JSONResponse(
            {
                "subscribers": [row.record(now_us) for row in page.rows],
                "high_watermark": page.through,
                "next": page.next,
            }
        )

    async def get_one(request: Request) -> JSONResponse:
        name, permit = request.query_params["id"], Permit(request).require
        return JSONResponse(await overview.one(name, clock.wall_us(), permit))

    async def post_seek(request: Request) -> JSONResponse:
        asked, permit = request.query_params, Permit(request).require
        dry_run = asked.get("dry_run") == "true"
        moved = await administration.seek(asked["id"], asked["to"], permit, dry_run=dry_run)
        return JSONResponse(asdict(moved))

    async def post_fork(request: Request) -> JSONResponse:
        asked, permit = request.query_params, Permit(request).require
        return JSONResponse(asdict(await administration.fork(asked["id"], asked["new"], permit)))

    async def post_rm(request: Request) -> JSONResponse:
        name, permit = request.query_params["id"], Permit(request).require
        return JSONResponse(asdict(await administration.remove(name, permit)))

    return [
        Route("/subscribers", answering(get_page, None), methods=["GET"]),
        Route("/subscribers/one", answering(get_one, None), methods=["GET"]),
        Route("/subscribers/seek", answering(post_seek, None), methods=["POST"]),
        Route("/subscribers/fork", answering(post_fork, None), methods=["POST"]),
        Route("/subscribers/rm", answering(post_rm, None), methods=["POST"]),
    ]
