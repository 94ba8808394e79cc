from __future__ import annotations

from broker.log.cursor_sync import CURSOR_SYNC_S, CursorSync
from tests.support.clock import FakeClock


def test_what_moved_without_a_sync_is_synced_in_its_turn() -> None:
    """P4"""
    clock, woken = FakeClock(), list[bool]()
    sync = CursorSync(clock, lambda: woken.append(True))
    sync.note(durable=False, moved=False)
    clock.advance(CURSOR_SYNC_S)
    assert (woken, sync.due) == ([], False)
    sync.note(durable=False, moved=True)
    clock.advance(CURSOR_SYNC_S)
    assert (woken, sync.due) == ([True], True)
    sync.note(durable=True, moved=True)
    assert (sync.due, sync.timer) == (False, None)


def test_a_sync_meanwhile_is_enough() -> None:
    clock, woken = FakeClock(), list[bool]()
    sync = CursorSync(clock, lambda: woken.append(True))
    sync.note(durable=False, moved=True)
    sync.note(durable=True, moved=False)
    clock.advance(CURSOR_SYNC_S)
    assert woken == []
