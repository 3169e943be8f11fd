# The README's commands. Everything happens in .venv; PYTHON chooses the interpreter it is made of.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: help demo test test-slow faults mutants lint types check clean walks bench-sessions bench-cache bench-fill-race bench-api

help:  ## List the targets
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

demo: $(VENV)/.demo  ## Start the example project with real conversations; needs no service
	$(BIN)/python manage.py demo

test: $(VENV)/.dev  ## Run all tests except the slow ones; those whose service is missing skip and say so
	$(BIN)/python -m pytest -n auto --dist loadgroup -m "not slow" $(ARGS)

test-slow: $(VENV)/.dev  ## Run the slow tests: whole processes, servers and browsers, generated requests
	$(BIN)/python -m pytest -n auto --dist loadgroup -m slow --ignore tests/faults $(ARGS)

faults: $(VENV)/.dev  ## Run the tests with a Redis that is killed, hung, cut off or full, and print figures
	$(BIN)/python -m pytest tests/faults -s $(ARGS)

mutants: $(VENV)/.dev  ## Change the core in small ways and count what the tests notice, by module; an hour
	$(BIN)/python -m tests.mutants $(ARGS)

lint: $(VENV)/.dev  ## Check format, lint rules and import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports

types: $(VENV)/.dev  ## Check types with mypy in strict mode
	$(BIN)/mypy

check: lint types test test-slow faults  ## Run lint, types, test, test-slow and faults

clean:  ## Remove environments, caches and builds
	rm -rf $(VENV) $(VENV)-bench .nox .mypy_cache .ruff_cache .pytest_cache build dist *.egg-info

# The libraries that the stores and caches are compared with have an environment of their own.
$(VENV)-bench/.bench: setup.cfg pyproject.toml
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check --upgrade pip
	PYTHONWARNINGS=ignore $(VENV)-bench/bin/python -m pip install --quiet --disable-pip-version-check -e '.[bench]'
	touch $@

bench-sessions: $(VENV)-bench/.bench  ## Compare the session store with other libraries; ARGS=--quick or --docs
	$(VENV)-bench/bin/python -m benchmarks.sessions $(ARGS)

bench-cache: $(VENV)-bench/.bench  ## Compare the cache with other libraries; ARGS=--quick or --docs
	$(VENV)-bench/bin/python -m benchmarks.cache $(ARGS)

walks: $(VENV)/.dev  ## Count the modules that a hit, a miss and a POST of a message visit
	$(BIN)/python -m benchmarks.walks

bench-fill-race: $(VENV)/.dev  ## Count how often an old value stays when processes compute and invalidate at once
	$(BIN)/python -m benchmarks.fill_race $(ARGS)

bench-api: $(VENV)/.dev  ## Compare the REST API on real servers with empty views and raw psycopg
	$(BIN)/python -m benchmarks.api $(ARGS)
