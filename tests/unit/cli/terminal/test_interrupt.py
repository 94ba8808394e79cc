"""Ctrl-C is a fact first and impatience second."""

from __future__ import annotations

import select
import signal

import pytest

from cli.terminal.interrupt import Interrupt


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_the_first_signal_wakes_and_waits_to_be_looked_at(number: signal.Signals) -> None:
    with Interrupt() as interrupt:
        interrupt.check()
        signal.raise_signal(number)
        assert select.select([interrupt], [], [], 5)[0] == [interrupt]
        with pytest.raises(KeyboardInterrupt):
            interrupt.check()


def test_the_second_signal_interrupts_wherever_we_are() -> None:
    with Interrupt():
        signal.raise_signal(signal.SIGTERM)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_nohup_goes_on_when_the_terminal_is_closed() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with Interrupt() as interrupt:
            signal.raise_signal(signal.SIGHUP)
            interrupt.check()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
