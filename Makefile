# The README's commands. Everything happens in .venv; PYTHON chooses the interpreter it is made of.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow faults mutants lint types check clean walks bench-sessions bench-cache bench-fill-race bench-api

help:  ## What can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-16s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(VENV)/.demo: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

$(VENV)/.dev: setup.cfg pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	PYTHONWARNINGS=ignore $(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $@

demo: $(VENV)/.demo  ## The example project with real conversations; needs no service
	$(BIN)/python manage.py demo

test: $(VENV)/.dev  ## The tests but the slow ones; those of services that are not there skip loudly
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev  ## The slow ones: whole processes and servers, generated requests
	$(BIN)/python -m pytest -n auto --dist loadgroup -m slow --ignore tests/faults $(ARGS)

faults: $(VENV)/.dev  ## Redis killed, hung, cut off, full…: the tests of it, and what they measured
	$(BIN)/python -m pytest tests/faults -s $(ARGS)

mutants: $(VENV)/.dev  ## Small changes of the core: how many the tests notice, by module; about 20 minutes
	$(BIN)/python -m tests.mutants $(ARGS)

lint: $(VENV)/.dev  ## Format, lint, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.dev  ## mypy, strict
	$(BIN)/mypy

check: lint types test test-slow faults  ## All of the above

clean:  ## Remove environments, caches and builds
	rm -rf $(VENV) $(VENV)-bench .nox .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info

# The libraries that the stores and caches are compared with have an environment of their own.
$(VENV)-bench/.bench: setup.cfg pyproject.toml
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	PYTHONWARNINGS=ignore $(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

bench-sessions: $(VENV)-bench/.bench  ## The session store beside its peers; ARGS=--quick, --docs
	$(VENV)-bench/bin/python -m benchmarks.sessions $(ARGS)

bench-cache: $(VENV)-bench/.bench  ## The cache beside its peers; ARGS=--quick, --docs
	$(VENV)-bench/bin/python -m benchmarks.cache $(ARGS)

walks: $(VENV)/.dev  ## The modules that a hit, a miss and a POST of a message visit
	$(BIN)/python -m benchmarks.walks

bench-fill-race: $(VENV)/.dev  ## Invalidations against computations of another process: how often the old value stays
	$(BIN)/python -m benchmarks.fill_race $(ARGS)

bench-api: $(VENV)/.dev  ## The REST API on real servers, against empty views and raw psycopg
	$(BIN)/python -m benchmarks.api $(ARGS)
