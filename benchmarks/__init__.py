"""Benchmarks: our own load generator, the scenarios, and the physical limits to judge them by.

`load.py` makes the load, `scenarios.py` says which, `brokers.py` starts what is measured,
`limits.py` measures what this machine could do at most, `run.py` prints one table of it all, and
`profile.py` shows where a broker spends its time meanwhile. Run `python -m benchmarks.run --help`.
"""
