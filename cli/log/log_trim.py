"""`pubsub log trim`: asks the broker that has the log, or removes the messages itself at rest."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from broker.config import DATABASE
from broker.plural import counted
from broker.registry.upkeep.trims import AtRest
from broker.store.directory import lock_data_dir
from cli.log.database import require_log
from cli.operate.admin import Where, query, request, without_broker
from cli.operate.remote import Remote
from cli.terminal import output, times
from cli.terminal.failure import CommandFailed, Exit

PATH = "/log/trim"
LOOK_S = 0.1
"""How often a trim is asked how far it is."""


def trim(
    where: Where,
    before: str,
    filters: Sequence[str],
    *,
    dry_run: bool,
    unread: bool,
    yes: bool,
    json: bool,
) -> None:
    """Raises CommandFailed, ConfigError, TopicFilterInvalid, ReplaySpecInvalid, StoreError."""
    if not isinstance(where, Remote):
        require_log(where / DATABASE)
    before, understood = times.canonical("--before", before, time.time_ns() // 1000)
    if understood:
        output.hint(f"--before: {understood}")
    if not (dry_run or yes):
        if not (sys.stdin.isatty() and output.to_terminal()):
            raise CommandFailed(
                "this removes messages for good",
                "add --yes, or --dry-run to see what would go",
                Exit.USAGE,
            )
        _say(_done(where, before, filters, dry_run=True, unread=unread), json=False)
        if input("Remove them? [y/N] ").strip().lower() not in ("y", "yes"):
            raise CommandFailed("nothing was removed")
    _say(_done(where, before, filters, dry_run=dry_run, unread=unread), json=json)


def _done(
    where: Where, before: str, filters: Sequence[str], *, dry_run: bool, unread: bool
) -> dict[str, Any]:
    if (data_dir := without_broker(where)) is None:
        state = _by_broker(where, before, filters, dry_run=dry_run, unread=unread)
    else:
        with closing(lock_data_dir(data_dir)):  # No broker begins on it meanwhile.
            path = data_dir / DATABASE
            state = asyncio.run(_at_rest(path, before, filters, dry_run=dry_run, unread=unread))
    output.progress("")
    if "error" in state:
        raise CommandFailed(f"not all was removed: {state['error']}")
    return state


def _by_broker(
    where: Where, before: str, filters: Sequence[str], *, dry_run: bool, unread: bool
) -> dict[str, Any]:
    asked = [("before", before), *[("filter", each) for each in filters]]
    asked += [(name, "1") for name, given in (("dry_run", dry_run), ("unread", unread)) if given]
    state = request("POST", f"{PATH}?{query(asked)}", where)
    try:
        while not state.get("done"):
            time.sleep(LOOK_S)
            state = request("GET", PATH, where)
            _progress(state)
    except KeyboardInterrupt:
        request("DELETE", PATH, where)
        raise
    return state


async def _at_rest(
    path: Path, before: str, filters: Sequence[str], *, dry_run: bool, unread: bool
) -> dict[str, Any]:
    async with AtRest(path) as trims:
        await trims.begin(before, filters, unread=unread, dry_run=dry_run)
        while not trims.state().get("done"):
            await asyncio.sleep(LOOK_S)
            _progress(trims.state())
        return trims.state()


def _progress(state: dict[str, Any]) -> None:
    """Nothing once it is done: a question or the result comes next."""
    if "removed" in state and not state.get("done"):
        doing = "looking" if state["dry_run"] else "removing"
        output.progress(f"{doing}: {counted(state['removed'], 'message')}")


def _say(state: dict[str, Any], *, json: bool) -> None:
    if json:
        names = ("before", "removed", "bytes", "unread", "kept_unread", "dry_run", "log_start")
        output.data(output.json_line({name: state.get(name) for name in names}))
        return
    would = "would be removed" if state["dry_run"] else "removed"
    said = f"{counted(state['removed'], 'message')} {would} before offset {state['before']:,}"
    said += f" ({state['bytes'] / 1e6:,.1f} MB)"
    if state["unread"]:
        said += f", {state['unread']:,} of them unread by a subscriber"
    if state["kept_unread"]:
        kept = counted(state["kept_unread"], "message stays", "messages stay")
        said += f"; {kept} as a subscriber has not acknowledged them (--unread)"
    output.text(f"{said}\n")
