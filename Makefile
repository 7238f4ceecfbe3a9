# The one way to build, check and run. On a fresh machine it needs make and Python 3.11 or newer, and nothing else.

# PYTHON makes the environment; everything after that runs inside it. Override: make test PYTHON=/path/to/python3
PYTHON ?= $(shell for each in python3.13 python3.12 python3.11 python3; do \
	$$each -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { command -v $$each; break; }; done)
# Names on the PATH, or paths; those that are not there are skipped.
PYTHONS ?= python3.11 python3.12 python3.13
STORE ?= sqlite
PORT ?= 8080
PASSES ?= 3

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CHECKED := tinyworkflow_core functions tests

.DEFAULT_GOAL := help
.PHONY: help test lint types contracts infra check pythons demo serve bench screenshots format clean

help:
	@echo 'make test        the whole suite (makes the environment first)'
	@echo 'make lint        ruff check, ruff format --check'
	@echo 'make types       mypy --strict'
	@echo 'make contracts   the floors of the house (import-linter)'
	@echo 'make infra       what is deployed, and Terraform over infra/ (both are part of make test)'
	@echo 'make check       all four'
	@echo 'make pythons     the engine on every Python that is found; PYTHONS="python3.11 /path/to/python3.12"'
	@echo 'make demo        run the examples; STORE=sqlite or firestore'
	@echo 'make serve       the HTTP functions on 127.0.0.1:$(PORT); PORT=8080'
	@echo 'make bench       how fast it is; PEERS="restate dbos" beside others, PASSES=3, WORKLOADS="W1 W4"'
	@echo 'make screenshots the pictures of the dashboard in docs/images (needs Chromium)'
	@echo 'make format      ruff format, and the mends that ruff is sure of'
	@echo 'make clean       remove the environment and all caches'

# Made again only when pyproject.toml changes; an interrupted installation leaves no stamp and is repeated.
$(READY): pyproject.toml
	@test -n '$(PYTHON)' || { \
		echo 'Python 3.11 or newer is needed, and none was found. Install one, or: make test PYTHON=/path/to/python3' >&2; \
		exit 1; }
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo '$(PYTHON) is older than Python 3.11 (or does not run); name another: make test PYTHON=/path/to/python3' >&2; \
		exit 1; }
	@test -x $(BIN)/python || '$(PYTHON)' -m venv $(VENV) || { rm -rf $(VENV); \
		echo '$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv' >&2; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

test: $(READY)
	$(BIN)/python -m pytest -q -n auto --dist loadfile

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)
	$(BIN)/mypy --strict $(CHECKED)

contracts: $(READY)
	$(BIN)/lint-imports

infra: $(READY)
	$(BIN)/python -m pytest -q tests/infra tests/functions/test_deployable.py

check: test lint types contracts

pythons:
	@.ci/pythons $(PYTHONS)

demo: $(READY)
	$(BIN)/python functions/demo.py $(STORE)

serve: $(READY)
	$(BIN)/functions-framework --target app --source functions/main.py --host 127.0.0.1 --port $(PORT)

# BENCH: more options, such as --raw FILE or --write docs/benchmarks.md
bench: $(READY)
	$(BIN)/python -m tests.benchmarks.side_by_side.session --peers '$(PEERS)' --passes '$(PASSES)' \
		--workloads '$(WORKLOADS)' $(BENCH)

screenshots: $(READY)
	$(BIN)/python -m tests.screenshots

format: $(READY)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf $(VENV) .venvs build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find tinyworkflow_core functions tests -name __pycache__ -type d -prune -exec rm -rf {} +
