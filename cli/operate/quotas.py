"""Quotas of users and roles: sets, lists and removes them. A broker that runs is asked; where none
runs, the log is changed as a broker would, with the lock of the data directory held."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Any

from broker.config import DATABASE
from cli.log import database
from cli.operate.admin import Where, request, without_broker
from cli.operate.at_rest import ran
from cli.terminal import columns, output

HEADINGS = {
    "connections": "CONNS",
    "sessions": "SESSIONS",
    "groups": "GROUPS",
    "subscriptions": "SUBS",
    "packet_bytes": "PACKET",
    "publish_per_s": "MSG/S",
    "publish_bytes_per_s": "BYTES/S",
    "retained": "RETAIN",
}
"""Of the limits, in the order of the columns."""


def put(where: Where, name: str, limits: dict[str, int | None], *, role: bool) -> None:
    """Raises CommandFailed, StoreError."""
    from broker.security.quotas import Quota

    given = {limit: str(most) for limit, most in limits.items() if most is not None}
    _done(
        where,
        "set",
        {**_subject(name, role), **given},
        lambda quotas: quotas.put(*_subject(name, role).values(), Quota(**limits)),
    )


def remove(where: Where, name: str, *, role: bool) -> None:
    """Raises CommandFailed, StoreError."""
    subject = _subject(name, role)
    _done(where, "rm", subject, lambda quotas: quotas.remove(*subject.values()))


def ls(where: Where, *, as_json: bool) -> None:
    """Raises CommandFailed, StoreError."""
    quotas = _all(where)
    if as_json:
        for quota in quotas:
            output.data(output.json_line(quota))
        return
    limits = [*HEADINGS]
    if output.to_terminal():  # Eight of them would not stand side by side.
        limits = [each for each in HEADINGS if any(quota[each] is not None for quota in quotas)]
    columns.write(
        ("NAME", "", *(HEADINGS[limit] for limit in limits)),
        [
            (quota["name"], quota["kind"], *(_shown(quota[limit]) for limit in limits))
            for quota in quotas
        ],
        empty="no quotas: nobody has a limit but the broker's own; pubsub quota set NAME",
    )


def _all(where: Where) -> list[dict[str, Any]]:
    if (data_dir := without_broker(where)) is None:
        found: list[dict[str, Any]] = request("GET", "/quotas", where)["quotas"]
        return found
    if not (data_dir / DATABASE).exists():
        return []
    from broker import at_rest

    with database.reading(data_dir / DATABASE) as connection:
        return [asdict(quota) for quota in at_rest.quotas_of(connection)]


def _done(
    where: Where, what: str, asked: dict[str, str], do: Callable[[Any], Awaitable[object]]
) -> None:
    if (data_dir := without_broker(where)) is None:
        request("POST", f"/quotas/{what}", where, asked)
        return
    from broker import at_rest

    database.require_log(data_dir / DATABASE)

    async def run() -> None:
        async with at_rest.quotas(data_dir) as quotas:
            await do(quotas)

    with output.waiting("opening the log"):
        ran(run)


def _shown(limit: int | None) -> str:
    return "-" if limit is None else f"{limit:,}" if output.to_terminal() else str(limit)


def _subject(name: str, role: bool) -> dict[str, str]:
    return {"kind": "role" if role else "user", "name": name}
