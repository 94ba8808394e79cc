"""Connecting again after the connection was lost, for whatever a command goes on with then."""

from __future__ import annotations

import select
from collections.abc import Callable

from cli.net.client import ADMINISTRATIVE_ACTION, NOT_AUTHORIZED_CODES, SESSION_TAKEN_OVER
from cli.terminal.failure import CommandFailed, ConnectionLost, Exit
from cli.terminal.interrupt import Interrupt

FIRST_PAUSE_S = 0.5
PAUSE_S_MAX = 10.0


def reconnect(
    attempt: Callable[[], None],
    lost: ConnectionLost,
    interrupt: Interrupt,
    left_s: Callable[[float], float] = float,
) -> bool:
    """Attempt after growing pauses, each cut to `left_s`; False when that leaves none.

    Raises CommandFailed at what does not get better, KeyboardInterrupt if that was requested.
    """
    if lost.reason_code == SESSION_TAKEN_OVER:
        raise CommandFailed(
            "another client connected with the same id and took the session over",
            "give each its own --id",
        )
    if lost.reason_code == ADMINISTRATIVE_ACTION:
        raise CommandFailed(str(lost), "the same command again begins anew")
    if lost.reason_code in NOT_AUTHORIZED_CODES:
        raise CommandFailed(str(lost), code=Exit.NOT_AUTHORIZED)
    pause_s = FIRST_PAUSE_S
    while (wait_s := left_s(pause_s)) > 0:
        select.select([interrupt], [], [], wait_s)
        interrupt.check()
        pause_s = min(pause_s * 2, PAUSE_S_MAX)
        try:
            attempt()
        except ConnectionLost:
            continue
        except CommandFailed as error:
            if error.code is not Exit.UNREACHABLE:
                raise
        else:
            return True
    return False
