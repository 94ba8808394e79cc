"""`pubsub bench`: which load to make, from its options."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.net.address import check_client_id
from cli.net.sources import find
from cli.options import BrokerOptions, Qos, finite, unique

EXAMPLES = """\b
Examples:
  pubsub bench                        as fast as it goes, for 5 s
  pubsub bench --rate 1000            latency, at 1,000 messages a second
  pubsub bench --subscribers 0 --seconds 10     only publish
  pubsub bench --backlog -n 100000    publish, then deliver: each by itself
  pubsub bench -h 10.0.0.5 -p 1883 -q 0 --subscribers 100 --json

Any MQTT broker will do. Each message is checked: if one is lost, repeated or out of order, the
result says so and the exit code is 1. Ctrl-C ends it early, with what was measured so far.
As fast as possible, latency is mostly the wait in the window; use --rate to see the broker's.
Our broker keeps these messages in its log like any others: use one with another --data-dir.
"""


@with_blocks
def run(
    *,
    broker: BrokerOptions,
    client_id: Annotated[
        str | None, typer.Option("--id", "-i", help="What client identifiers begin with.")
    ] = None,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", help="Topic of all messages. [one of its own]")
    ] = None,
    qos: Qos = 1,
    messages: Annotated[
        int | None,
        typer.Option(
            "--messages", "-n", metavar="N", min=1, max=1_000_000_000, help="End after so many."
        ),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            "--seconds",
            metavar="S",
            min=0.01,
            callback=finite,
            help="End after so many. [5, or as -n takes]",
        ),
    ] = None,
    size: Annotated[
        int, typer.Option("--size", metavar="N", min=10, max=1 << 20, help="Bytes of a payload.")
    ] = 128,
    publishers: Annotated[
        int,
        typer.Option(
            "--publishers", metavar="N", min=1, max=10_000, help="How many, each connected."
        ),
    ] = 1,
    subscribers: Annotated[
        int, typer.Option("--subscribers", metavar="N", min=0, max=10_000, help="0: only publish.")
    ] = 1,
    window: Annotated[
        int,
        typer.Option(
            "--window",
            metavar="N",
            min=1,
            max=65_000,
            help="Messages under way at most, of each publisher.",
        ),
    ] = 1000,
    rate: Annotated[
        float,
        typer.Option(
            "--rate",
            metavar="N",
            min=0,
            callback=finite,
            help="Messages a second in all; 0: as fast as possible.",
        ),
    ] = 0.0,
    backlog: Annotated[
        bool, typer.Option("--backlog", help="Subscribers are away until all is published.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Measure a broker: publishing, delivery and latency."""
    from cli.bench.measurement import Options, measure
    from cli.bench.report import report

    if backlog and (qos == 0 or not subscribers or rate):
        raise typer.BadParameter("--backlog needs subscribers, QoS 1 or 2, and no --rate")
    if messages is not None and messages < publishers:
        raise typer.BadParameter("-n is less than a message for each publisher")
    address, url_topic = find(broker)
    if address.websocket is not None:
        raise typer.BadParameter("bench speaks no WebSocket: use mqtt:// or mqtts://")
    name = unique()
    if client_id is not None:
        check_client_id(f"{client_id}-pub{publishers}")
    options = Options(
        address=address,
        client_id=client_id or f"pubsub-bench-{name}",
        topic=topic or url_topic or f"pubsub-bench/{name}",
        qos=qos,
        size_bytes=size,
        publishers=publishers,
        subscribers=subscribers,
        window=window,
        rate_per_s=rate,
        messages=messages,
        seconds=5.0 if seconds is None and messages is None else seconds,
        backlog=backlog,
        json=json,
    )
    report(measure(options))
