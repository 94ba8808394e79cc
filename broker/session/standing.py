"""Standing: where a session stands in the log, and what it was handed ahead of that.

QoS 0 is handed to an *ahead* session as it comes, before its commit. Runs of such messages are
numbered, so one number says what a session was handed that is not ahead: every run up to it.
"""

from __future__ import annotations

from broker.documents import HandedOn
from broker.message import Offset
from broker.session.position import LivePosition, Position
from broker.session.served import NOTHING, Served


class Standing:
    """Of one session."""

    __slots__ = ("ahead", "changing", "handed_through", "passed", "position")

    def __init__(self, start: Offset) -> None:
        self.position = Position(start)
        self.ahead = False
        """Whether it was handed every run so far, and is handed the next one. Only a live session
        is."""
        self.handed_through = 0
        """If it is not: the number of the last run that it was handed."""
        self.changing = 0
        """Changes of its subscriptions that are not in effect yet: it cannot be ahead of these."""
        self.passed: list[HandedOn] = []
        """What it was handed past messages that wait for its window: they hold its place."""

    def fall_behind(self, through: Offset) -> None:
        """It was offered everything up to `through`, and beyond that what it was handed."""
        position, served = self.position, self.served()
        if isinstance(position, LivePosition):
            self.stay_back(position.ahead.number)
        self.position = Position(through, served)

    def go_ahead(self) -> None:
        """It was handed every run so far, and nothing waits for it."""
        self.ahead = True
        self.passed = []

    def went_past(self, part: HandedOn) -> None:
        """It was handed a run of this past messages that wait."""
        if not self.passed or self.passed[-1] is not part:
            self.passed.append(part)

    def none_waits(self) -> None:
        """Nothing waits for its window any more."""
        self.passed = []

    def stay_back(self, number: int) -> None:
        """It was handed every run up to this number, and is handed no more."""
        if self.ahead:
            self.ahead = False
            self.handed_through = number

    def hold(self) -> None:
        """A change of its subscriptions came."""
        self.changing += 1

    def let_go(self) -> None:
        """Such a change is in effect."""
        self.changing -= 1

    def served(self) -> Served:
        """What it was handed of what lies above its place."""
        position = self.position
        if not isinstance(position, LivePosition):
            return position.served
        if self.passed:
            number = position.ahead.number if self.ahead else self.handed_through
            return Served(number, dict.fromkeys([*self.passed, *position.ahead.parts]))
        if not position.ahead.parts:
            return NOTHING
        return position.everything() if self.ahead else position.runs(self.handed_through)
