from __future__ import annotations

import random

import pytest

from broker.log.pace import BATCH_BYTES_FIRST, BATCH_BYTES_MIN, Pace

MIB = 1 << 20


def commit(pace: Pace, size: int, *, sync_s: float, bytes_a_second: int) -> float:
    took_s = sync_s + size / bytes_a_second
    pace.learn(size, took_s, durable=True)
    return took_s


@pytest.mark.parametrize("sync_s", [0.0005, 0.02, 0.1])
@pytest.mark.parametrize("rate", [12 * MIB, 50 * MIB, 1 << 30])
def test_a_flood_is_soon_committed_in_parts_of_a_tenth_of_a_second(
    sync_s: float, rate: int
) -> None:
    pace = Pace(32 * MIB)
    for _ in range(20):
        pace.learn(500, sync_s, durable=True)
    took_s = [
        commit(pace, pace.batch_bytes_max, sync_s=sync_s, bytes_a_second=rate) for _ in range(20)
    ]
    assert max(took_s[3:]) <= sync_s + 0.11
    assert pace.batch_bytes_max >= min(32 * MIB, rate // 40), "and not in much smaller ones"


def test_a_disk_that_takes_a_second_for_a_sync_gets_large_batches() -> None:
    """Or everything would wait for more of these seconds."""
    pace = Pace(32 * MIB)
    for _ in range(10):
        commit(pace, pace.batch_bytes_max, sync_s=1, bytes_a_second=100 * MIB)
    assert pace.batch_bytes_max >= BATCH_BYTES_FIRST


def test_syncs_that_vary_do_not_make_batches_too_small_for_long() -> None:
    seed = random.randrange(1 << 32)
    chance = random.Random(seed)
    pace = Pace(32 * MIB)
    for _ in range(200):
        sync_s = 2.0 if chance.random() < 0.05 else 0.005
        commit(pace, pace.batch_bytes_max, sync_s=sync_s, bytes_a_second=100 * MIB)
        assert pace.batch_bytes_max >= BATCH_BYTES_MIN, seed
    for _ in range(10):
        commit(pace, pace.batch_bytes_max, sync_s=0.005, bytes_a_second=100 * MIB)
    assert pace.batch_bytes_max >= 4 * MIB, seed


def test_a_disk_that_becomes_quicker_or_slower_is_noticed() -> None:
    pace = Pace(32 * MIB)
    for _ in range(10):
        commit(pace, pace.batch_bytes_max, sync_s=0.01, bytes_a_second=10 * MIB)
    assert pace.batch_bytes_max <= 1.2 * MIB
    for _ in range(10):
        commit(pace, pace.batch_bytes_max, sync_s=0.01, bytes_a_second=400 * MIB)
    assert pace.batch_bytes_max >= 16 * MIB


def test_a_small_commit_says_nothing() -> None:
    pace = Pace(32 * MIB)
    pace.learn(300, 0.001, durable=True)
    pace.learn(300, 5.0, durable=True)
    assert pace.batch_bytes_max == BATCH_BYTES_FIRST


def test_what_commits_without_a_sync_take_says_nothing_about_those_with_one() -> None:
    pace = Pace(32 * MIB)
    pace.learn(300, 0.001, durable=False)
    for _ in range(3):
        commit(pace, pace.batch_bytes_max, sync_s=0.5, bytes_a_second=1 << 30)
    assert pace.batch_bytes_max >= BATCH_BYTES_FIRST


def test_a_batch_is_never_larger_than_what_may_wait() -> None:
    pace = Pace(MIB)
    for _ in range(9):
        commit(pace, pace.batch_bytes_max, sync_s=0, bytes_a_second=1 << 40)
    assert pace.batch_bytes_max == MIB
