"""How long something took, and how much of that its thread waited for a CPU."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import pytest

from broker.store.sqlite import stop_watch
from broker.store.sqlite.stop_watch import QUICK_S, StopWatch


@pytest.fixture
def times(tmp_path: Path) -> Path:
    """In place of the kernel's: this thread ran for 5 s and waited for 7 s."""
    path = tmp_path / "schedstat"
    path.write_text("5000000000 7000000000 3\n")
    return path


@pytest.fixture
def seconds(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock says next."""
    following: list[float] = []
    monkeypatch.setattr(stop_watch, "perf_counter", lambda: following.pop(0))
    return following


@pytest.fixture
def watch(times: Path) -> Iterator[StopWatch]:
    watch = StopWatch(str(times))
    yield watch
    watch.close()


def test_it_tells_how_long_the_thread_waited_for_a_cpu(
    watch: StopWatch, times: Path, seconds: list[float]
) -> None:
    seconds += 10.0, 10.5
    watch.begin(exact=True)
    times.write_text("5000000000 7400000000 4\n")
    took_s, late_s = watch.end()
    assert took_s == 0.5
    assert late_s == pytest.approx(0.4)


def test_it_does_not_look_where_that_does_not_matter(
    watch: StopWatch, times: Path, seconds: list[float]
) -> None:
    seconds += 10.0, 10.0 + QUICK_S / 2, 20.0, 20.5
    watch.begin(exact=True)
    times.write_text("5000000000 9000000000 4\n")
    assert watch.end()[1] == 0, "it was quick"
    watch.begin(exact=False)
    times.write_text("5000000000 9900000000 4\n")
    assert watch.end() == (0.5, 0.0)


def test_it_never_waited_longer_than_it_took(
    watch: StopWatch, times: Path, seconds: list[float]
) -> None:
    seconds += 10.0, 10.5
    watch.begin(exact=True)
    times.write_text("5000000000 9000000000 4\n")
    assert watch.end() == (0.5, 0.5)


def test_where_the_system_does_not_tell_nothing_counts_as_late(
    tmp_path: Path, seconds: list[float]
) -> None:
    seconds += 10.0, 10.5
    watch = StopWatch(str(tmp_path / "none"))
    watch.begin(exact=True)
    assert watch.end() == (0.5, 0.0)
    watch.close()


@pytest.mark.skipif(not os.path.exists(stop_watch.TIMES), reason="the kernel does not tell")
def test_what_waits_for_something_else_is_not_late() -> None:
    """In each thread, as the kernel has it."""
    watch = StopWatch()

    def measure() -> None:
        watch.begin(exact=True)
        time.sleep(0.02)
        took_s, late_s = watch.end()
        assert took_s - late_s >= 0.019
        finished.append(True)

    finished: list[bool] = []
    measure()
    thread = Thread(target=measure)
    thread.start()
    thread.join()
    assert len(finished) == 2
    watch.close()


@pytest.mark.parametrize("content", ["", "5000000000", "not what was expected"])
def test_where_the_system_does_not_tell_any_more_nothing_counts_as_late(
    watch: StopWatch, times: Path, seconds: list[float], content: str
) -> None:
    """It is no failure of the disk, for which the log would end."""
    seconds += 10.0, 10.5
    watch.begin(exact=True)
    times.write_text(content)
    assert watch.end() == (0.5, 0.0)
