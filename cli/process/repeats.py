"""Which lines of diagnostics are left out: clients must not be able to flood them, or to make them
cost more than a bound.

Lines from one place in the code are of one kind. A window of time has so many lines of one kind,
and fewer of one kind about one client: a client that comes a thousand times a second does not hide
the others. At the end of the window a line tells how many were left out, with the last of them as
an example.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable
from dataclasses import dataclass

WINDOW_S = 10.0
LINES_OF_A_KIND_MAX = 200
"""In a window."""
LINES_ABOUT_ONE_MAX = 5
"""In a window, of one kind."""
LEFT_OUT_MAX = 1000
"""Of one kind in a window. From then on the module is not listened to at this level until the
window ends, and what it would have said is not even counted: that costs a hundredth."""


@dataclass(slots=True)
class LeftOut:
    """Lines that are not shown; `last` is one of them."""

    last: logging.LogRecord
    count: int = 0
    at_least: bool = False
    """Whether there may have been more."""


class Repeats:
    """`shows` is asked about each record, `end_window` when `ends_at` has come."""

    def __init__(self) -> None:
        self.ends_at: float | None = None
        """Monotonic second at which the window ends; None: none has begun."""
        self._shown: dict[Hashable, int] = {}
        self._left_out: dict[Hashable, LeftOut] = {}
        self._left_out_of_kind: Counter[Hashable] = Counter()
        self._levels: dict[logging.Logger, int] = {}
        """Whom we do not listen to, with the levels that they had."""

    def shows(self, record: logging.LogRecord, now: float) -> bool:
        """Whether to show it. Whom it is about is its first argument."""
        if self.ends_at is None:
            self.ends_at = now + WINDOW_S
        kind = (record.pathname, record.lineno)
        args = record.args
        subject = args[0] if isinstance(args, tuple) and args else None
        about = (kind, hash(subject) if isinstance(subject, str) else None)
        shown = self._shown
        of_kind, about_one = shown.get(kind, 0), shown.get(about, 0)
        if of_kind >= LINES_OF_A_KIND_MAX:
            self._leave_out(kind, kind, record)
        elif about_one >= LINES_ABOUT_ONE_MAX:
            self._leave_out(about, kind, record)
        else:
            shown[kind], shown[about] = of_kind + 1, about_one + 1
            return True
        return False

    def _leave_out(self, key: Hashable, kind: Hashable, record: logging.LogRecord) -> None:
        left_out = self._left_out.get(key)
        if left_out is None:
            left_out = self._left_out[key] = LeftOut(record)
        left_out.last = record
        left_out.count += 1
        self._left_out_of_kind[kind] += 1
        if self._left_out_of_kind[kind] >= LEFT_OUT_MAX:
            logger = logging.getLogger(record.name)
            self._levels.setdefault(logger, logger.level)
            logger.setLevel(max(logger.level, record.levelno + 1))

    def end_window(self) -> list[LeftOut]:
        """What was left out in the window. The next record begins another."""
        left_out = [*self._left_out.values()]
        for each in left_out:
            each.at_least = logging.getLogger(each.last.name) in self._levels
        self._left_out = {}
        self._left_out_of_kind.clear()
        self._shown = {}
        self.ends_at = None
        for logger, level in self._levels.items():
            logger.setLevel(level)
        self._levels = {}
        return left_out
