# Two commands matter: `make demo` shows the main job, `make test` proves it. Everything runs in .venv, made from the hashed lock.
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.installed

.DEFAULT_GOAL := help
.PHONY: help demo test lint types contracts tests mutations docs bench lock ci-deps clean

help:  ## say what can be made
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "make: $(PYTHON) is needed; name another with PYTHON=python3" >&2; exit 1; }
	@echo "setting up $(VENV) from requirements.lock (about half a minute)"
	@$(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY)  ## the main job end to end, explained; KEEP=1 leaves it running
	@$(BIN)/python -m tests.demo $(if $(KEEP),--keep)

test: lint types contracts tests docs  ## everything that must hold before a change lands

lint: $(READY)  ## style and mistakes
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(READY)  ## mypy, strict
	$(BIN)/mypy

contracts: $(READY)  ## who may import whom
	$(BIN)/lint-imports --no-cache

tests: $(READY)  ## the tests, with the coverage that is asked of each part
	$(BIN)/python -m coverage erase
	$(BIN)/pytest -n 2 --dist loadfile --cov --cov-report=
	$(BIN)/python -m tests.coverage_gate

mutations: $(READY)  ## take out each guard in turn and see a test fail; ONLY=word for some
	$(BIN)/python -m tests.mutations $(if $(ONLY),--only $(ONLY))

docs: $(READY)  ## the documentation, warnings being errors
	$(BIN)/sphinx-build -q -W --keep-going -b html docs build/docs

bench: $(READY)  ## ratios against floor and peers; ONLY=name for some
	$(BIN)/python -m tests.benchmarks $(if $(ONLY),--only $(ONLY))

lock:  ## resolve pyproject.toml into requirements.lock again (needs uv)
	uv pip compile -q --universal --python-version 3.11 --generate-hashes --all-extras --no-header --no-annotate \
	  -o requirements.lock pyproject.toml

ci-deps:  ## what the tests use beyond Python: Debian and npm packages by name
	apt-get update -qq
	echo 'glewlwyd glewlwyd/config_type select No configuration' | debconf-set-selections
	DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends strace openssl curl chromium chromium-driver \
	  dbconfig-no-thanks glewlwyd
	npm ci --prefix tests/node --silent

clean:  ## remove everything that was made
	rm -rf $(VENV) build dist .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache docs/_build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
