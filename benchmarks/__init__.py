"""Benchmarks: scenarios for our load generator, and the physical limits to judge them by.

`cli/bench` has the clients, `loads.py` says what they do, `scenarios.py` which rows there are,
`brokers.py` starts what is measured, `disk.py` makes its disk slow or busy, `limits.py` measures
what this machine could do at most, `run.py` prints one table of it all, and `profile.py` shows
where a broker spends its time meanwhile. Run `python -m benchmarks.run --help`.

`scale.py` measures curves, on what `prepare.py` puts into a data directory, and `plot.py` writes
them into `docs/performance.md`. `work.py` counts what a message costs instead of timing it, with
the whole broker in one process (`in_process.py`): the guard that CI runs. `codec.py` times parts of
the broker by themselves, in microseconds: what comments quote.
`cluster.py` measures brokers that share a log beside one that is alone.
"""
