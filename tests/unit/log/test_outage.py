"""While nothing can be stored: it is told once, and tried again each second."""

from __future__ import annotations

import pytest

from broker.errors import StoreBusy, StoreFull
from broker.log.outage import FULL_RETRY_S, Outage
from tests.support.clock import FakeClock


def test_it_is_told_once_for_each_reason_and_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    outage = Outage(FakeClock())
    for error in (StoreFull("no space"), StoreFull("no space"), StoreBusy("locked")):
        outage.goes_on(error)
    assert outage.why is StoreBusy
    outage.over()
    assert outage.why is None
    told = [message.rpartition(": ")[2] for message in caplog.messages]
    assert told == ["no space", "locked", "messages are stored and acknowledged again"]


def test_a_store_is_full_until_it_is_tried_again() -> None:
    clock = FakeClock()
    outage = Outage(clock)
    assert not outage.is_full
    outage.goes_on(StoreFull("no space"))
    assert outage.is_full
    clock.advance(FULL_RETRY_S)
    assert not outage.is_full
    outage.goes_on(StoreBusy("locked"))
    assert not outage.is_full
