# Everything a fresh machine needs beside Python 3.11+ (with venv) and make is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 9000
DATA ?= data
T ?= 600
# By file, as a file's tests share a broker; in the order of the folders, the slow ones first.
PARALLEL := -n auto --dist loadfile --no-loadscope-reorder
QUICK := tests/model tests/unit tests/wire tests/test_architecture.py tests/test_support.py

.PHONY: run test quick check bench fuzz format clean

run: $(VENV)/.installed
	$(BIN)/pubsub broker start --host $(HOST) --port $(PORT) --data-dir $(DATA)

# So that the workers, and the hundreds of processes that they start, find everything compiled.
test quick: export PYTHONDONTWRITEBYTECODE :=

# What measures runs first and alone, the rest on all cores.
test: $(VENV)/.installed-test
	alone=0; $(BIN)/python -m pytest -m alone tests/crash || alone=$$?; \
	$(BIN)/python -m pytest -m "not alone" $(PARALLEL) && exit $$alone

# What needs no process of its own, with fewer examples: for after every change.
quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest --hypothesis-profile quick $(PARALLEL) $(QUICK)

check: $(VENV)/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.run $(if $(PEER),--peer $(PEER)) $(ARGS)

fuzz: $(VENV)/.installed-fuzz
	$(BIN)/python -m tests.fuzz.run --seconds $(T) $(ARGS)

format: $(VENV)/.installed-check
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

clean:
	rm -rf $(VENV) dist build

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-test: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	touch $@ $(VENV)/.installed

$(VENV)/.installed-check: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,check]"
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-fuzz: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,fuzz]"
	touch $@ $(VENV)/.installed $(VENV)/.installed-test
