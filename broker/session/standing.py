"""Standing: where a session stands in the log, and what it was handed ahead of that.

QoS 0 is handed to an *ahead* session as it comes, before its commit. Runs of such messages are
numbered, so one number says what a live session was handed: every run up to it that it wanted.

A session's *place* is the offset up to which everything was offered to it and taken. It is that of
routing while nothing waits in its outbox; else it stays before what waits there. One rule makes
that nothing comes twice: **of all that it was handed above its place the session knows the
offsets**, or the part that will have them. While nothing waits, that is what the runs up to its
number have of what is not routed, which all live sessions share. From when something waits it is
`kept` as well, since routing forgets what is behind it; a session that is behind keeps it until
its place is that of routing again.
"""

from __future__ import annotations

from broker.message import Message, Offset
from broker.session.position import LivePosition, Position
from broker.session.served import NOTHING, Served


class Standing:
    """Of one session."""

    __slots__ = ("ahead", "changing", "handed_through", "kept", "position")

    def __init__(self, start: Offset) -> None:
        self.position = Position(start)
        self.ahead = False
        """Whether it was handed every run so far, and is handed the next one. Only a live session
        is."""
        self.handed_through = 0
        """If it is not: the number of the last run that it was handed."""
        self.changing = 0
        """Changes of its subscriptions that are not in effect yet: it cannot be ahead of these."""
        self.kept: Served | None = NOTHING
        """What it was handed above its place, also of what is routed. None: its place is that of
        routing."""

    def begins_to_wait(self) -> None:
        """Something is about to wait for its client, and its place stays before that."""
        if self.kept is None:
            self.kept = self.served()

    def went_past(self) -> None:
        """It was handed the newest run past what waits."""
        position, kept = self.position, self.kept
        if isinstance(position, LivePosition) and position.ahead.parts and kept is not None:
            newest = position.ahead.parts[-1]
            if not kept.parts or kept.parts[-1] is not newest:
                self.kept = self.served()

    def fall_behind(self, through: Offset) -> None:
        """It was offered everything up to `through`, and beyond that what it was handed."""
        self.kept = self.served()
        if isinstance(self.position, LivePosition):
            self.stay_back(self.position.ahead.number)
        self.position = Position(through)

    def go_live(self, live: LivePosition, *, waits: bool) -> None:
        """It was offered everything that was routed; whether any of that waits."""
        self.position = live
        if not waits:
            self.kept = None

    def go_ahead(self) -> None:
        """It was handed every run so far, and nothing waits for it."""
        self.ahead = True

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
        position, kept = self.position, self.kept
        if not isinstance(position, LivePosition):
            assert kept is not None, "only a live session may have the place of routing"
            return kept
        if kept is None:
            if not position.ahead.parts:
                return NOTHING
            return position.everything() if self.ahead else position.runs(self.handed_through)
        number = position.ahead.number if self.ahead else self.handed_through
        return kept.with_more(number, position.ahead.parts)

    def not_served(self, messages: list[Message]) -> list[Message]:
        """While it is behind: of these, read from the log, those that it was not handed."""
        if self.kept is not None and self.kept is not NOTHING:
            self.kept = self.kept.settled()
            return self.kept.left_out(messages)
        return messages

    def offered_through(self) -> Offset:
        """While it is behind: the last offset of which is known that it was offered or handed."""
        served_through = Offset(0) if self.kept is None else self.kept.through()
        return max(self.position.through, served_through)
