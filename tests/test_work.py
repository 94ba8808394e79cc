"""The work that a message costs the broker is not more than in the committed baseline.

Counted, not timed (`benchmarks/work.py`), in a process of its own with fixed hashes: the counts are
the same on a loaded machine, and nothing that other tests left behind is counted.

The baseline may rise where a message has to do more, and the commit says what: rights and quotas
are asked once for each read of the socket, which is 8 calls for whoever publishes one message at a
time (140 before), and nothing that shows for larger windows.
"""

from __future__ import annotations

import pytest

from benchmarks.work import (
    TOLERANCE,
    UPDATE,
    WORKLOADS,
    Counts,
    count_apart,
    exceeded,
    load_baseline,
    version,
)


@pytest.fixture(scope="module")
def baseline() -> dict[str, Counts]:
    baseline = load_baseline().get(version())
    if baseline is None:
        pytest.skip(f"there is no baseline for Python {version()}; `{UPDATE}` writes one")
    return baseline


@pytest.fixture(scope="module")
def measured(baseline: dict[str, Counts]) -> dict[str, Counts]:
    return count_apart([workload.name for workload in WORKLOADS])


@pytest.mark.parametrize("workload", [workload.name for workload in WORKLOADS])
def test_a_message_costs_no_more_work_than_in_the_baseline(
    workload: str, measured: dict[str, Counts], baseline: dict[str, Counts]
) -> None:
    complaints = exceeded(measured[workload], baseline.get(workload, {}))
    assert not complaints, "\n".join(complaints)


def test_more_than_the_tolerance_is_reported_with_what_to_do() -> None:
    baseline = {"statements": 100, "calls": 1000, "fsyncs": 0}
    within = round(1000 * (1 + TOLERANCE))
    assert exceeded({"statements": 90, "calls": within, "fsyncs": 0}, baseline) == []
    (complaint,) = exceeded({"statements": 90, "calls": within + 1, "fsyncs": 0}, baseline)
    assert complaint.startswith(f"calls: {within + 1:,} for 1,000 messages, 1,000 in the baseline")
    assert UPDATE in complaint
    assert len(exceeded({"fsyncs": 1, "new count": 1}, baseline)) == 2
