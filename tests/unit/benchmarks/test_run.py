"""The table tells what was measured, what failed and what this machine cannot measure."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import run
from benchmarks.brokers import BrokerProcess
from benchmarks.disk import LeftOut
from benchmarks.loads import WRITTEN, Result
from benchmarks.run import Measured
from benchmarks.scenarios import SCENARIOS, Scenario
from cli.bench.connection import Loop


def no_run(broker: BrokerProcess, loop: Loop, seconds: float, result: Result) -> None:
    raise AssertionError("nothing is started")


SLOW = Scenario("slow", "on a slow disk", no_run, sync_delay_ms=20)


def test_a_row_that_cannot_be_measured_says_why_and_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    def no_compiler(delay_ms: int) -> dict[str, str]:
        raise LeftOut(f"no compiler for {delay_ms} ms")

    monkeypatch.setattr(run, "delayed_syncs", no_compiler)
    monkeypatch.setattr(run, "SCENARIOS", [SLOW])
    assert run.main(["--no-limits", "--only", "slow"]) == 0
    out, err = capsys.readouterr()
    assert out.rstrip().endswith("left out: no compiler for 20 ms")
    assert err == ""


def test_a_figure_is_the_median_of_the_runs_that_have_it() -> None:
    runs = [
        Result("slow", "pubsub", details={"p50 ms": 1.0}),
        Result("slow", "pubsub", details={"p50 ms": 3.0, "pause ms": 7.0}),
    ]
    summary = Measured("now", {}, results=runs).summary("slow", "pubsub")
    assert summary is not None
    assert summary.details == {"p50 ms": 2.0, "pause ms": 7.0}


def test_a_failed_run_fails_the_row() -> None:
    runs = [Result("slow", "pubsub", acked_per_s=5.0), Result("slow", "pubsub", error="lost")]
    table = run.table([SLOW], ["pubsub"], Measured("now", {}, results=runs))
    assert table.endswith("FAILED: lost")


def test_what_is_written_is_compared_unless_one_writes_nothing() -> None:
    ours = Result("writes", "pubsub", details={WRITTEN: 3000.0})
    assert run.against(ours, Result("writes", "b", details={WRITTEN: 2000.0})) == "1.5x written"
    assert run.against(ours, Result("writes", "b", details={WRITTEN: 0.0})) == ""


def test_each_scenario_has_a_name_and_a_title_of_its_own() -> None:
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)
    assert len({scenario.title for scenario in SCENARIOS}) == len(SCENARIOS)
