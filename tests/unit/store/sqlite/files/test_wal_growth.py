"""A write-ahead log that grows is told, each time it has doubled, and when it is over."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker.store.sqlite.files.wal_growth import FIRST_BYTES, PAGE_BYTES, WalGrowth

FIRST = FIRST_BYTES // PAGE_BYTES


def test_it_is_told_each_time_it_has_doubled_and_once_when_it_is_over(
    caplog: pytest.LogCaptureFixture,
) -> None:
    growth = WalGrowth(Path("data/pubsub.db"), commits_wait=True)
    for pages in (FIRST - 1, FIRST, FIRST + 1, 2 * FIRST - 1, 2 * FIRST, 9 * FIRST, 10 * FIRST):
        growth.checkpointed(pages, 0.1)
    sizes = [text.split(" MiB")[0].rsplit(" ", 1)[1] for text in caplog.messages]
    assert sizes == ["64", "128", "576"]
    caplog.clear()
    for _ in range(2):
        growth.checkpointed(0, 2.34)
    assert caplog.messages == [
        "pubsub.db-wal is in the database again; acknowledgements waited 2.3 s for that"
    ]
    growth.checkpointed(FIRST, 0.1)
    assert "grown to 64 MiB" in caplog.text


def test_what_a_checkpoint_can_copy_is_not_told(caplog: pytest.LogCaptureFixture) -> None:
    growth = WalGrowth(Path("pubsub.db"), commits_wait=True)
    for _ in range(100):
        growth.checkpointed(0, 0.01)
    assert caplog.messages == []
