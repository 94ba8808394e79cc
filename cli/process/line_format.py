"""How a line of diagnostics looks: in a file or pipe, on a terminal, in the journal of systemd.

    2026-11-28T16:02:31.123Z WARNING client 'a' at 10.0.0.7:50123: ...     file or pipe
    16:02:31 WARNING client 'a' at 10.0.0.7:50123: ...                     terminal, folded
    <4>WARNING client 'a' at 10.0.0.7:50123: ...                           journal, which has a time

- Clients choose client identifiers, topics and reasons. In a line nothing of them acts on a
  terminal, begins another line or is longer than `ARGUMENT_CHARACTERS_MAX`.
- The time of a file is UTC, like that of `pubsub log`; that of a terminal is local.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from cli.terminal import output

ARGUMENT_CHARACTERS_MAX = 120
LINE_CHARACTERS_MAX = 1000
TERMINAL_COLUMNS = 80
"""Of a terminal that does not tell."""
JOURNAL_PRIORITIES = {
    logging.DEBUG: 7,
    logging.INFO: 6,
    logging.WARNING: 4,
    logging.ERROR: 3,
    logging.CRITICAL: 2,
}
"""As syslog(3) has them; sd-daemon(3) says how they begin a line."""


class FileFormat(logging.Formatter):
    """For whatever is no terminal and no journal."""

    def format(self, record: logging.LogRecord) -> str:
        sentence, *trace = _lines(record)
        return "\n".join([f"{_utc(record.created)} {sentence}", *trace])


class JournalFormat(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        priority = JOURNAL_PRIORITIES.get(record.levelno, JOURNAL_PRIORITIES[logging.INFO])
        return "\n".join([f"<{priority}>{line}" for line in _lines(record)])


class TerminalFormat(logging.Formatter):
    """`columns` tells how wide the terminal is now."""

    def __init__(self, columns: Callable[[], int]) -> None:
        super().__init__()
        self._columns = columns

    def format(self, record: logging.LogRecord) -> str:
        from textwrap import wrap

        at = time.strftime("%H:%M:%S ", time.localtime(record.created))
        sentence, *trace = _lines(record)
        folded = wrap(
            at + sentence,
            max(self._columns(), 2 * len(at)),
            subsequent_indent=" " * len(at),
            break_long_words=False,
            break_on_hyphens=False,
        )
        return "\n".join([*folded, *trace])


def format_for(descriptor: int) -> logging.Formatter:
    """The format for what is written to this file descriptor."""
    if os.isatty(descriptor):
        return TerminalFormat(lambda: _columns(descriptor))
    return JournalFormat() if _is_journal(descriptor) else FileFormat()


def _is_journal(descriptor: int) -> bool:
    """Whether systemd connected it to the journal. JOURNAL_STREAM names the socket, since a child
    inherits the variable also where its standard error goes elsewhere (systemd.exec(5))."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{status.st_dev}:{status.st_ino}"


def _columns(descriptor: int) -> int:
    try:
        return os.get_terminal_size(descriptor).columns or TERMINAL_COLUMNS
    except OSError:
        return TERMINAL_COLUMNS


def _utc(seconds: float) -> str:
    at = datetime.fromtimestamp(seconds, UTC)
    return at.isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def _lines(record: logging.LogRecord) -> Iterator[str]:
    """The sentence, with the level where that matters, then those of a traceback."""
    args = record.args
    if isinstance(args, tuple):
        args = tuple([_shortened(argument) for argument in args])
    sentence = str(record.msg) % args if args else str(record.msg)
    level = f"{record.levelname} " if record.levelno >= logging.WARNING else ""
    yield level + output.one_line(sentence[:LINE_CHARACTERS_MAX])
    if record.exc_info:
        trace = logging.Formatter().formatException(record.exc_info)
        for line in trace.split("\n"):
            yield output.one_line(line[:LINE_CHARACTERS_MAX])


def _shortened(argument: object) -> object:
    if isinstance(argument, str) and len(argument) > ARGUMENT_CHARACTERS_MAX:
        return argument[:ARGUMENT_CHARACTERS_MAX] + "..."
    return argument
