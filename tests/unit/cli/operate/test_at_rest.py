"""What a refusal at rest ends the command with."""

from __future__ import annotations

import logging

import pytest

from broker.errors import (
    CommandInvalid,
    CommandRefused,
    NotFound,
    PubSubError,
    QuotaExceeded,
    ReplaySpecInvalid,
)
from cli.operate.at_rest import ran
from cli.terminal.failure import CommandFailed, Exit


def test_what_it_returns_is_returned_and_the_broker_is_silent() -> None:
    async def work() -> bool:
        return logging.getLogger("broker").isEnabledFor(logging.WARNING)

    assert ran(work) is False


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("none", "look"), Exit.NOTHING_THERE),
        (CommandRefused("no", "do"), Exit.FAILED),
        (CommandInvalid("no", "do"), Exit.USAGE),
        (QuotaExceeded("many"), Exit.FAILED),
        (ReplaySpecInvalid("what"), Exit.USAGE),
    ],
)
def test_a_refusal_has_its_exit_code(error: PubSubError, code: Exit) -> None:
    async def work() -> None:
        raise error

    with pytest.raises(CommandFailed, match=str(error)) as failed:
        ran(work)
    assert failed.value.code == code
