"""How a command ends other than well: what to say, what to do next, and the exit code."""

from __future__ import annotations

from enum import IntEnum

from broker.errors import PubSubError


class Exit(IntEnum):
    """Exit codes; those above 63 are the ones of BSD's sysexits.h, 27 is mosquitto_sub's."""

    OK = 0
    FAILED = 1
    USAGE = 2
    TIMEOUT = 27
    NOTHING_THERE = 66
    UNREACHABLE = 69
    STORE_DAMAGED = 74
    NOT_AUTHORIZED = 77


class CommandFailed(PubSubError):
    """Printed as one line, `reason; remedy`, before the process ends with `code`."""

    def __init__(self, reason: str, remedy: str = "", code: Exit = Exit.FAILED) -> None:
        super().__init__(f"{reason}; {remedy}" if remedy else reason)
        self.code = code


class Referred(CommandFailed):
    """The broker says that another one is to be used: `reference`, if it says which."""

    def __init__(self, reason: str, reference: str) -> None:
        super().__init__(reason, code=Exit.UNREACHABLE)
        self.reference = reference


class OutputClosed(PubSubError):
    """Whoever read our standard output has gone: there is nothing left to do, and no error."""


class ConnectionLost(PubSubError):
    """The connection ended and we did not end it; `reason_code` is the broker's, if it gave one."""

    def __init__(self, reason: str, reason_code: int = 0) -> None:
        super().__init__(reason)
        self.reason_code = reason_code
