"""How messages of the log are written: a table for eyes, and four ways for programs.

    Table       aligned columns within the edge of a terminal; topic and payload always show
    tabbed      offset, time (UTC), publisher, QoS, topic, payload, escaped, with tabs between
    csv_lines   the same with a heading, all that `--json` has in a column of its own
    json_lines  a line of JSON per message, as `record.py` has it
    formatted   as the user's `-F` says

A line that was written is not rewritten, so a table that goes on (`-f`) keeps the columns of its
first page: a longer name is cut, the payload has what is left of the line.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from datetime import datetime

from broker.message import Message, rfc3339
from cli.log.record import record
from cli.terminal import output
from cli.terminal.cells import cut, cut_middle, padded, width

Lines = Callable[[Sequence[Message]], bytes]

EMPTY = "the log is empty; publish with: pubsub pub TOPIC MESSAGE"

OFFSET_CELLS = 6
"""At least, so that a table that goes on need not grow at 1000, 10,000, 100,000."""
PUBLISHER_CELLS, TOPIC_CELLS, PAYLOAD_CELLS = 12, 16, 16
"""What is left of each where the terminal is narrow; of topic and payload half of that where it is
very narrow."""
GAP = 2
TIME_FORMAT, TIME_FORMAT_OF_OTHER_YEARS = "%m-%d %H:%M:%S", "%Y-%m-%d %H:%M"
DIM, PLAIN = "\x1b[2m", "\x1b[0m"
CSV_COLUMNS = (
    *("offset", "published_at", "publisher", "qos", "retain", "topic", "payload"),
    *("payload_base64", "payload_format", "content_type", "response_topic"),
    *("correlation_data", "correlation_data_base64", "user_properties", "expires_at"),
)


def tabbed(messages: Sequence[Message]) -> bytes:
    return "".join(
        f"{message.offset}\t{rfc3339(message.published_at_us)}\t{output.escaped(message.publisher)}"
        f"\t{message.qos}\t{output.escaped(message.topic)}\t{output.escaped(message.payload)}\n"
        for message in messages
    ).encode()


def json_lines(age_us: int = 0) -> Lines:
    """`age_us` as in `record`."""

    def write(messages: Sequence[Message]) -> bytes:
        return b"".join(output.json_line(record(message, age_us=age_us)) for message in messages)

    return write


def csv_lines(age_us: int = 0, *, heading: bool = True, to_file: bool = False) -> Lines:
    """RFC 4180, with its heading before the first message. Where it is not `to_file`, nothing in it
    acts on a terminal."""
    import csv
    import io
    import json

    def write(messages: Sequence[Message]) -> bytes:
        nonlocal heading
        block = io.StringIO()
        writer = csv.DictWriter(block, CSV_COLUMNS, restval="")
        if heading:
            writer.writeheader()
            heading = False
        for message in messages:
            fields = record(message, age_us=age_us)
            fields["retain"] = int(message.retain)
            if "user_properties" in fields:
                fields["user_properties"] = json.dumps(fields["user_properties"])
            writer.writerow(fields)
        text = block.getvalue()
        return (text if to_file or not output.to_terminal() else output.harmless(text)).encode()

    return write


def formatted(text: str) -> Lines:
    """As `pubsub sub -F`; times are those of publication. Raises CommandFailed (2)."""
    from cli.log.logged import as_received
    from cli.messages.format import compile_format

    write_one = compile_format(text + "\n", terminal=output.to_terminal())

    def write(messages: Sequence[Message]) -> bytes:
        return b"".join(
            write_one(as_received(message), message.published_at_us / 1e6) for message in messages
        )

    return write


class Table:
    """`follows`: more pages come later, of messages that nobody knows yet. `columns` tells how wide
    the terminal is now. `high_watermark`: the newest offset that is expected."""

    def __init__(
        self,
        *,
        follows: bool = False,
        high_watermark: int = 0,
        columns: Callable[[], int] = lambda: shutil.get_terminal_size().columns,
        colour: bool | None = None,
    ) -> None:
        self._follows = follows
        self._columns = columns
        self._colour = has_colour() if colour is None else colour
        self._offset = max(OFFSET_CELLS, len(str(high_watermark)))
        self._wanted: tuple[int, int, int] | None = None
        """Cells that publisher, topic and payload of the first page take."""
        self._year = datetime.now().year
        self._time = len(datetime.now().strftime(TIME_FORMAT))

    def lines(self, messages: Sequence[Message]) -> bytes:
        if not messages:
            return b""
        rows = [self._row(message) for message in messages]
        heading = ""
        if self._wanted is None:
            publisher, topic, payload = (max(width(row[i]) for row in rows) for i in (2, 4, 5))
            if self._follows:
                publisher, topic = max(publisher, PUBLISHER_CELLS), max(topic, TOPIC_CELLS)
                payload = self._columns()
            self._wanted = max(publisher, 9), max(topic, 5), payload
            self._time = max(self._time, *(len(row[1]) for row in rows))
            heading = self._line(
                ("OFFSET", f"TIME {_zone()}"[: self._time], "PUBLISHER", "QOS", "TOPIC", "PAYLOAD"),
                heading=True,
            )
        return (heading + "".join(map(self._line, rows))).encode()

    def _row(self, message: Message) -> tuple[str, ...]:
        moment = datetime.fromtimestamp(message.published_at_us // 1_000_000)
        this_year = moment.year == self._year
        return (
            str(message.offset),
            moment.strftime(TIME_FORMAT if this_year else TIME_FORMAT_OF_OTHER_YEARS),
            output.escaped(message.publisher),
            f"{message.qos}{' r' if message.retain else ''}",
            output.escaped(message.topic),
            output.escaped(message.payload),
        )

    def _line(self, row: Sequence[str], *, heading: bool = False) -> str:
        offset, time, publisher, qos, topic, payload = row
        edge = self._columns()
        before, publisher_cells, topic_cells = self._layout(edge)
        secondary = []
        if before > 0:
            secondary.append(padded(offset, self._offset, right=True))
        if before > 1:
            secondary.append(padded(time, self._time))
        if publisher_cells:
            secondary.append(padded(cut_middle(publisher, publisher_cells), publisher_cells))
            secondary.append(padded(qos, 3))
        text = "".join(f"{part}{' ' * GAP}" for part in secondary)
        topic = padded(cut_middle(topic, topic_cells), topic_cells)
        left = edge - width(text) - topic_cells - GAP
        primary = f"{topic}{' ' * GAP}{cut(payload, left)}".rstrip()
        if not self._colour:
            return f"{text}{primary}\n"
        if heading:
            return f"{DIM}{text}{primary}{PLAIN}\n"
        return f"{DIM}{text}{PLAIN}{primary}\n" if text else f"{primary}\n"

    def _layout(self, edge: int) -> tuple[int, int, int]:
        """How many of offset and time are shown, and the cells of publisher and topic.

        Where there is no room the publisher goes first, with its QoS, then the time, then the
        offset: topic and payload stay.
        """
        assert self._wanted is not None
        publisher, topic, payload = self._wanted
        both = self._offset + self._time + 2 * GAP
        publisher_cells = min(publisher, PUBLISHER_CELLS)
        wanted = GAP + min(topic, TOPIC_CELLS) + min(payload, PAYLOAD_CELLS)
        before, with_publisher, left = next(
            (
                (before, with_publisher, edge - taken - GAP)
                for before, with_publisher, taken in (
                    (2, True, both + publisher_cells + 3 + 2 * GAP),
                    (2, False, both),
                    (1, False, self._offset + GAP),
                )
                if edge - taken >= wanted
            ),
            (0, False, edge - GAP),
        )
        if before == 0:
            return 0, 0, max(1, min(topic, left // 2))
        topic_cells = min(topic, max(left - payload, left // 2, TOPIC_CELLS))
        if not with_publisher:
            return before, 0, topic_cells
        spare = 0 if self._follows else max(0, left - topic_cells - payload)
        return before, min(publisher, publisher_cells + spare), topic_cells


def has_colour() -> bool:
    """Whether a terminal reads our output and wants colour (https://no-color.org)."""
    return (
        output.to_terminal()
        and not os.environ.get("NO_COLOR")
        and os.environ.get("TERM", "dumb") != "dumb"
    )


def _zone() -> str:
    return datetime.now().astimezone().strftime("%z")[:5].replace("+0000", "UTC")
