"""LineAnswers: the answers of one line connection, in the order of the commands."""

from __future__ import annotations

from collections import deque

from broker.clients.services import Services
from broker.lines.connection import LineConnection
from broker.message import Monotonic

UNASKED_ERROR_INTERVAL_S = 1.0


class Answer:
    """The place of some commands' answers in the order of answers. `reason` is empty for OK."""

    __slots__ = ("commands", "confirmed", "given", "reason")

    def __init__(self, commands: int, *, confirmed: bool) -> None:
        self.commands = commands
        self.confirmed = confirmed
        """Whether the peer asked for answers before it sent these."""
        self.given = False
        self.reason = ""


class Answers:
    """The answers that are not handed to `connection` yet."""

    def __init__(self, connection: LineConnection, services: Services, now: Monotonic) -> None:
        self.confirming = False
        """Whether the peer has asked for answers."""
        self._connection = connection
        self._services = services
        self._waiting: deque[Answer] = deque()
        self._unasked_error_after = now

    def __len__(self) -> int:
        return len(self._waiting)

    def place(self, commands: int = 1) -> Answer:
        """The answer of the next commands, behind those of all that came before."""
        answer = Answer(commands, confirmed=self.confirming)
        self._waiting.append(answer)
        return answer

    def give(self, answer: Answer, reason: str = "", *, unasked: bool) -> None:
        """Hand it to the connection when its turn comes. `unasked`: an error may go to a peer that
        did not ask."""
        answer.given = True
        answer.reason = reason
        while self._waiting and self._waiting[0].given:
            answer = self._waiting.popleft()
            if not answer.confirmed:
                if answer.reason:
                    self._unasked_error(answer, may_be_sent=unasked)
                continue
            for _ in range(answer.commands):
                if answer.reason:
                    self._connection.error(answer.reason)
                else:
                    self._connection.ok()

    def _unasked_error(self, answer: Answer, *, may_be_sent: bool) -> None:
        now = self._services.clock.monotonic()
        if may_be_sent and now >= self._unasked_error_after:
            self._unasked_error_after = Monotonic(now + UNASKED_ERROR_INTERVAL_S)
            self._connection.error(answer.reason)
        else:
            self._services.counters.left_out.line_errors += 1
