"""Quotas of users and roles: sets, lists and removes them, with the broker running."""

from __future__ import annotations

from pathlib import Path

from cli import columns, output
from cli.admin import request

HEADINGS = {
    "connections": "CONNECTIONS",
    "sessions": "SESSIONS",
    "groups": "GROUPS",
    "subscriptions": "SUBSCRIPTIONS",
    "packet_bytes": "PACKET BYTES",
    "publish_per_s": "MESSAGES/S",
    "publish_bytes_per_s": "BYTES/S",
}
"""Of the limits, in the order of the columns."""


def put(data_dir: Path, name: str, limits: dict[str, int | None], *, role: bool) -> None:
    """Raises CommandFailed."""
    given = {limit: str(most) for limit, most in limits.items() if most is not None}
    request("POST", "/quotas/set", data_dir, {**_subject(name, role), **given})


def remove(data_dir: Path, name: str, *, role: bool) -> None:
    """Raises CommandFailed."""
    request("POST", "/quotas/rm", data_dir, _subject(name, role))


def ls(data_dir: Path, *, as_json: bool) -> None:
    """Raises CommandFailed."""
    quotas = request("GET", "/quotas", data_dir)["quotas"]
    if as_json:
        for quota in quotas:
            output.data(output.json_line(quota))
        return
    columns.write(
        ("NAME", "", *HEADINGS.values()),
        [
            (quota["name"], quota["kind"], *(_shown(quota[limit]) for limit in HEADINGS))
            for quota in quotas
        ],
    )


def _shown(limit: int | None) -> str:
    return "-" if limit is None else f"{limit:,}" if output.to_terminal() else str(limit)


def _subject(name: str, role: bool) -> dict[str, str]:
    return {"kind": "role" if role else "user", "name": name}
