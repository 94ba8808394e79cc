"""The `pubsub` command: every option in one place, and what an error means to a script.

A command's module is imported when it runs, so that `pubsub pub` does not wait for the broker's.
"""

from __future__ import annotations

import secrets
import sys
from pathlib import Path
from typing import Annotated

import typer

from broker import __version__
from broker.errors import ConfigError, PeerError, StoreError
from cli import output
from cli.failure import CommandFailed, ConnectionLost, Exit, OutputClosed

app = typer.Typer(
    name="pubsub",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    epilog="""\b
Examples:
  pubsub broker start
  pubsub sub weather --id sub1
  pubsub pub weather "Rainy day ahead!"
  pubsub sub --id sub1 --resume
  pubsub log
""",
)
broker_app = typer.Typer(
    help="Start, look at and stop the broker.", no_args_is_help=True, rich_markup_mode=None
)
app.add_typer(broker_app, name="broker")

DataDir = Annotated[Path, typer.Option("--data-dir", help="Where the broker keeps its log.")]
Host = Annotated[str, typer.Option("--host", "-h", help="The broker's host.")]
Port = Annotated[int, typer.Option("--port", "-p", min=1, max=65_535, help="The broker's port.")]
ClientId = Annotated[str | None, typer.Option("--id", "-i", help="Client identifier.")]
Username = Annotated[str | None, typer.Option("--username", "-u")]
Password = Annotated[str | None, typer.Option("--password", "-P")]
KeepAlive = Annotated[
    int, typer.Option("--keepalive", "-k", min=5, max=65_535, help="Seconds between pings.")
]


@broker_app.command(
    "start",
    epilog="""\b
Example:
  pubsub broker start --port 9000 --data-dir data
""",
)
def broker_start(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[
        int | None, typer.Option(min=0, max=65_535, help="Port, 0 for any free one. [9000]")
    ] = None,
    unix_socket: Annotated[
        Path | None, typer.Option(help="Listen on a Unix socket too, for this user alone.")
    ] = None,
    data_dir: Annotated[Path | None, typer.Option(help="Where the log is kept. [data]")] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with settings.")] = None,
    durability: Annotated[
        str | None,
        typer.Option(help="fsync: acknowledged means on the disk; os: with the kernel. [fsync]"),
    ] = None,
    allow_anonymous: Annotated[
        bool | None,
        typer.Option(
            "--allow-anonymous", help="Let others than this machine connect without a password."
        ),
    ] = None,
) -> None:
    """Run the broker in the foreground; Ctrl-C stops it."""
    from cli.commands.broker_start import serve

    serve(
        config,
        {
            "host": host,
            "port": port,
            "unix_socket": unix_socket,
            "data_dir": data_dir,
            "durability": durability,
            "allow_anonymous": allow_anonymous,
        },
    )


@broker_app.command(
    "status",
    epilog="""\b
Example:
  pubsub broker status --json
""",
)
def broker_status(
    data_dir: DataDir = Path("data"),
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """What the broker on a data directory is doing."""
    from cli.admin import status

    status(data_dir, as_json=json)


@broker_app.command(
    "stop",
    epilog="""\b
Example:
  pubsub broker stop
""",
)
def broker_stop(
    data_dir: DataDir = Path("data"),
    timeout: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 30.0,
) -> None:
    """Stop the broker on a data directory, and wait until it has."""
    from cli.admin import stop

    stop(data_dir, timeout_s=timeout)


@app.command(
    epilog="""\b
Examples:
  pubsub pub weather "Rainy day ahead!"
  pubsub pub weather --retain --id station7 Sunny
  seq 100000 | pubsub pub numbers -l
  pubsub pub photos/cat -f cat.jpg --json

QoS is 1 unless told otherwise: the broker acknowledges when the message is on its disk, so exit
code 0 means that it is safe. -q 0 does not wait for that.
With a terminal and no topic it asks for lines: <TOPIC> <MESSAGE>.
"""
)
def pub(
    topic: Annotated[str | None, typer.Argument(help="Topic to publish to.")] = None,
    message: Annotated[str | None, typer.Argument(help="What to publish.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 9000,
    client_id: ClientId = None,
    username: Username = None,
    password: Password = None,
    keep_alive: KeepAlive = 60,
    topic_option: Annotated[str | None, typer.Option("--topic", "-t", help="As TOPIC.")] = None,
    message_option: Annotated[
        str | None, typer.Option("--message", "-m", help="As MESSAGE.")
    ] = None,
    qos: Annotated[int, typer.Option("--qos", "-q", min=0, max=2, help="Quality of service.")] = 1,
    retain: Annotated[
        bool, typer.Option("--retain", "-r", help="Keep it as the topic's last message.")
    ] = False,
    stdin_lines: Annotated[
        bool, typer.Option("--stdin-line", "-l", help="A message per line of standard input.")
    ] = False,
    stdin_whole: Annotated[
        bool, typer.Option("--stdin-file", "-s", help="All of standard input as one message.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="A file as one message.")
    ] = None,
    null: Annotated[bool, typer.Option("--null-message", "-n", help="An empty message.")] = False,
    user_property: Annotated[
        list[str] | None, typer.Option("--property", "-D", help="User property, NAME=VALUE.")
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON per message acknowledged.")
    ] = False,
) -> None:
    """Publish; done when the broker has it on its disk."""
    from cli import publish
    from cli.address import Address

    given = [text for text in (topic, message) if text is not None]
    if topic_option is not None:
        given.insert(0, topic_option)
    if message_option is not None:
        given.insert(1, message_option)
    sources = (len(given) > 1) + stdin_lines + stdin_whole + (file is not None) + null
    if len(given) > 2 or sources > 1 or (message_option is not None and len(given) < 2):
        raise typer.BadParameter("give one TOPIC and one of MESSAGE, -l, -s, -f and -n")
    options = publish.Options(
        address=Address(
            host=host, port=port, username=username, password=password, keep_alive_s=keep_alive
        ),
        client_id=client_id or f"pubsub-pub-{secrets.token_hex(6)}",
        qos=qos,
        retain=retain,
        json=json,
        user_properties=tuple(_property(text) for text in user_property or ()),
    )
    if not given:
        if sources or not sys.stdin.isatty():
            raise typer.BadParameter("a topic is missing: pubsub pub TOPIC MESSAGE")
        from cli import interactive

        interactive.publish_lines(options)
    elif stdin_lines:
        publish.publish_lines(options, given[0])
    elif sources == 0:
        raise typer.BadParameter("a message is missing: give MESSAGE, or -l, -s, -f or -n")
    else:

        def payload() -> bytes:
            if file is not None:
                return publish.read_file(file)
            if stdin_whole:
                return sys.stdin.buffer.read()
            return b"" if null else given[1].encode("utf-8", "surrogateescape")

        publish.publish(options, given[0], payload)


@app.command(
    epilog="""\b
Examples:
  pubsub sub weather
  pubsub sub weather 'home/#' --id sub1       a durable subscriber
  pubsub sub --id sub1 --resume               what it missed, then what is new
  pubsub sub weather --from @-1h --json       the last hour first
  pubsub sub jobs --group workers --exec ./work.sh

\b
-F fields are mosquitto_sub's (%t topic, %p payload, %q QoS, %r retain, %l length,
  %x %X hex, %m packet identifier, %I %U time, %j %J JSON, %C %D %E %F %P %R %S properties)
  and %{offset}, %{publisher}, %{published_at}.
SPEC is earliest, latest, N (offset), -N (last N), N:M, @TIME or @T1:T2; TIME is like
  2025-03-14T10:30:00Z, 1741948200 or -1d2h (ago).

With a terminal and no topic it asks for lines: subscribe <TOPIC>, unsubscribe <TOPIC>.
A message is acknowledged after it was written, so Ctrl-C and --resume lose none.
"""
)
def sub(
    topics: Annotated[list[str] | None, typer.Argument(help="Topic filters.")] = None,
    host: Host = "127.0.0.1",
    port: Port = 9000,
    client_id: Annotated[
        str | None,
        typer.Option("--id", "-i", help="Durable: the broker keeps for it what it misses."),
    ] = None,
    username: Username = None,
    password: Password = None,
    keep_alive: KeepAlive = 60,
    topic_options: Annotated[
        list[str] | None, typer.Option("--topic", "-t", help="As TOPICS; may be repeated.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue where --id stopped, not afresh.")
    ] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="SPEC", help="Replay from.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SPEC", help="End the replay there.")
    ] = None,
    group: Annotated[
        str | None, typer.Option("--group", help="Share the messages with others of the group.")
    ] = None,
    qos: Annotated[int, typer.Option("--qos", "-q", min=0, max=2, help="Quality of service.")] = 1,
    count: Annotated[
        int | None, typer.Option("--count", "-C", min=1, help="End after so many messages.")
    ] = None,
    timeout: Annotated[
        float | None, typer.Option("--timeout", "-W", min=0, help="End (27) after so many seconds.")
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
    no_newline: Annotated[
        bool, typer.Option("--no-newline", "-N", help="Write payloads without a newline.")
    ] = False,
    ignore_retained: Annotated[
        bool, typer.Option("--ignore-retained", "-R", help="Leave retained messages out.")
    ] = False,
    quiet: Annotated[bool, typer.Option("--quiet", help="No status on standard error.")] = False,
) -> None:
    """Subscribe, and write each message to standard output."""
    from broker.topics import SHARE_PREFIX
    from cli import subscribe
    from cli.address import Address
    from cli.format import compile_format, json_format, plain_format

    filters = [*(topics or ()), *(topic_options or ())]
    if resume and client_id is None:
        raise typer.BadParameter("--resume needs the --id to resume")
    if resume and start is not None:
        raise typer.BadParameter("--resume says where to begin, and so does --from: use one")
    if until is not None and not filters:
        raise typer.BadParameter("--until needs the topics to replay")
    if (format is not None) + json + (command is not None) > 1:
        raise typer.BadParameter("use one of -F, --json and --exec")
    terminal = output.to_terminal()
    if format is not None:
        write = compile_format(format + ("" if no_newline else "\n"), terminal=terminal)
    elif json:
        write = json_format
    else:
        write = plain_format(verbose=verbose, newline=not no_newline, terminal=terminal)
    options = subscribe.Options(
        address=Address(
            host=host, port=port, username=username, password=password, keep_alive_s=keep_alive
        ),
        filters=tuple(
            f"{SHARE_PREFIX}{group}/{one}" if group is not None else one for one in filters
        ),
        client_id=client_id or f"pubsub-sub-{secrets.token_hex(6)}",
        durable=client_id is not None,
        resume=resume,
        qos=qos,
        format=write,
        metadata=json or command is not None or start is not None or "%{" in (format or ""),
        start=start,
        until=until,
        count=count,
        timeout_s=timeout,
        command=command,
        ignore_retained=ignore_retained,
        quiet=quiet,
    )
    if filters or resume:
        raise typer.Exit(subscribe.subscribe(options))
    if not (sys.stdin.isatty() and terminal):
        raise typer.BadParameter("a topic is missing: pubsub sub TOPIC")
    from cli import interactive

    interactive.subscribe_lines(options)


@app.command(
    epilog="""\b
Examples:
  pubsub log
  pubsub log 'home/#' -f
  pubsub log --from @-1h --publisher pub1 --grep 'rain|snow' --json
"""
)
def log(
    filters: Annotated[list[str] | None, typer.Argument(help="Topic filters; all topics.")] = None,
    data_dir: DataDir = Path("data"),
    last: Annotated[
        int | None,
        typer.Option(
            "-n", min=0, help="The last so many, 0 for all. [20, or all with --from or --until]"
        ),
    ] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Then what comes.")] = False,
    start: Annotated[
        str | None, typer.Option("--from", metavar="SPEC", help="As `pubsub sub --from`.")
    ] = None,
    until: Annotated[
        str | None, typer.Option("--until", metavar="SPEC", help="Up to there.")
    ] = None,
    publisher: Annotated[str | None, typer.Option(help="Only from this client.")] = None,
    grep: Annotated[
        str | None, typer.Option(help="Only payloads in which this regular expression is found.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="A line of JSON per message.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Only how many there are.")] = False,
) -> None:
    """What was published, whether or not the broker runs."""
    from cli.history import Options, show

    if follow and (count or until is not None):
        raise typer.BadParameter("--follow does not end: leave --count and --until out")
    if last is None:
        last = 20 if start is None and until is None else 0
    show(
        Options(
            data_dir=data_dir,
            filters=tuple(filters or ()),
            last=last or None,
            start=start,
            until=until,
            publisher=publisher,
            grep=grep,
            follow=follow,
            json=json,
            count=count,
        )
    )


@app.command(
    epilog="""\b
Examples:
  pubsub bench                              publish and deliver as fast as it goes, for 5 s
  pubsub bench --rate 1000                  latency, at 1,000 messages a second
  pubsub bench --subscribers 0 --seconds 10     only publish
  pubsub bench --backlog -n 100000          publish, then deliver: each by itself
  pubsub bench -h 10.0.0.5 -p 1883 -q 0 --subscribers 100 --json

Any MQTT broker will do. Each message is checked: if one is lost, repeated or out of order, the
result says so and the exit code is 1. Ctrl-C ends it early, with what was measured so far.
As fast as possible, latency is mostly the wait in the window; use --rate to see the broker's.
Our broker keeps these messages in its log like any others: use one with another --data-dir.
"""
)
def bench(
    host: Host = "127.0.0.1",
    port: Port = 9000,
    client_id: Annotated[
        str | None, typer.Option("--id", "-i", help="What client identifiers begin with.")
    ] = None,
    username: Username = None,
    password: Password = None,
    topic: Annotated[
        str | None, typer.Option("--topic", "-t", help="Topic of all messages. [one of its own]")
    ] = None,
    qos: Annotated[int, typer.Option("--qos", "-q", min=0, max=2, help="Quality of service.")] = 1,
    messages: Annotated[
        int | None,
        typer.Option("--messages", "-n", min=1, max=1_000_000_000, help="End after so many."),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option("--seconds", min=0.01, help="End after so many. [5, or as -n takes]"),
    ] = None,
    size: Annotated[
        int, typer.Option("--size", min=10, max=1 << 20, help="Bytes of a payload.")
    ] = 128,
    publishers: Annotated[
        int, typer.Option("--publishers", min=1, max=10_000, help="How many, each connected.")
    ] = 1,
    subscribers: Annotated[
        int, typer.Option("--subscribers", min=0, max=10_000, help="0: only publish.")
    ] = 1,
    window: Annotated[
        int,
        typer.Option(
            "--window", min=1, max=65_000, help="Messages under way at most, of each publisher."
        ),
    ] = 1000,
    rate: Annotated[
        float,
        typer.Option("--rate", min=0, help="Messages a second in all; 0: as fast as possible."),
    ] = 0.0,
    backlog: Annotated[
        bool, typer.Option("--backlog", help="Subscribers are away until all is published.")
    ] = False,
    json: Annotated[bool, typer.Option("--json", help="As one line of JSON.")] = False,
) -> None:
    """Measure a broker: publishing, delivery and latency."""
    from cli.address import Address
    from cli.bench.measurement import Options, measure
    from cli.bench.report import report

    if backlog and (qos == 0 or not subscribers or rate):
        raise typer.BadParameter("--backlog needs subscribers, QoS 1 or 2, and no --rate")
    if messages is not None and messages < publishers:
        raise typer.BadParameter("-n is less than a message for each publisher")
    unique = secrets.token_hex(6)
    options = Options(
        address=Address(host=host, port=port, username=username, password=password),
        client_id=client_id or f"pubsub-bench-{unique}",
        topic=topic or f"pubsub-bench/{unique}",
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


def _property(text: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    return name, value


def _show_version(wanted: bool) -> None:
    if wanted:
        output.text(f"pubsub {__version__}\n")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="The version.")
    ] = False,
) -> None:
    """A durable publish-subscribe broker that speaks MQTT, and its commands."""


def main() -> None:
    """Run the command. One line on standard error for what went wrong, and its exit code."""
    try:
        app(prog_name="pubsub")
    except OutputClosed:
        code = Exit.OK
    except ConnectionLost as error:
        output.error(f"connection lost: {error}")
        code = Exit.UNREACHABLE
    except CommandFailed as error:
        output.error(str(error))
        code = error.code
    except (ConfigError, PeerError) as error:
        output.error(str(error))
        code = Exit.USAGE
    except StoreError as error:
        output.error(str(error))
        code = Exit.STORE_DAMAGED
    sys.exit(code)


if __name__ == "__main__":
    main()
