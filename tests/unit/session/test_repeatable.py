from __future__ import annotations

from broker.session.repeatable import Repeatable


def test_the_log_knows_what_was_acknowledged_before_the_commit_began() -> None:
    """P4"""
    repeatable = Repeatable()
    repeatable.acknowledged = 1
    repeatable.commit_begins()
    repeatable.acknowledged = 3
    assert repeatable.acknowledged_committed == 0
    repeatable.committed()
    assert repeatable.acknowledged_committed == 1
    repeatable.commit_begins()
    repeatable.committed()
    assert repeatable.acknowledged_committed == 3


def test_while_the_disk_is_full_the_log_takes_nothing() -> None:
    repeatable = Repeatable()
    repeatable.not_committed()
    assert not repeatable.committing
    repeatable.committed()
    assert repeatable.committing
