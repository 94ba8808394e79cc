"""Exit codes are what scripts know, so they are spelled here once more."""

from __future__ import annotations

from cli.terminal.failure import CommandFailed, ConnectionLost, Exit


def test_the_exit_codes_are_those_of_sysexits_and_mosquitto_sub() -> None:
    assert {code.name: int(code) for code in Exit} == {
        "OK": 0,
        "FAILED": 1,
        "USAGE": 2,
        "TIMEOUT": 27,
        "NOTHING_THERE": 66,
        "UNREACHABLE": 69,
        "STORE_DAMAGED": 74,
        "NOT_AUTHORIZED": 77,
    }


def test_a_failure_is_its_reason_and_what_to_do() -> None:
    failed = CommandFailed("no log", "start the broker", Exit.NOTHING_THERE)
    assert (str(failed), failed.code) == ("no log; start the broker", Exit.NOTHING_THERE)
    failed = CommandFailed("no log")
    assert (str(failed), failed.code) == ("no log", Exit.FAILED)


def test_a_lost_connection_has_the_brokers_reason_if_it_gave_one() -> None:
    assert ConnectionLost("taken over", 0x8E).reason_code == 0x8E
    assert ConnectionLost("closed").reason_code == 0
