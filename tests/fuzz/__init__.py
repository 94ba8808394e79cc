"""Coverage-guided fuzzing of everything that reads what strangers send.

A module for each target has `check(data)`, which fails on bytes that break a promise. What atheris
found worth keeping is in `corpus/`, an input a line in hexadecimal: `test_corpus.py` replays it in
every test run, `run.py` (`make fuzz T=600`) starts from it.
"""
