"""`make bench`: every scenario on our broker, beside the limits of this machine, as one table.

    python -m benchmarks.run [--only NAME] [--seconds 3] [--repeat 2] [--json FILE] [--list]
    python -m benchmarks.run --peer mosquitto     interleaved, with ratios
    python -m benchmarks.run --backlog-rss        what a backlog of 1,000,000 costs in memory

Figures are medians over the repetitions; --json keeps every one of them. Exit code 1: a scenario
failed. Ctrl-C stops the brokers and prints what there is.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import sqlite3
import subprocess
import sys
import textwrap
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median

from benchmarks import limits
from benchmarks.brokers import BROKERS, RESULTS, mosquitto_path, running
from benchmarks.disk import LeftOut, delayed_syncs
from benchmarks.loads import PAYLOAD_BYTES, WRITTEN, Result
from benchmarks.scenarios import SCENARIOS, Limit, Scenario
from cli.bench.connection import LoadError

LIMIT_SECONDS_MAX = 1.5
HEADINGS = (
    *(
        "scenario",
        "broker",
        "acked/s",
        "delivered/s",
        "broker us",
        "load us",
        "peak MB",
        "grown MB",
    ),
    *("of the limit", "to the peer", "more"),
)
LEGEND = (
    "Rates are messages a second from the first send until the last one arrived; delivered/s "
    "counts each subscriber's copy. broker us, load us: CPU per delivery (per message in a "
    "backlog) of the broker's process and of ours. grown MB: peak memory less the memory after "
    "warming up. of the limit: the figure as a part of the least limit that it is up against, "
    "from the same run."
)
MOSQUITTO_NOTE = (
    "mosquitto acknowledges before it stores, and stores every 30 minutes: not the same promise. "
    "It has no limit on what it queues, so that it drops nothing."
)


@dataclass
class Measured:
    """Everything of one run of this program."""

    date: str
    machine: dict[str, str]
    limits: list[dict[str, float]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)

    def limit(self, name: str) -> float | None:
        values = [limit[name] for limit in self.limits if name in limit]
        return median(values) if values else None

    def summary(self, scenario: str, broker: str) -> Result | None:
        """The medians of one scenario on one broker; a run that failed or was left out is that."""
        runs = [r for r in self.results if (r.scenario, r.broker) == (scenario, broker)]
        for run in runs:
            if run.error or run.left_out:
                return run
        if not runs:
            return None
        summary = Result(scenario, broker)
        for name, value in asdict(runs[0]).items():
            if isinstance(value, float):
                setattr(summary, name, median(getattr(run, name) for run in runs))
        for name in dict.fromkeys(name for run in runs for name in run.details):
            summary.details[name] = median(run.details[name] for run in runs if name in run.details)
        return summary


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    if options.list:
        for scenario in SCENARIOS:
            print(f"{scenario.name:20} {scenario.title}")
        return 0
    raise_open_files_limit()
    scenarios = chosen(options)
    brokers = [options.broker, *([options.peer] if options.peer else [])]
    measured = Measured(time.strftime("%Y-%m-%d %H:%M %Z"), machine())
    interrupted = False
    try:
        run_all(scenarios, brokers, options, measured)
    except KeyboardInterrupt:
        interrupted = True
        print("interrupted", file=sys.stderr)
    if measured.results:
        print(table(scenarios, brokers, measured))
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(asdict(measured), indent=1) + "\n")
    if interrupted:
        return 130
    return int(any(result.error for result in measured.results))


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    names = [scenario.name for scenario in SCENARIOS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME")
    parser.add_argument("--seconds", type=float, default=3.0, help="of publishing in a scenario")
    parser.add_argument("--repeat", type=int, default=2)
    parser.add_argument("--peer", choices=sorted(BROKERS), help="measure this one in turns with it")
    parser.add_argument("--broker", choices=sorted(BROKERS), default="pubsub")
    parser.add_argument("--backlog-rss", action="store_true", help="only the 1,000,000 backlogs")
    parser.add_argument("--no-limits", action="store_true", help="do not measure the machine")
    parser.add_argument("--json", type=Path, metavar="FILE", help="every single result")
    parser.add_argument("--list", action="store_true", help="the scenarios")
    options = parser.parse_args(arguments)
    if options.seconds <= 0 or options.repeat < 1:
        parser.error("--seconds and --repeat must be positive")
    if "mosquitto" in (options.broker, options.peer) and not mosquitto_path():
        parser.error("mosquitto is not installed")
    return options


def chosen(options: argparse.Namespace) -> list[Scenario]:
    if options.only:
        return [scenario for scenario in SCENARIOS if scenario.name in options.only]
    return [scenario for scenario in SCENARIOS if scenario.on_request == options.backlog_rss]


def run_all(
    scenarios: Sequence[Scenario],
    brokers: Sequence[str],
    options: argparse.Namespace,
    measured: Measured,
) -> None:
    """A B A B: brokers take turns in each scenario, and the machine's limits in each repetition."""
    for turn in range(options.repeat):
        if not options.no_limits:
            progress(f"{turn + 1}/{options.repeat} limits")
            measured.limits.append(limits.measure(min(options.seconds, LIMIT_SECONDS_MAX)))
        for scenario in scenarios:
            for name in brokers:
                progress(f"{turn + 1}/{options.repeat} {scenario.name} on {name}")
                measured.results.append(run_one(scenario, name, options.seconds))
    progress("")


def run_one(scenario: Scenario, name: str, seconds: float) -> Result:
    try:
        with running(name, environment=delayed_syncs(scenario.sync_delay_ms)) as broker:
            return scenario.measure(broker, seconds)
    except LeftOut as reason:
        return Result(scenario.name, name, left_out=str(reason))
    except (LoadError, RuntimeError, OSError) as error:
        notes = "\n".join(getattr(error, "__notes__", ()))
        progress("")
        print(f"FAILED {scenario.name} on {name}: {error}\n{notes}".rstrip(), file=sys.stderr)
        return Result(scenario.name, name, error=str(error))


def progress(line: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{line}", end="", file=sys.stderr, flush=True)


def table(scenarios: Sequence[Scenario], brokers: Sequence[str], measured: Measured) -> str:
    rows: list[tuple[str, ...]] = [HEADINGS]
    for scenario in scenarios:
        title = scenario.title
        for broker in brokers:
            summary = measured.summary(scenario.name, broker)
            if summary is None:
                continue
            peer = measured.summary(scenario.name, brokers[-1])
            ratio = against(summary, peer) if broker != brokers[-1] and peer else ""
            rows.append(
                (
                    title,
                    broker,
                    number(summary.acked_per_s),
                    number(summary.delivered_per_s),
                    number(summary.broker_cpu_us),
                    number(summary.load_cpu_us),
                    number(summary.memory_peak_mb),
                    number(summary.memory_growth_mb),
                    "; ".join(
                        filter(None, (of_limit(summary, x, measured) for x in scenario.limits))
                    ),
                    ratio,
                    details(summary),
                )
            )
            title = ""
    if len(brokers) == 1:
        rows = [row[:-2] + row[-1:] for row in rows]
    names = sorted({name for limit in measured.limits for name in limit})
    bounds = "; ".join(f"{name} {number(measured.limit(name))}" for name in names)
    paragraphs = [
        f"pubsub benchmark, {measured.date}, payload {PAYLOAD_BYTES} bytes unless it says so",
        ", ".join(f"{key} {value}" for key, value in measured.machine.items()),
        *([f"Limits: {bounds}"] if bounds else []),
        LEGEND,
        *([MOSQUITTO_NOTE] if "mosquitto" in brokers else []),
    ]
    head = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, 100)]
    return "\n".join([*head, "", *aligned(rows)])


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = []
    for row in rows:
        cells = [
            cell.rjust(width) if 2 <= at <= 7 else cell.ljust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    return [lines[0], "-" * max(map(len, lines)), *lines[1:]]


def figure(result: Result, name: str) -> float | None:
    value = result.details.get(name, getattr(result, name, None))
    return value if isinstance(value, float) else None


def of_limit(result: Result, limit: Limit, measured: Measured) -> str:
    value = figure(result, limit.figure)
    bounds = {name: bound for name in limit.names if (bound := measured.limit(name))}
    if value is None or not bounds:
        return ""
    if limit.figure.endswith(" ms"):  # A time: the limit is below it.
        name = max(bounds, key=bounds.__getitem__)
        return f"{value / bounds[name]:.1f}x {name}"
    name = min(bounds, key=bounds.__getitem__)
    return f"{100 * value / bounds[name]:.0f} % of {name}"


def against(result: Result, peer: Result) -> str:
    ratios = []
    for name, unit in (("acked_per_s", "acked"), ("delivered_per_s", "delivered")):
        mine, its = figure(result, name), figure(peer, name)
        if mine and its and not result.details.get("p50 ms"):
            ratios.append(f"{mine / its:.2f}x {unit}")
    for name, short in (("p50 ms", "p50"), ("p99 ms", "p99"), (WRITTEN, "written")):
        mine, its = figure(result, name), figure(peer, name)
        if mine and its:
            ratios.append(f"{mine / its:.1f}x {short}")
    return ", ".join(ratios)


def details(result: Result) -> str:
    if result.error:
        return f"FAILED: {result.error}"
    if result.left_out:
        return f"left out: {result.left_out}"
    return ", ".join(f"{name} {number(value)}" for name, value in result.details.items())


def number(value: float | None) -> str:
    if value is None:
        return ""
    return (
        f"{value:,.0f}"
        if abs(value) >= 100
        else f"{value:.2f}"
        if abs(value) < 10
        else f"{value:.1f}"
    )


def machine() -> dict[str, str]:
    """What the figures depend on, in words."""
    cpu = platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    RESULTS.mkdir(parents=True, exist_ok=True)
    disk = subprocess.run(
        ["stat", "-f", "-c", "%T", str(RESULTS)], capture_output=True, text=True, check=False
    )
    return {
        "CPU": f"{cpu} x {os.cpu_count()}",
        "load": f"{os.getloadavg()[0]:.1f}",
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "SQLite": sqlite3.sqlite_version,
        "disk": disk.stdout.strip() or "unknown",
    }


def raise_open_files_limit() -> None:
    """As far as allowed: for the brokers, which inherit it, and for ourselves."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    sys.exit(main())
