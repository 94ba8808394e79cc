"""`pubsub log topics` and `pubsub log --latest`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from broker.config import DATABASE
from broker.message import rfc3339
from broker.topics import validate_filter
from cli.log import database, log_lines
from cli.log.history import Options
from cli.log.show_log import lines, put
from cli.log.topics import TopicFigures, TopicsOfLog
from cli.terminal import columns, output, times
from cli.terminal.progress import Progress

HEADINGS = ("TOPIC", "MESSAGES", "BYTES", "FIRST", "LAST")


def show(data_dir: Path, filters: Sequence[str], *, sort: str, json: bool) -> None:
    """Raises CommandFailed: no log; StoreError."""
    for topic_filter in filters:
        validate_filter(topic_filter)
    with database.reading(data_dir / DATABASE) as connection:
        topics = TopicsOfLog(connection, filters)
        progress = Progress(topics.high_watermark)
        topics.looked = progress.looked
        found = topics.figures()
        progress.clear()
    found.sort(key=lambda of_topic: getattr(of_topic, sort))
    if json:
        output.data(b"".join(output.json_line(_record(of_topic)) for of_topic in found))
        return
    say_time = _short if output.to_terminal() else rfc3339
    columns.write(
        HEADINGS,
        [
            (
                output.escaped(of_topic.topic),
                of_topic.messages,
                of_topic.bytes,
                say_time(of_topic.first_at_us),
                say_time(of_topic.last_at_us),
            )
            for of_topic in found
        ],
        empty="no messages on these topics" if filters else log_lines.EMPTY,
    )


def show_latest(options: Options) -> None:
    """The last value of each topic. Raises as `show`; CommandFailed (2): `--as-of` is no TIME."""
    for topic_filter in options.filters:
        validate_filter(topic_filter)
    as_of_us = None
    if options.as_of is not None:
        as_of_us = times.required_us("--as-of", options.as_of, time.time_ns() // 1000)
        output.hint(f"as of {times.local(as_of_us)}")
    with database.reading(options.data_dir / DATABASE) as connection:
        topics = TopicsOfLog(connection, options.filters)
        through = topics.high_watermark
        if as_of_us is not None:
            through = topics.log.last_before(as_of_us + 1)
        progress = Progress(through)
        topics.looked = progress.looked
        write = lines(options, age_us=topics.log.age_us(), high_watermark=through)
        shown = put(topics.latest(through), write, progress)
        progress.clear()
        if not shown:
            output.nothing("no messages on these topics" if options.filters else log_lines.EMPTY)
        topics.log.raise_if_damaged()


def _record(of_topic: TopicFigures) -> dict[str, object]:
    return {
        "topic": of_topic.topic,
        "messages": of_topic.messages,
        "bytes": of_topic.bytes,
        "first": of_topic.first,
        "first_at": rfc3339(of_topic.first_at_us),
        "last": of_topic.last,
        "last_at": rfc3339(of_topic.last_at_us),
    }


def _short(time_us: int) -> str:
    return datetime.fromtimestamp(time_us // 1_000_000).strftime("%Y-%m-%d %H:%M:%S")
