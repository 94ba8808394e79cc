"""Where a broker spends its time during a scenario, by py-spy (`pip install py-spy`).

    python -m benchmarks.profile qos1-w1000 [--seconds 10] [--native] [--output profile.svg]

Writes a flame graph, or with `--format raw` lines to grep and sort. py-spy samples from outside and
costs the broker little; it needs the right to read another process (root, or ptrace allowed). Only
what holds the GIL is sampled with `--gil`: the difference between both is waiting and C code.

To count calls instead (which slows everything), start the broker by
`python -m cProfile -o broker.prof -m cli.main broker start --port N --data-dir D`, load it, stop it
and look at `python -m pstats broker.prof`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path

from benchmarks.brokers import RESULTS, running
from benchmarks.scenarios import SCENARIOS


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    scenarios = {scenario.name: scenario for scenario in SCENARIOS}
    parser.add_argument("scenario", choices=scenarios, metavar="scenario")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument(
        "--format", choices=("flamegraph", "raw", "speedscope"), default="flamegraph"
    )
    parser.add_argument("--output", type=Path, default=RESULTS / "profile.svg")
    parser.add_argument("--gil", action="store_true")
    parser.add_argument("--native", action="store_true", help="C frames too")
    options = parser.parse_args()
    beside_python = Path(sys.executable).parent
    py_spy = shutil.which("py-spy", path=f"{beside_python}:{os.environ.get('PATH', '')}")
    if py_spy is None:
        parser.error("py-spy is not installed")
    with running("pubsub") as broker:
        command = [py_spy, "record", "--pid", str(broker.process.pid), "--threads"]
        command += ["--format", options.format, "--output", str(options.output)]
        command += ["--duration", str(round(options.seconds)), "--rate", "250", "--nonblocking"]
        command += ["--gil"] if options.gil else []
        command += ["--native"] if options.native else []
        profiler = subprocess.Popen(command)
        try:
            print(scenarios[options.scenario].measure(broker, options.seconds))
        finally:
            profiler.wait(60)
    print(options.output)
    return profiler.returncode


if __name__ == "__main__":
    sys.exit(main())
