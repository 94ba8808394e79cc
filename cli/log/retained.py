"""`pubsub retained`: what is retained on which topic, what was before, and back to that.

What is and was retained comes from the log where it lies; what changes it is an ordinary PUBLISH
with RETAIN, so it is acknowledged, in the log, and in the history in its turn.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path

from broker.config import DATABASE
from broker.message import Message
from broker.replay import spec
from broker.topics import is_literal, matches, validate_filter
from cli.log import database
from cli.log.history import History, Log, Options, Places
from cli.log.record import record
from cli.log.show_log import lines, put
from cli.net.address import Address
from cli.options import unique
from cli.terminal import output
from cli.terminal.failure import CommandFailed, Exit
from cli.terminal.progress import Progress

PAGE_TOPICS = 500


def show(options: Options) -> None:
    """The retained messages, by topic. Raises CommandFailed: no log; StoreError."""
    for topic_filter in options.filters:
        validate_filter(topic_filter)
    with database.reading(options.data_dir / DATABASE) as connection:
        log = Log(connection)
        write = lines(options, age_us=log.age_us(), high_watermark=log.high_watermark)
        shown = put(_pages(log, options.filters), write, Progress(0))
        log.raise_if_damaged()
        if not shown:
            on = " on these topics" if options.filters else ""
            output.nothing(f"nothing is retained{on}; pubsub pub TOPIC MESSAGE --retain")


def of_topic(data_dir: Path, topic: str) -> Message:
    """Raises CommandFailed (66): nothing is retained there."""
    _require_topic(topic)
    with database.reading(data_dir / DATABASE) as connection:
        log = Log(connection)
        for page in _pages(log, [topic]):
            return page[0]
        log.raise_if_damaged()
    raise _nothing(topic)


def remove(data_dir: Path, address: Address, topics: Sequence[str], *, json: bool = False) -> None:
    """Raises CommandFailed (66): nothing is retained on one of them; then none is removed."""
    from cli.log.republish import Republisher

    for topic in topics:
        of_topic(data_dir, topic)
    publisher = Republisher(address, f"pubsub-retained-{unique()}")
    publisher.open()
    try:
        for topic in topics:
            publisher.send({"topic": topic}, retain=True)
        publisher.wait()
    finally:
        publisher.close()
    for topic in topics:
        if json:
            output.data(output.json_line({"topic": topic, "retained": False}))
        else:
            output.note(
                f"nothing is retained on {output.escaped(topic)} any more;"
                " pubsub retained undo brings it back"
            )


def undo(data_dir: Path, address: Address, topic: str, *, json: bool = False) -> None:
    """Retain again what was before. Raises CommandFailed (66): there was nothing before."""
    from cli.log.republish import Republisher

    _require_topic(topic)
    options = Options(data_dir=data_dir, filters=(topic,), last=2, retained=True)
    with database.reading(data_dir / DATABASE) as connection:
        history = History(connection, options, Places(spec.Earliest(), None))
        found = [message for page in history.newest(2) for message in page]
        age_us = history.age_us()
        history.raise_if_damaged()
    if not found:
        raise _nothing(topic)
    before = found[0] if len(found) == 2 else None
    publisher = Republisher(address, f"pubsub-retained-{unique()}")
    publisher.open()
    try:
        if before is None:
            publisher.send({"topic": topic}, retain=True)
        else:
            publisher.send(record(before, age_us=age_us), retain=True)
        publisher.wait()
    finally:
        publisher.close()
    named = output.escaped(topic)
    if json:
        is_retained = before is not None and bool(before.payload)
        of = {"of": before.offset} if before is not None else {}
        output.data(output.json_line({"topic": topic, "retained": is_retained, **of}))
    elif before is None or not before.payload:
        output.note(f"nothing is retained on {named} any more, as before")
    else:
        output.note(f"retained on {named} again: what was published at offset {before.offset}")


def _pages(log: Log, filters: Sequence[str]) -> Iterator[list[Message]]:
    now_us = time.time_ns() // 1000 - log.age_us()
    topics = iter(
        [
            (name, offset)
            for name, offset in log.retained()
            if not filters or any(matches(each, name) for each in filters)
        ]
    )
    while page := [*islice(topics, PAGE_TOPICS)]:
        found = {int(message.offset): message for message in log.at([offset for _, offset in page])}
        messages = [found[offset] for _, offset in page if offset in found]
        if here := [message for message in messages if not message.has_expired(now_us)]:
            yield here


def _require_topic(topic: str) -> None:
    if not topic or not is_literal(topic):
        raise CommandFailed(
            f"{topic!r} is no topic", "a Topic Filter is for: pubsub retained ls", Exit.USAGE
        )


def _nothing(topic: str) -> CommandFailed:
    return CommandFailed(
        f"nothing is retained on {output.escaped(topic)}",
        "pubsub retained ls shows what is",
        Exit.NOTHING_THERE,
    )
