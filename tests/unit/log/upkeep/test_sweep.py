"""Sweep: how long one walk goes on."""

from __future__ import annotations

from broker.log.upkeep.sweep import Sweep
from broker.message import Offset
from broker.settings.retention import RetentionRule
from broker.store.removing import Amount, Removed


def test_it_goes_on_while_something_is_old_or_too_much() -> None:
    rule = RetentionRule(None, count=5, bytes=100)
    sweep = Sweep(0, rule, Offset(10), Offset(99))
    sweep.over(Amount(5, 100))
    assert (sweep.wants(Offset(9)), sweep.wants(Offset(10))) == (True, False)
    sweep.over(Amount(7, 90))
    assert sweep.wants(Offset(50))
    sweep.count(Removed({1: Amount(2, 50)}))
    assert not sweep.wants(Offset(50))
    assert sweep.removed == (2, 50)


def test_what_is_unread_goes_for_bytes_alone() -> None:
    sweep = Sweep(0, RetentionRule(None, count=5, bytes=100), Offset(10), Offset(99))
    sweep.unread = True
    sweep.over(Amount(9, 100))
    assert not sweep.wants(Offset(1))
    sweep.over(Amount(1, 101))
    assert sweep.wants(Offset(1))
    assert not sweep.is_behind
    sweep.over(Amount(1, 111))
    assert sweep.is_behind
