"""What a broker tells about itself, for a person: what is wrong first, then what it is doing.

This answers what an operator asks at night: does it take messages, is there room, who is there,
what was lost. `Server.status` of `broker/server/server.py` has all figures. Those that count what
goes wrong are left out while they are 0, and those that a broker of another version does not tell
always.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from broker.plural import counted
from cli.operate.subscribers import duration, size
from cli.terminal import output

Status = Mapping[str, Any]

NAME_WIDTH = 12
NEARLY_FULL = 0.75
"""Of a shared log, which is trimmed to half of what it may have."""
COUNTED = {
    "append_failures": "writes of the log that failed",
    "removed_unread": "messages removed that a subscriber had not read",
    "dead_letters": "dead letters; pubsub dead-letters lists them",
    "attempts_failed": "attempts of workers that failed",
    "logins_failed": "logins that failed",
    "logins_refused": "logins refused, as too many failed",
    "refused_connects": "connections refused",
    "evicted": "clients disconnected, as they did not read",
    "protocol_errors": "errors of clients in their protocol",
    "redeliveries": "messages sent again",
    "repeats": "messages recognised as sent twice, and stored once",
    "line_errors_left_out": "errors not told to line clients, as they did not read",
    "gaps_left_out": "gaps not told to line subscribers, as they did not read",
}
"""What they count, since the start, worst first."""


def lines(status: Status, width: int) -> Iterator[str]:
    """Raises nothing for what is missing or new in `status`."""
    where = ", ".join(status.get("listeners", ())) or status.get("address", "")
    said = f"pubsub {status.get('version', '')} on {where}"
    said += f", pid {status.get('pid')}, up {duration(status.get('uptime_s', 0))}"
    yield from textwrap.wrap(
        output.one_line(said), width, subsequent_indent="  ", break_on_hyphens=False
    )
    for trouble in troubles(status):
        yield from textwrap.wrap(
            output.one_line(trouble), width, initial_indent="! ", subsequent_indent="  "
        )
    for name, value in (*_doing(status), *_counted(status)):
        yield from textwrap.wrap(
            output.one_line(value),
            max(width, 2 * NAME_WIDTH),
            initial_indent=f"{name:<{NAME_WIDTH}}",
            subsequent_indent=" " * NAME_WIDTH,
            break_on_hyphens=False,
        )


def troubles(status: Status) -> Iterator[str]:
    """What an operator has to do something about, and what."""
    disk, why = status.get("disk", {}), status.get("waiting", {}).get("disk")
    if why not in (None, "full"):
        yield f"the log is {why}: no messages are taken until that ends"
    elif why or disk.get("low"):
        # What is removed is written first, so a full disk needs room before that.
        then = "then remove" if why else "or remove"
        yield (
            f"the disk is {why or 'nearly full'}: no messages are taken until"
            f" {size(disk.get('least', 0))} and more are free; make room there, {then} old"
            " messages: pubsub log trim --before SPEC"
        )
    for file, doubt in status.get("certificates", {}).items():
        yield f"careful clients do not connect, or soon will not: {file}: {doubt}; renew it"
    if damaged := status.get("damaged_offsets"):
        yield (
            f"{counted(damaged, 'message is', 'messages are')} damaged: pubsub check says which;"
            " keep your last backup"
        )
    if damaged := status.get("retention", {}).get("damaged_segments"):
        yield f"{counted(damaged, 'damaged part')} of the log cannot be removed: pubsub check"
    shared = status.get("shared_log", {})
    most = shared.get("bytes_max") or 0
    if most and (shared.get("bytes") or 0) >= NEARLY_FULL * most:
        yield (
            f"the shared log has {size(shared['bytes'])} of at most {size(most)}: when it is full"
            " no messages are taken. It is trimmed to what all brokers have: does one hang?"
        )
    if status.get("connections", 0) >= status.get("connections_max", 1) > 0:
        yield "all connections that connections_max allows are taken: others are refused"


def _doing(status: Status) -> Iterator[tuple[str, str]]:
    if "connections" in status:
        yield (
            "clients",
            f"{status['connections']:,} of {status.get('connections_max', 0):,} connections;"
            f" {counted(status.get('sessions_durable', 0), 'durable session')},"
            f" {counted(status.get('groups', 0), 'group')}",
        )
    if "messages_in" in status:
        said = f"{status['messages_in']:,} came, {status.get('messages_out', 0):,} were sent"
        if delayed := status.get("delayed_messages"):
            said += f"; {delayed:,} wait until they are due"
        yield "messages", f"{said} since the start"
    if "messages_in_per_s" in status:
        came, sent = status["messages_in_per_s"], status.get("messages_out_per_s", 0)
        yield "", f"{came:,.1f}/s came, {sent:,.1f}/s were sent in the last minute"
    waiting = status.get("waiting", {})
    if waiting.get("messages") or waiting.get("sessions"):
        yield (
            "waiting",
            f"{counted(waiting.get('messages', 0), 'message')} and changes of"
            f" {counted(waiting.get('sessions', 0), 'session')} for the disk",
        )
    if "high_watermark" in status:
        offsets = "no messages yet"
        if last := status["high_watermark"]:
            offsets = f"offsets {status.get('log_start', 0):,} to {last:,}"
        yield "log", f"{offsets} in {status.get('data_dir', '')}"
    retention = status.get("retention", {})
    rules = retention.get("rules", {})
    for number, (topics, rule) in enumerate(rules.items()):
        yield ("" if number else "kept"), f"{topics}: {rule}" if len(rules) > 1 else str(rule)
    if "disk" in status:
        disk = status["disk"]
        free = size(max(0, disk.get("free", 0)))
        yield "disk", f"{free} free; below {size(disk.get('least', 0))} no messages are taken"
    if shared := status.get("shared_log"):
        named = dict(shared.get("other_brokers", {})).items()
        others = ", ".join(f"{id} ({at})" if at else id for id, at in named) or "no other broker"
        yield "shared log", f"as {shared.get('broker', '')}, with {others}"


def _counted(status: Status) -> Iterator[tuple[str, str]]:
    rows = [(count, reason) for reason, count in status.get("dropped", {}).items() if count]
    for number, (count, reason) in enumerate(sorted(rows, reverse=True)):
        yield ("" if number else "dropped"), f"{count:,}  {reason}"
    rows = [(status[name], what) for name, what in COUNTED.items() if status.get(name)]
    for number, (count, what) in enumerate(rows):
        yield ("" if number else "counted"), f"{count:,}  {what}"
