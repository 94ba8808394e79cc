"""`pubsub log`: which messages are shown, and how.

A terminal gets a table (`log_lines.Table`), a pipe one line of tab-separated columns per message;
in both, what does not print is escaped. `--json` and `--csv` give the payload as it is.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterable
from pathlib import Path

from broker.config import DATABASE
from broker.message import Message
from broker.topics import validate_filter
from cli.log import database, log_lines
from cli.log.history import History, Options, Places
from cli.log.log_lines import Lines, Table
from cli.net.address import Address
from cli.terminal import output
from cli.terminal.progress import Progress

CONNECT_TIMEOUT_S = 2.0
NOT_FOUND = "no such messages in the log; which topics there are: pubsub log topics"


def show(options: Options) -> None:
    """Raises CommandFailed: no log, a bad pattern, format or time; StoreError: not one that we can
    read, or damaged: then the rest was shown."""
    for filter_ in options.filters:
        validate_filter(filter_)
    places = Places.of(options, time.time_ns() // 1000)
    if options.format is not None:
        log_lines.formatted(options.format)  # What is wrong with it is said before all else.
    for said in places.said:
        output.hint(said)
    address = options.address or _elsewhere(options.data_dir / DATABASE)
    if address is not None:
        _show_replayed(address, options, places)
        return
    with database.reading(options.data_dir / DATABASE) as connection:
        history = History(connection, options, places)
        progress = Progress(history.last - history.first + 1)
        history.looked = progress.looked
        if options.count:
            total = history.count()
            progress.clear()
            output.text(f"{total}\n")
            return
        write = lines(options, age_us=history.age_us(), high_watermark=history.high_watermark)
        pages = history.pages() if options.last is None else history.newest(options.last)
        shown = put(pages, write, progress)
        progress.clear()
        history.raise_if_damaged()
        if not shown:
            output.nothing(NOT_FOUND if history.high_watermark else log_lines.EMPTY)
        if options.follow:
            with contextlib.suppress(KeyboardInterrupt):
                for page in history.follow():
                    if page:
                        output.data(write(page))
                    output.check_reader()
                    history.raise_if_damaged()


def _elsewhere(path: Path) -> Address | None:
    """The broker to ask, where no log is at `path` or none that we may read."""
    if os.access(path, os.R_OK):
        return None
    from cli.net.sources import find

    address, _ = find()
    try:
        socket.create_connection((address.host, address.port), CONNECT_TIMEOUT_S).close()
    except OSError:
        return None  # Then it is the file that is missing.
    output.note(f"no log that can be read at {path}: asking the broker at {address}")
    return address


def _show_replayed(address: Address, options: Options, places: Places) -> None:
    from cli.log.replayed import Replayed

    with Replayed(address, options, places) as replayed:
        if options.count:
            output.text(f"{sum(map(len, replayed.pages()))}\n")
            return
        with contextlib.suppress(KeyboardInterrupt):
            if not put(replayed.pages(), lines(options), Progress(0)):
                output.nothing(NOT_FOUND)


def lines(options: Options, *, age_us: int = 0, high_watermark: int = 0) -> Lines:
    """How messages are written. Raises CommandFailed (2): `-F`."""
    if options.format is not None:
        return log_lines.formatted(options.format)
    if options.json:
        return log_lines.json_lines(age_us)
    if options.csv:
        return log_lines.csv_lines(age_us)
    if not output.to_terminal():
        return log_lines.tabbed
    return Table(follows=options.follow, high_watermark=high_watermark).lines


def put(pages: Iterable[list[Message]], write: Lines, progress: Progress) -> int:
    """How many messages there were."""
    count = 0
    for page in pages:
        if page:
            progress.clear()
            output.data(write(page))
            count += len(page)
        else:
            output.check_reader()
    return count
