# Everything a fresh machine needs beside Python 3.11+ (with venv) and make is installed here.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
HOST ?= 127.0.0.1
PORT ?= 9000
DATA ?= data
T ?= 600
CYCLES ?= 200
# By file, as a file's tests share a broker; in the order in which they are named here: the long ones
# first, as nothing is left beside the last. `tests/conftest.py` says how many workers there are.
BY_FILE := --dist loadfile --no-loadscope-reorder
QUICK := tests/model tests/unit tests/wire tests/test_architecture.py tests/test_support.py
SLOW := $(filter-out $(QUICK),$(wildcard tests/test_*.py)) tests/crash tests/e2e tests/conformance tests/fuzz
RANDOM := tests/crash tests/model tests/unit/net tests/unit/delivery tests/unit/store tests/e2e/test_websocket.py

.PHONY: run test quick soak check test-cluster soak-cluster bench bench-cluster fuzz format clean

run: $(VENV)/.installed
	$(BIN)/pubsub broker start --host $(HOST) --port $(PORT) --data-dir $(DATA)

# So that the workers, and the hundreds of processes that they start, find everything compiled.
test quick soak: export PYTHONDONTWRITEBYTECODE :=

# What needs no process of its own, which keeps a core busy; then what measures, alone; then the rest,
# which waits a lot, so more of it at once.
test: $(VENV)/.installed-test
	failed=0; \
	$(BIN)/python -m pytest -n logical $(BY_FILE) $(QUICK) || failed=1; \
	$(BIN)/python -m pytest -m alone tests/crash || failed=1; \
	$(BIN)/python -m pytest -m "not alone" -n auto $(BY_FILE) $(SLOW) || failed=1; \
	exit $$failed

# What needs no process of its own, with fewer examples and without what is long: for after every change.
quick: $(VENV)/.installed-test
	$(BIN)/python -m pytest --hypothesis-profile quick -m "not long" -n logical $(BY_FILE) $(QUICK)

# What draws at random, with twenty times as many examples and kills: for a night.
soak: $(VENV)/.installed-test
	$(BIN)/python -m pytest --hypothesis-profile soak --cycles $(CYCLES) $(RANDOM)

check: $(VENV)/.installed-check
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

# Three nodes of NATS on this machine: the contract of a store on them, and what they survive.
test-cluster: export PUBSUB_TEST_NODES := 1
test-cluster: $(VENV)/.installed-cluster
	timeout 600 $(BIN)/python -m pytest tests/unit/store/test_contract.py -k jetstream
	timeout 1800 $(BIN)/python -m pytest tests/cluster

# Random faults of nodes and brokers for ten minutes, from a printed seed. ARGS="--minutes 60".
soak-cluster: $(VENV)/.installed-cluster
	$(BIN)/python -m tests.cluster.soak $(ARGS)

bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks.run $(if $(PEER),--peer $(PEER)) $(ARGS)

# SQLite, and one to three brokers on three nodes of NATS on this machine; about four minutes.
bench-cluster: $(VENV)/.installed-cluster
	$(BIN)/python -m benchmarks.cluster $(ARGS)

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

$(VENV)/.installed-cluster: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,cluster]"
	touch $@ $(VENV)/.installed $(VENV)/.installed-test

$(VENV)/.installed-fuzz: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,fuzz]"
	touch $@ $(VENV)/.installed $(VENV)/.installed-test
