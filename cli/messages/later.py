"""What `pubsub pub` is to deliver later: how the broker is told.

A delay goes into the topic, so that it works with any MQTT version; a moment into a property.
"""

from __future__ import annotations

import time

import typer

from broker.message import rfc3339
from broker.settings.dedup import duration_s
from broker.topics import DELAY_MAX_S, DELAYED_PREFIX
from cli.terminal import output
from cli.terminal.times import local, required_us

DELIVER_AT = "deliver-at"

Properties = list[tuple[str, str]]


def duration(option: str, text: str) -> int:
    """Seconds. Raises BadParameter: it is none, or more than MQTT has room for."""
    seconds = duration_s(text)
    if seconds is None:
        raise typer.BadParameter(f"{option} {text!r} is no duration: use 90s, 15m or 1d2h")
    if seconds > DELAY_MAX_S:
        raise typer.BadParameter(
            f"{option} {text!r} is too long: MQTT has room for {DELAY_MAX_S // 86_400:,} days"
        )
    return seconds


def later(
    topic: str, delay: str | None, at: str | None, properties: Properties
) -> tuple[str, Properties]:
    """The topic and the User Properties to publish with. Raises BadParameter, CommandFailed."""
    if delay is not None and at is not None:
        raise typer.BadParameter("--delay and --at exclude each other")
    if delay is not None:
        return f"{DELAYED_PREFIX}{duration('--delay', delay)}/{topic}", properties
    now_us = time.time_ns() // 1000
    at_us = required_us("--at", at or "", now_us)
    if at_us <= now_us:
        output.note(f"{local(at_us)} is over: it is delivered now")
    else:
        output.note(f"to be delivered at {local(at_us)}")
    return topic, [*properties, (DELIVER_AT, rfc3339(at_us))]
