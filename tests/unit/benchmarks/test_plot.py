"""Tables say what was measured, with its spread, and only the generated parts are replaced."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import plot
from benchmarks.brokers import ROOT
from benchmarks.scale import CURVES


def curve(*points: tuple[int, list[dict[str, float]]]) -> dict[str, Any]:
    return {
        "of": "messages",
        "measured": "2025-03-14 10:30 UTC",
        "machine": {"CPU": "fast x 2", "load": "0.1"},
        "seconds": 1.5,
        "complete": True,
        "points": [{"x": x, "runs": runs, "errors": []} for x, runs in points],
    }


def test_a_row_has_the_median_and_the_spread_or_says_that_it_failed() -> None:
    runs = [{"a": 90_000.0, "b": 1.234}, {"a": 110_000.0, "b": 1.234}]
    assert plot.table(curve((1000, runs), (5000, [])), ["a", "b", "c"]) == [
        "| messages | a | b | c |",
        "| ---: | ---: | ---: | ---: |",
        "| 1,000 | 100,000 (90,000 to 110,000) | 1.23 (1.23 to 1.23) |  |",
        "| 5,000 | failed |  |  |",
    ]


def test_decay_is_less_of_a_rate_and_more_of_a_time() -> None:
    measured = curve(
        (0, [{"rate": 1.0, "time": 1.0}]),
        (10, [{"rate": 0.7, "time": 1.1}]),
        (20, [{"rate": 0.9, "time": 0.9}]),
    )
    assert plot.decay(measured, "rate") == (
        "rate: 30 % worse where it is worst, at 10: beyond the 20 % allowed."
    )
    assert "10 % worse" in plot.decay(measured, "time")
    assert "within" in plot.decay(measured, "time")
    faster = curve((0, [{"rate": 1.0}]), (10, [{"rate": 1.5}]))
    assert "50 % better" in plot.decay(faster, "rate")
    assert "not enough points" in plot.decay(curve((0, [{"rate": 1.0}])), "rate")


def test_only_what_stands_between_the_marks_is_replaced() -> None:
    text = "A\n<!-- scale: a -->\nold\n<!-- end -->\nB\n<!-- scale: b -->\nkept\n<!-- end -->\n"
    new = text.replace("old", r"new \1")
    assert plot.filled(text, {"a": r"new \1"}) == new
    assert plot.filled(new, {"a": r"new \1"}) == new
    with pytest.raises(ValueError, match="scale: c"):
        plot.filled(text, {"c": "new"})


def test_every_curve_has_its_place_in_the_page() -> None:
    names = {curve.name for curve in CURVES}
    assert plot.SHOWN.keys() == names
    page = (ROOT / "docs" / plot.PERFORMANCE).read_text()
    assert plot.filled(page, dict.fromkeys(names, "new")).count("\nnew\n") == len(names)


def test_plots_and_page_are_the_same_each_time(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    source = tmp_path / "scale.json"
    runs = [{"delivered/s": 1.0, "KB each": 8.0}]
    source.write_text(json.dumps({"curves": {"connections": curve((0, runs), (10, runs))}}))
    page = tmp_path / plot.PERFORMANCE
    page.write_text("<!-- scale: connections -->\n<!-- end -->\n")
    made = []
    for _ in range(2):
        assert plot.main(["--json", str(source), "--docs", str(tmp_path)]) == 0
        made.append((page.read_text(), (tmp_path / "scale-connections.svg").read_bytes()))
    assert made[0] == made[1]
    assert "2025-03-14 10:30 UTC, 1.5 s a run; CPU fast x 2, load 0.1." in made[0][0]
