"""`pubsub pub`: what to publish and how, from its options."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.blocks import with_blocks
from cli.net.address import check_client_id, check_string
from cli.net.connecting import address_of
from cli.options import BrokerOptions, ClientOptions, Qos, finite, unique

EXAMPLES = """\b
Examples:
  pubsub pub weather "Rainy day ahead!"
  pubsub pub temperature -5
  pubsub pub weather --retain --id station7 Sunny
  seq 100000 | pubsub pub numbers -l
  pubsub pub photos/cat -f cat.jpg --json
  pubsub pub lamp off --delay 1h30m
  pubsub pub orders '{"id": 7}' --id shop --dedup order-7

QoS is 1 unless told otherwise: the broker acknowledges when the message is on its disk, so exit
code 0 means that it is safe. -q 0 does not wait for that.
-l goes on when a lost connection is back: QoS 2 is stored once, QoS 1 at least once.
With a terminal and no topic it asks for lines: <TOPIC> <MESSAGE>.
"""


@with_blocks
def run(
    topic: Annotated[str | None, typer.Argument(help="Topic to publish to.")] = None,
    message: Annotated[str | None, typer.Argument(help="What to publish.")] = None,
    *,
    broker: BrokerOptions,
    client_id: Annotated[str | None, typer.Option("--id", "-i", help="Client identifier.")] = None,
    client: ClientOptions,
    topic_option: Annotated[str | None, typer.Option("--topic", "-t", help="As TOPIC.")] = None,
    message_option: Annotated[
        str | None, typer.Option("--message", "-m", help="As MESSAGE.")
    ] = None,
    qos: Qos = 1,
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
    delay: Annotated[
        str | None, typer.Option("--delay", help="Deliver it so much later: 90s, 15m, 1d2h.")
    ] = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Deliver it then: 18:30, 2026-12-24T18:00:00Z.")
    ] = None,
    dedup: Annotated[
        str | None,
        typer.Option("--dedup", help="Store it once, however often it is sent with this key."),
    ] = None,
    expire: Annotated[
        str | None, typer.Option("--expire", help="Not to be delivered after: 90s, 15m, 1d2h.")
    ] = None,
    receipt: Annotated[
        bool, typer.Option("--receipt", help="Print its offset in the log.")
    ] = False,
    timeout: Annotated[
        float | None,
        typer.Option(
            "--timeout",
            "-W",
            metavar="S",
            min=0,
            callback=finite,
            help="-l: end (27) if the broker is away so long.",
        ),
    ] = None,
    json: Annotated[
        bool, typer.Option("--json", help="A line of JSON per message acknowledged.")
    ] = False,
) -> None:
    """Publish; done when the broker has it on its disk."""
    from cli.messages import publish
    from cli.messages.later import duration, later

    address, url_topic = address_of(broker, client)
    properties = [_property(text) for text in user_property or ()]
    given = [text for text in (topic, message) if text is not None]
    if url_topic is not None:
        given.insert(0, url_topic)
    if topic_option is not None:
        given.insert(0, topic_option)
    if message_option is not None:
        given.insert(1, message_option)
    sources = (len(given) > 1) + stdin_lines + stdin_whole + (file is not None) + null
    if len(given) > 2 or sources > 1 or (message_option is not None and len(given) < 2):
        raise typer.BadParameter("give one TOPIC and one of MESSAGE, -l, -s, -f and -n")
    if timeout is not None and not stdin_lines:
        raise typer.BadParameter("--timeout is for -l: the others end when the connection does")
    check_client_id(client_id)
    if dedup is not None and (stdin_lines or client_id is None):
        raise typer.BadParameter(
            "--dedup is for one message, and needs --id: a key is one publisher's on one topic"
        )
    check_string("--dedup", dedup)
    if given and (delay is not None or at is not None):
        given[0], properties = later(given[0], delay, at, properties)
    options = publish.Options(
        address=address,
        client_id=client_id or f"pubsub-pub-{unique()}",
        qos=qos,
        retain=retain,
        json=json,
        user_properties=tuple(properties),
        receipt=receipt,
        dedup_key=dedup,
        expiry_s=None if expire is None else duration("--expire", expire),
    )
    if not given:
        if sources or not sys.stdin.isatty():
            raise typer.BadParameter("a topic is missing: pubsub pub TOPIC MESSAGE")
        from cli.messages import interactive

        interactive.publish_lines(options)
    elif stdin_lines:
        publish.publish_lines(options, given[0], away_s_max=timeout)
    elif sources == 0:
        raise typer.BadParameter("a message is missing: give MESSAGE, or -l, -s, -f or -n")
    else:

        def payload() -> bytes:
            if file is not None:
                return publish.read_file(file)
            if stdin_whole:
                return publish.read_stdin()
            return b"" if null else given[1].encode("utf-8", "surrogateescape")

        publish.publish(options, given[0], payload)


def _property(text: str) -> tuple[str, str]:
    name, is_pair, value = text.partition("=")
    if not is_pair:
        raise typer.BadParameter(f"{text!r} is not NAME=VALUE")
    check_string("the name in --property", name)
    check_string("the value in --property", value)
    return name, value
