"""The curves of `scale.py` as plots and tables, in `docs/performance.md`.

    pip install -e '.[bench]'; python -m benchmarks.plot [--json FILE] [--docs DIRECTORY]

Writes `docs/scale-NAME.svg`, and in performance.md what stands between `<!-- scale: NAME -->` and
`<!-- end -->`. The prose around it is written by hand and stays. A point is the median of its runs,
and the band about it goes from the least to the greatest: where it is wide, the machine was busy.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.brokers import ROOT
from benchmarks.scale import SCALE_JSON

PERFORMANCE = "performance.md"
SHOWN: dict[str, tuple[str, ...]] = {
    "publishers": ("delivered/s", "broker us"),
    "subscribers": ("delivered/s", "broker us"),
    "topics": ("delivered/s", "new topics: delivered/s"),
    "filters": (
        *("routing us", "delivered/s", "changing: delivered/s", "changes/s"),
        *("KB each", "subscribed/s"),
    ),
    "subscriptions": (
        *("resume ms", "stall ms", "connect ms", "subscribe ms", "subscribe in one ms"),
        *("unsubscribe ms", "disconnect ms"),
    ),
    "payload": ("delivered/s", "MB/s"),
    "log": (
        *("rate to empty", "replay time to empty", "delivered/s"),
        *("replay p50 ms", "replay p99 ms", "rare ms", "start s"),
    ),
    "sessions": ("delivered/s", "start s", "resume p50 ms", "MB"),
    "connections": ("delivered/s", "KB each", "connected/s"),
}
"""The figures of each curve's table; of them, the first two are plotted."""
PLOTTED = 2
DECAY_MAX = 0.20
DECAYING = {"log": ("rate to empty", "replay time to empty")}
"""Ratios to the least of the curve, measured beside it, that must not be worse than one by more."""

Point = Mapping[str, Any]


def values(point: Point, figure: str) -> list[float]:
    return [run[figure] for run in point["runs"] if figure in run]


def cell(found: Sequence[float]) -> str:
    if not found:
        return ""
    spread = f" ({number(min(found))} to {number(max(found))})" if len(found) > 1 else ""
    return number(median(found)) + spread


def number(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(curve: Mapping[str, Any], figures: Sequence[str]) -> list[str]:
    lines = [
        f"| {curve['of']} | {' | '.join(figures)} |",
        f"| ---: |{' ---: |' * len(figures)}",
    ]
    for point in curve["points"]:
        cells = [cell(values(point, figure)) for figure in figures]
        if not point["runs"]:
            cells[0] = "failed"
        lines.append(f"| {point['x']:,} | {' | '.join(cells)} |")
    return lines


def decay(curve: Mapping[str, Any], figure: str) -> str:
    """How much worse than one the worst point is, in a sentence."""
    medians = [
        (point["x"], median(found)) for point in curve["points"] if (found := values(point, figure))
    ]
    if len(medians) < 2:
        return f"{figure}: not enough points to say whether it decays."
    rate = figure.startswith("rate")  # Of a rate less is worse, of a time more.
    worst, x = max((1 - y if rate else y - 1, x) for x, y in medians[1:])
    verdict = "within" if worst <= DECAY_MAX else "beyond"
    return (
        f"{figure}: {100 * abs(worst):.0f} % {'worse' if worst > 0 else 'better'} where it is"
        f" worst, at {x:,}: {verdict} the {100 * DECAY_MAX:.0f} % allowed."
    )


def block(name: str, curve: Mapping[str, Any]) -> str:
    """What performance.md says of a curve."""
    of = ", ".join(f"{key} {value}" for key, value in curve["machine"].items())
    lines = [f"![{curve['of']}](scale-{name}.svg)", "", *table(curve, SHOWN[name]), ""]
    lines += [decay(curve, figure) + "\n" for figure in DECAYING.get(name, ())]
    unfinished = "" if curve["complete"] else " Stopped before its last run: not complete."
    lines.append(f"*{curve['measured']}, {curve['seconds']} s a run; {of}.{unfinished}*")
    return "\n".join(lines)


def filled(text: str, blocks: Mapping[str, str]) -> str:
    """The text with these blocks in their places. Raises ValueError if one has none."""
    for name, content in blocks.items():
        begin = f"<!-- scale: {name} -->"
        place = re.compile(re.escape(begin) + r".*?<!-- end -->", re.DOTALL)
        found = place.findall(text)
        if len(found) != 1:
            raise ValueError(f"there must be one {begin} ... <!-- end -->")
        text = text.replace(found[0], f"{begin}\n{content}\n<!-- end -->")
    return text


def plot(name: str, curve: Mapping[str, Any], path: Path) -> None:
    import matplotlib

    matplotlib.use("svg")
    # Text as text, and no dates or random names: the same JSON gives the same file.
    matplotlib.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": name, "font.size": 9})
    from matplotlib import pyplot

    figures = SHOWN[name][:PLOTTED]
    figure, panels = pyplot.subplots(1, len(figures), figsize=(8, 2.6), layout="constrained")
    for panel, shown in zip(panels, figures, strict=True):
        points = [(p["x"], found) for p in curve["points"] if (found := values(p, shown))]
        at = [x for x, _ in points]
        panel.plot(at, [median(found) for _, found in points], marker="o", markersize=3)
        panel.fill_between(
            at,
            [min(found) for _, found in points],
            [max(found) for _, found in points],
            alpha=0.2,
        )
        panel.set_xscale("symlog", linthresh=max(1, min((x for x in at if x), default=1)))
        panel.set_ylim(0, 1.1 * max((max(found) for _, found in points), default=1))
        panel.set_xlabel(curve["of"])
        panel.set_title(shown, fontsize=9)
        panel.grid(alpha=0.3)
    figure.savefig(path, format="svg", metadata={"Date": None})
    pyplot.close(figure)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plot",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", type=Path, default=SCALE_JSON, metavar="FILE")
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", metavar="DIRECTORY")
    options = parser.parse_args(arguments)
    curves = json.loads(options.json.read_text())["curves"]
    for name, curve in curves.items():
        plot(name, curve, options.docs / f"scale-{name}.svg")
    performance = options.docs / PERFORMANCE
    blocks = {name: block(name, curve) for name, curve in curves.items()}
    performance.write_text(filled(performance.read_text(), blocks))
    return 0


if __name__ == "__main__":
    sys.exit(main())
