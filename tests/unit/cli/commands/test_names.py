"""What cannot be in a packet is a usage error of every command that would put it there."""

from __future__ import annotations

import pytest

from cli.main import app
from cli.terminal.failure import CommandFailed, Exit

TOO_LONG = "x" * 65_536


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pub", "a", "b", "--id", TOO_LONG], "--id must"),
        (["sub", "a", "--id", TOO_LONG], "--id must"),
        (["sub", "a", "--id", "\udcff"], "--id is not valid UTF-8"),
        (["sub", "a", "--id", "a\tb"], "--id has a control character"),
        (["pub", "a", "b", "--id", "\x85"], "--id has a control character"),
        (["bench", "--id", "\x1b"], "--id has a control character"),
        # It makes names of it: "-pub1" comes after.
        (["bench", "--id", "x" * 65_531], "--id must"),
        (["pub", "a", "b", "-D", f"{TOO_LONG}=1"], "the name in --property must"),
        (["pub", "a", "b", "-D", "a=\udcff"], "the value in --property is not"),
        (["pub", "a", "b", "-h", ""], "'' is no host name"),
        (["sub", "a", "-u", "\udcff"], "the user name is not valid UTF-8"),
        (["bench", "-P", TOO_LONG], "the password must"),
        (["pub", TOO_LONG, "b"], "Topic Name is 65536 bytes long"),
        (["sub", TOO_LONG], "Topic Filter is 65536 bytes long"),
    ],
)
def test_what_no_packet_can_hold_is_told_before_anybody_is_asked(
    arguments: list[str], says: str
) -> None:
    with pytest.raises(CommandFailed, match=says) as failed:
        app(arguments, standalone_mode=False)
    assert failed.value.code is Exit.USAGE
