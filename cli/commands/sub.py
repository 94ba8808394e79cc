"""`pubsub sub`: what to subscribe to and how to write it, from its options."""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.net.address import check_client_id
from cli.net.connecting import address_of
from cli.options import BrokerOptions, ClientOptions, OptionalQos, finite, unique
from cli.terminal import output

EXAMPLES = """\b
Examples:
  pubsub sub weather
  pubsub sub weather 'home/#' --id sub1   durable: again, it goes on
  pubsub sub --id sub1 --resume           what it had, where it stopped
  pubsub sub weather --from @-1h --json   the last hour first
  pubsub sub weather --from yesterday --exit-at-end
  pubsub sub weather --from @-1h --speed 10x
  pubsub sub jobs --group workers --exec ./work.sh

\b
-F fields are mosquitto_sub's (%t topic, %p payload, %q QoS, %r retain,
  %l length, %x %X hex, %m packet identifier, %I %U time, %j %J JSON,
  %C %D %E %F %P %R %S properties) and %{offset}, %{publisher},
  %{published_at}.
SPEC is earliest, latest, N (offset), -N (last N), N:M, @TIME or @T1:T2;
  TIME is like 11:00, today, 2025-03-14T10:30:00Z, 1741948200 or -1d2h (ago),
  local without a zone.

With a terminal and no topic it asks for lines: subscribe <TOPIC>, unsubscribe <TOPIC>.
A message is acknowledged after it was written, so Ctrl-C loses none.
"""


@with_blocks
def run(
    topics: Annotated[list[str] | None, typer.Argument(help="Topic filters.")] = None,
    *,
    broker: BrokerOptions,
    client_id: Annotated[
        str | None,
        typer.Option("--id", "-i", help="Durable: goes on where it stopped, missing nothing."),
    ] = None,
    client: ClientOptions,
    topic_options: Annotated[
        list[str] | None, typer.Option("--topic", "-t", help="As TOPICS; may be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="What --id had subscribed to; none: exit code 66.")
    ] = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Discard what --id had, and begin anew.")
    ] = False,
    only: Annotated[
        bool, typer.Option("--only", help="Unsubscribe --id from what TOPICS do not name.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="SPEC", help="Replay from.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SPEC", help="End the replay there.")
    ] = None,
    exit_at_end: Annotated[
        bool, typer.Option("--exit-at-end", help="With --from: what is there now, and no more.")
    ] = False,
    speed: Annotated[
        str | None,
        typer.Option("--speed", metavar="1x", help="With --from: as fast as it was, or 10x."),
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Share the messages with others of the group.")
    ] = None,
    qos: OptionalQos = None,
    count: Annotated[
        int | None,
        typer.Option("--count", "-C", metavar="N", min=1, help="End after so many messages."),
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            "-W",
            metavar="S",
            min=0,
            callback=finite,
            help="End (27) after so many seconds.",
        ),
    ] = None,
    format: Annotated[
        str | None, typer.Option("--format", "-F", help="How to write a message.")
    ] = None,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Write the topic before the payload.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per message.")] = False,
    command: Annotated[
        str | None,
        typer.Option("--exec", metavar="CMD", help="Run CMD for each, acknowledge if it succeeds."),
    ] = None,
    exec_timeout: Annotated[
        float | None,
        typer.Option(
            "--exec-timeout",
            metavar="S",
            min=0.1,
            callback=finite,
            help="End CMD after so many seconds.",
        ),
    ] = None,
    grace: Annotated[
        float,
        typer.Option(
            "--grace", metavar="S", min=0, callback=finite, help="How long a stop waits for CMD."
        ),
    ] = 30.0,
    no_newline: Annotated[
        bool, typer.Option("--no-newline", "-N", help="Write payloads without a newline.")
    ] = False,
    filter_out: Annotated[
        list[str] | None,
        typer.Option("--filter-out", "-T", help="Leave out what matches; may be repeated."),
    ] = None,
    unsubscribe: Annotated[
        list[str] | None,
        typer.Option("--unsubscribe", "-U", help="Unsubscribe --id from it; may be repeated."),
    ] = None,
    exit_when_subscribed: Annotated[
        bool, typer.Option("-E", help="End when subscribed: --id gets it all later.")
    ] = False,
    durable: Annotated[
        bool, typer.Option("--disable-clean-session", "-c", help="--id does that already.")
    ] = False,
    session_expiry_s: Annotated[
        int | None,
        typer.Option(
            "--session-expiry-interval",
            "-x",
            metavar="SECONDS",
            min=1,
            max=0xFFFFFFFF,
            help="How long --id is kept while away; 4294967295: for ever. [30 days]",
        ),
    ] = None,
    ignore_retained: Annotated[
        bool, typer.Option("--ignore-retained", "-R", help="Leave retained messages out.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No status on standard error.")] = False,
) -> None:
    """Subscribe, and write each message to standard output."""
    from broker.topics import SHARE_PREFIX
    from cli.messages import subscribe
    from cli.messages.execute import Command
    from cli.messages.format import compile_format, json_format, plain_format

    address, url_topic = address_of(broker, client)
    filters = [*(topics or ()), *(topic_options or ())]
    if url_topic is not None:
        filters.append(url_topic)
    for name, given in (
        ("--resume", resume),
        ("--fresh", fresh),
        ("--only", only),
        ("-c", durable),
        ("-E", exit_when_subscribed),
        ("--unsubscribe", bool(unsubscribe)),
        ("--session-expiry-interval", session_expiry_s is not None),
    ):
        if given and client_id is None:
            raise typer.BadParameter(f"{name} needs the --id of a durable subscriber")
    if client_id == "":
        raise typer.BadParameter("--id is empty")
    check_client_id(client_id)
    resume |= bool(unsubscribe) and not filters
    if resume and fresh:
        raise typer.BadParameter("--resume goes on and --fresh begins anew: use one")
    if only and not filters:
        raise typer.BadParameter("--only needs the topics to keep")
    if group is not None:
        _check_group(group, filters)
    if resume and start is not None:
        raise typer.BadParameter("--resume says where to begin, and so does --from: use one")
    if exit_at_end:
        if client_id is not None or until is not None:
            raise typer.BadParameter("--exit-at-end goes with --from, without --id and --until")
        until = "latest"
    if until is not None:
        _check_replayed(filters, start)
    times_as_fast = None
    if speed is not None:
        from cli.messages.pace import factor

        times_as_fast = factor(speed)
        if times_as_fast is None or start is None or client_id is not None or command is not None:
            raise typer.BadParameter(
                "--speed is like 1x or 10x and goes with --from, without --id and --exec"
            )
    start = _place("--from", start, quiet=quiet)
    until = _place("--until", until, quiet=quiet, point=True)
    if (format is not None) + json + (command is not None) > 1:
        raise typer.BadParameter("use one of -F, --json and --exec")
    if resume and not filters and qos is not None and not quiet:
        output.note("-q without effect: it is for topics, and none is given")
    terminal = output.to_terminal()
    if format is not None:
        write = compile_format(format + ("" if no_newline else "\n"), terminal=terminal)
    elif json:
        write = json_format
    else:
        write = plain_format(verbose=verbose, newline=not no_newline, terminal=terminal)
    options = subscribe.Options(
        address=address,
        filters=tuple(
            f"{SHARE_PREFIX}{group}/{one}" if group is not None else one for one in filters
        ),
        client_id=client_id or f"pubsub-sub-{unique()}",
        durable=client_id is not None,
        resume=resume,
        fresh=fresh,
        only=only,
        qos=1 if qos is None else qos,
        format=write,
        metadata=json or command is not None or start is not None or "%{" in (format or ""),
        replay=subscribe.Replay(start, until, times_as_fast),
        count=0 if exit_when_subscribed else count,
        timeout_s=timeout,
        command=None if command is None else Command(command, exec_timeout, grace),
        ignore_retained=ignore_retained,
        filtered_out=tuple(filter_out or ()),
        unsubscribe=tuple(unsubscribe or ()),
        session_expiry_s=subscribe.SESSION_EXPIRY_S
        if session_expiry_s is None
        else session_expiry_s,
        quiet=quiet,
    )
    if filters or resume:
        raise typer.Exit(subscribe.subscribe(options))
    if not (sys.stdin.isatty() and terminal):
        raise typer.BadParameter("a topic is missing: pubsub sub TOPIC")
    from cli.messages import interactive

    interactive.subscribe_lines(options)


def _check_replayed(filters: list[str], start: str | None) -> None:
    """`--until` ends a replay, so one has to begin: by `--from`, or by the filters themselves."""
    from broker.topics import REPLAY_PREFIX

    if not filters:
        raise typer.BadParameter("--until needs the topics to replay")
    if start is None and not all(one.startswith(REPLAY_PREFIX) for one in filters):
        raise typer.BadParameter(
            "--until ends a replay, and none begins: add --from SPEC, as --from earliest"
        )


def _place(option: str, spec: str | None, *, quiet: bool, point: bool = False) -> str | None:
    """As the broker takes it. (It would take what is no place in the log for an application's own
    User Property.)"""
    from broker.errors import ReplaySpecInvalid
    from broker.replay.spec import parse_point
    from cli.terminal.failure import CommandFailed
    from cli.terminal.times import canonical

    if spec is None:
        return None
    now_us = time.time_ns() // 1000
    try:
        place, understood = canonical(option, spec, now_us)
        if point:
            parse_point(place, now_us)
    except CommandFailed as error:
        raise typer.BadParameter(str(error)) from error
    except ReplaySpecInvalid as error:
        raise typer.BadParameter(f"{option}: {error.reason}") from error
    if understood and not quiet:
        output.hint(f"{option.removeprefix('--')} {understood}")
    return place


def _check_group(group: str, filters: list[str]) -> None:
    """Raises BadParameter, TopicFilterInvalid. [MQTT-4.8.2-1, 2]"""
    from broker.topics import refuse_words

    for topic_filter in filters:
        refuse_words(topic_filter, "a group")
    if not group or any(character in group for character in "/+#"):
        raise typer.BadParameter(f"--group {group!r} is no name of a group: leave /, + and # out")
